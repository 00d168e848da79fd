"""How long it takes until nothing is left, and until there is an answer again.

    python -m bench.recovery [--samples N] [--engine fake|embedded|both] [--json FILE]

A real server with one model on an engine of a kind, and one of four things done to it, again and
again. The fake engine has vLLM's shape: an API server, an engine process that left the session and
ignores SIGTERM, and a worker below that. The embedded engine is llama.cpp's with the model that
comes with Lemonade; it is one process.

    router killed   SIGKILL to the server, until the last process of the engine is gone
    engine killed   SIGKILL to the API server, until the last of the others is gone
    unloaded        the request to unload, until it is answered; nothing is alive then
    answered again  SIGKILL to the engine and a request at once, until its whole answer is there
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.engine.install import installed_engine
from tests.serving import Serving, fake_catalog, fake_model, gone, serving, survivors

WITHIN = 60.0
LOOK_EVERY = 0.002
SHAPE = "--spawn-engine --engine-escapes --engine-ignores-term --engine-has-worker"

Samples = dict[str, list[float]]


@dataclass(frozen=True)
class Kind:
    """An engine to try.

    Attributes:
        model: its name.
        environ: of the server.
        bundles: with the engine in it, if it is installed.
        processes: of the engine, when all are there.
        options: it is loaded with.
    """

    model: str
    environ: Mapping[str, str]
    bundles: Path | None
    processes: int
    options: Mapping[str, object]


class Trial:
    """One running server with one engine."""

    def __init__(self, server: Serving, kind: Kind) -> None:
        self.server = server
        self.kind = kind

    def load(self) -> list[int]:
        """Load it; the pids of its processes, the one we spawned first."""
        body = {"model_name": self.kind.model, "force": True, **self.kind.options}
        reply = self.server.post("load", body)
        if reply.status_code != 200:
            raise SystemExit(reply.text)
        # One that was killed a moment ago may have been taken for loaded: an answer is a proof.
        self.server.chat(self.kind.model, max_tokens=1).raise_for_status()
        first: int = self.server.loaded()[self.kind.model]["pid"]
        limit = time.monotonic() + WITHIN
        while time.monotonic() < limit:
            family = [first, *(p.pid for p in psutil.Process(first).children(recursive=True))]
            # As it is for whoever has served for a while: all of them are in the ledger.
            if len(family) == self.kind.processes == 1 + self._recorded():
                return family
            time.sleep(0.02)
        raise SystemExit("The engine does not have the processes it should have.")

    def _recorded(self) -> int:
        """Descendants in the ledger; -1 while another engine is in it, too."""
        files = list((self.server.home / "cache" / "state" / "children").glob("*.json"))
        return len(json.loads(files[0].read_text())["descendants"]) if len(files) == 1 else -1

    def engine_killed(self) -> float:
        """Seconds until the others are gone."""
        first, *others = self.load()
        began = time.monotonic()
        os.kill(first, signal.SIGKILL)
        return until_gone(others or [first], began)

    def unloaded(self) -> tuple[float, int]:
        """Seconds until it is said, and the bytes that were said to be free again."""
        family = self.load()
        began = time.monotonic()
        answer = self.server.post("unload", {"model_name": self.kind.model}).json()
        took = time.monotonic() - began
        if answer["still_held"] or not all(gone(pid) for pid in family):
            raise SystemExit(f"It is said to be gone and is not: {answer}")
        return took, answer["freed_bytes"]

    def answered_again(self) -> float:
        """Seconds until the next request has its answer."""
        first, *_ = self.load()
        began = time.monotonic()
        os.kill(first, signal.SIGKILL)
        reply = self.server.chat(self.kind.model, max_tokens=4)
        if reply.status_code != 200 or not reply.json()["choices"][0]["message"]["content"]:
            raise SystemExit(reply.text)
        return time.monotonic() - began

    def router_killed(self) -> float:
        """Seconds until the engine is gone; the server is not there any more after this."""
        family = self.load()
        began = time.monotonic()
        self.server.process.kill()
        return until_gone(family, began)


def until_gone(family: list[int], began: float) -> float:
    """Seconds from `began` until all of them are dead."""
    while not all(gone(pid) for pid in family):
        if time.monotonic() - began > WITHIN:
            raise SystemExit(f"Still alive after {WITHIN:g} s: {family}")
        time.sleep(LOOK_EVERY)
    return time.monotonic() - began


@contextmanager
def trial(folder: Path, kind: Kind) -> Iterator[Trial]:
    """A server of its own; nothing of it is left afterwards."""
    with serving(folder, env=kind.environ, bundles=kind.bundles) as server:
        yield Trial(server, kind)
    if left := survivors(folder):
        raise SystemExit(f"Left behind: {left}")


def fake_kind(folder: Path) -> Kind:
    """The fake engine in vLLM's shape."""
    catalog = fake_catalog(folder)
    fake_model(catalog, "shaped", args=SHAPE)
    return Kind("shaped", {"LEMONADE_CATALOG": str(catalog)}, None, 3, {})


def embedded_kind(folder: Path) -> Kind:
    """llama.cpp's server with the model that comes with Lemonade."""
    installed_engine(folder)
    options = {"ctx_size": 256, "llamacpp_backend": "wheel", "llamacpp_args": "-t 1"}
    return Kind("Tiny-Lemon-GGUF", {}, folder / "bin", 1, options)


def measure(make: Callable[[Path], Kind], samples: int, folder: Path) -> tuple[Samples, int]:
    """All four, so many times; and the most bytes an unload gave back."""
    found: Samples = {}
    freed = 0
    (folder / "kind").mkdir(parents=True)
    kind = make(folder / "kind")
    with trial(folder / "lasting", kind) as one:
        for number in range(samples):
            found.setdefault("engine killed", []).append(one.engine_killed())
            took, most = one.unloaded()
            found.setdefault("unloaded", []).append(took)
            freed = max(freed, most)
            found.setdefault("answered again", []).append(one.answered_again())
            print(f"{kind.model}: {number + 1} of {samples}", file=sys.stderr)
    for number in range(samples):
        with trial(folder / f"killed-{number}", kind) as one:
            found.setdefault("router killed", []).append(one.router_killed())
    return found, freed


def table(results: Mapping[str, tuple[Samples, int]]) -> str:
    """Markdown: medians, and from the least to the most."""
    lines = [f"| seconds | {' | '.join(results)} |", f"|---|{'---|' * len(results)}"]
    for what in ("router killed", "engine killed", "unloaded", "answered again"):
        cells = []
        for samples, _ in results.values():
            some = samples[what]
            cells.append(f"{statistics.median(some):.3f} ({min(some):.3f}-{max(some):.3f})")
        lines.append(f"| {what} | {' | '.join(cells)} |")
    freed = (f"{freed / (1 << 20):.0f} MiB" for _, freed in results.values())
    lines.append(f"| given back by an unload | {' | '.join(freed)} |")
    return "\n".join(lines)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser("bench.recovery", description=__doc__)
    parser.add_argument("--samples", type=int, default=10)
    parser.add_argument("--engine", choices=("fake", "embedded", "both"), default="both")
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    kinds = {"fake": fake_kind, "embedded": embedded_kind}
    results = {}
    with tempfile.TemporaryDirectory(prefix="bench-recovery-") as folder:
        for name, make in kinds.items():
            if chosen.engine in (name, "both"):
                results[name] = measure(make, chosen.samples, Path(folder) / name)
    print(table(results))
    if chosen.json:
        chosen.json.write_text(json.dumps(results, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
