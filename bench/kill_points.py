"""Kills installations at random points, and looks at what is left.

    python -m bench.kill_points [--points N] [--seed N] [--json FILE]

An installation runs in a process of its own that is gone, as by `kill -9`, at its Nth operation on
the file system or start of a program (`tests/installer/release_program.py`). The points are drawn
from all there are, by a generator with a seed. After each of them, before anything else is done:
is a version used, is it the old or the new one, complete to the last digest, and does it start?
Is anything visible that is not complete? Then the same is installed again, which must succeed and
leave nothing behind.

    install: nothing was there        update: the version before was used
    again:   the version that is used is built anew (`--force`)
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from lemonade.core.bus import Bus
from lemonade.core.errors import LemonadeError
from lemonade.installer import Bundles, Installer
from lemonade.planning import plan_install
from tests.installer.releases import backend_of, publish
from tests.installer.setting import MACHINE, wanted
from tests.programs.release_server import serving

PROJECT = Path(__file__).resolve().parents[1]
BULK = 200_000
KINDS = {"install": ("", "1.0"), "update": ("1.0", "2.0"), "again": ("1.0", "1.0")}
"""The version that is used before, and the one that is installed."""

Row = Counter[str]


class Trial:
    """One directory of bundles, in which one kind of installation is killed again and again."""

    def __init__(self, root: Path, environ: dict[str, str], kind: str) -> None:
        self.old, self.new = KINDS[kind]
        self.force = kind == "again"
        self._root = root
        self._before = root.with_name("before")
        self._environ = environ

    async def prepare(self) -> int:
        """Make what was there before; how many points there are."""
        self._root.mkdir(parents=True)
        if self.old:
            await self._install(self.old)
        shutil.copytree(self._root, self._before, symlinks=True)
        count = int(self._run(0)[1])
        self._put_back()
        return count

    async def at(self, point: int) -> Row:
        """Kill one there; what was found, as counts."""
        found: Row = Counter()
        status, _ = self._run(point)
        found["killed"] += status == -signal.SIGKILL
        used = self._used()
        found["old is used"] += used == self.old != "" and not self.force
        found["new is used"] += used == self.new and not self.force
        found["the version is used"] += self.force and used == self.new
        found["nothing is there"] += not used and not self.old
        fine = used in (self.old, self.new) if self.old else used in ("", self.new)
        broken = "" if not used else self._fault(used)
        visible = [one.version for one in self._bundles().present(backend_of())]
        partial = [version for version in visible if self._fault(version)]
        found["FAULT: no version works"] += not fine or bool(broken)
        found["FAULT: partial state is visible"] += bool(partial)
        try:
            await self._install(self.new)
        except LemonadeError as error:
            print(f"point {point}: {error}", file=sys.stderr)
            found["FAULT: installing again fails"] += 1
        else:
            found["FAULT: something is left behind"] += self._left_behind()
        self._put_back()
        return found

    def _run(self, point: int) -> tuple[int, str]:
        words = [str(self._root), self.new, "again" if self.force else "once", str(point)]
        done = subprocess.run(
            [sys.executable, "-m", "tests.installer.release_program", *words],
            env={**self._environ, "PYTHONPATH": str(PROJECT)},
            cwd=PROJECT, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        if done.returncode not in (0, -signal.SIGKILL):
            raise SystemExit(done.stderr)
        return done.returncode, done.stdout.strip()

    def _bundles(self) -> Bundles:
        return Bundles(self._root, self._environ)

    def _used(self) -> str:
        """What the next engine would be started from."""
        bundle = self._bundles().active(wanted(backend_of(self.new)))
        return bundle.version if bundle is not None else ""

    def _fault(self, version: str) -> str:
        """What is wrong with a version; empty if it is complete and starts."""
        bundle = self._bundles().find(wanted(backend_of(version)), version)
        if bundle is None:
            return "it is not there"
        files = json.loads((bundle.root / "files.json").read_text())
        for name, (size, sha256) in files.items():
            data = (bundle.root / name).read_bytes()
            if (len(data), hashlib.sha256(data).hexdigest()) != (size, sha256):
                return f"{name} is another"
        said = subprocess.run(bundle.argv, capture_output=True, text=True, check=False)
        return "" if said.stdout == f"tiny {version}\n" else f"it says {said.stdout!r}"

    def _left_behind(self) -> bool:
        """Whether anything is there after a good installation that should not be."""
        expected = {"active.json", ".lock", self.new, *([self.old] if self.old else [])}
        names = {path.name for path in (self._root / "tiny" / "engine").iterdir()}
        downloads = self._root / ".downloads" / "tiny" / "engine"
        works = self._used() == self.new and not self._fault(self.new)
        return names != expected or downloads.exists() or not works

    def _put_back(self) -> None:
        shutil.rmtree(self._root)
        shutil.copytree(self._before, self._root, symlinks=True)

    async def _install(self, version: str) -> None:
        bundles, spec = self._bundles(), backend_of(version)
        plan = plan_install(wanted(spec), MACHINE, bundles.present(spec), self._root)
        async with Installer(bundles, Bus(), self._environ) as installer:
            await installer.install(plan, lambda _: None, force=self.force)


async def run(points: int, seed: int, folder: Path) -> dict[str, Row]:
    """All kinds, each with its share of the points."""
    results: dict[str, Row] = {}
    with serving(folder / "releases") as host:
        for version in ("1.0", "2.0"):
            publish(folder / "releases", version, bulk=BULK)
        environ = {"PATH": os.defpath, **host.environ}
        for index, kind in enumerate(KINDS):
            share = points // len(KINDS) + (index < points % len(KINDS))
            trial = Trial(folder / kind / "bin", environ, kind)
            count = await trial.prepare()
            draw = random.Random(f"{seed} {kind}")
            chosen = sorted(draw.choices(range(1, count), k=share))
            total: Row = Counter({"points": share, "of": count})
            for point in chosen:
                total += await trial.at(point)
                print(f"{kind}: point {point} of {count}", file=sys.stderr)
            results[kind] = total
    return results


def table(results: dict[str, Row]) -> str:
    """Markdown."""
    keys = [
        "points", "of", "killed", "nothing is there", "old is used", "new is used",
        "the version is used", "FAULT: no version works", "FAULT: partial state is visible",
        "FAULT: installing again fails", "FAULT: something is left behind",
    ]  # fmt: skip
    lines = [f"| what is seen | {' | '.join(results)} |", f"|---|{'---|' * len(results)}"]
    lines += [f"| {key} | {' | '.join(str(r[key]) for r in results.values())} |" for key in keys]
    return "\n".join(lines)


def main() -> int:
    """Run it; status 1 if anything was wrong."""
    parser = argparse.ArgumentParser("bench.kill_points", description=__doc__)
    parser.add_argument("--points", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results = asyncio.run(run(chosen.points, chosen.seed, Path(folder)))
    print(table(results))
    if chosen.json:
        chosen.json.write_text(json.dumps(results, indent=2))
    faults = sum(n for row in results.values() for key, n in row.items() if "FAULT" in key)
    print(f"\n{chosen.points} points, seed {chosen.seed}: {faults} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
