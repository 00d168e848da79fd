"""Runs the real server as a real process, for tests that ask what a client would see.

Everything of one test lives under one directory of its own, the bundle's path included; so any
process that has this directory in its command line or environment is the test's, and the closing
question "is anything of mine still alive?" has an exact answer.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

ROOT = Path(__file__).resolve().parents[1]
PROGRAMS = ROOT / "tests" / "programs"
FAKE_ENGINE = ROOT / "lemonade" / "selftest" / "fake_engine.py"
PATIENCE = 30.0
_SERVES = re.compile(r"Lemonade serves (http://\S+:\d+)")

FAKE_RECIPE = """
schema = 1
id = "fake"
title = "Fake engine"
section = "fake"
modality = "Text generation"
modes = ["chat", "embeddings"]
files = "{files}"
slots = "{slots}"

[upstream]
ready = "/health"
ready_within = "{ready_within}"
stop_grace = "1s"
phases = [
  {{ name = "weights", pattern = "weights (?P<percent>[0-9]+) %" }},
  {{ name = "warm-up", pattern = "warming up" }},
]
levels = [
  {{ level = "error", pattern = "^E " }},
  {{ level = "warning", pattern = "^W " }},
]

[upstream.operations]
chat = "/v1/chat/completions"
completion = "/v1/completions"
embeddings = "/v1/embeddings"

[argv]
always = [
  "--model", "{{checkpoint.main}}", "--alias", "{{model}}",
  "--host", "{{host}}", "--port", "{{port}}",
]
reserved = ["--model", "--host", "--port", "--alias"]

[[option]]
name = "fake_args"
type = "argv"
default = ""
flag = "--fake-args"
help = "Bad habits."
setting = "args"
"""

FAKE_BACKEND = """
schema = 1
id = "fake:program"
title = "A program with bad habits"
preference = 1
devices = ["cpu"]

[pin]
source = "system"
executable = "{python}"

[[runs_on]]
os = ["linux"]

[bundle]
argv = ["{{executable}}", "{program}"]
"""


@dataclass
class Serving:
    """A running server."""

    url: str
    process: subprocess.Popen[bytes]
    home: Path
    log_file: Path

    @property
    def api(self) -> str:
        return f"{self.url}/api/v1"

    def get(self, path: str, **kwargs: Any) -> requests.Response:
        return requests.get(f"{self.api}/{path}", timeout=PATIENCE, **kwargs)

    def post(self, path: str, body: object = None, **kwargs: Any) -> requests.Response:
        kwargs.setdefault("timeout", PATIENCE)
        return requests.post(f"{self.api}/{path}", json=body, **kwargs)

    def chat(self, model: str, text: str = "Hello", **more: Any) -> requests.Response:
        body = {
            "model": model,
            "messages": [{"role": "user", "content": text}],
            "temperature": 0,
            **more,
        }
        return self.post("chat/completions", body, stream=bool(more.get("stream")))

    def loaded(self) -> dict[str, dict[str, Any]]:
        rows = self.get("health").json()["all_models_loaded"]
        return {row["model_name"]: row for row in rows}

    def log(self) -> str:
        return self.log_file.read_text(errors="replace")


@contextmanager
def serving(
    home: Path,
    *args: str,
    env: Mapping[str, str] | None = None,
    config: Mapping[str, object] | None = None,
    bundles: Path | None = None,
) -> Iterator[Serving]:
    """A server on a free port with all its directories under `home`; ended at the end.

    Args:
        home: the test's own directory.
        args: further arguments of `lemonade serve`.
        env: variables added to a minimal environment.
        config: becomes `config.json`.
        bundles: an existing directory of installed bundles to see them in.
    """
    cache = home / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    if bundles is not None and not (cache / "bin").exists():
        # A link of our own, so that the engine's command line names this test's directory.
        (cache / "bin").symlink_to(bundles)
    if config is not None:
        (home / "config").mkdir(exist_ok=True)
        (home / "config" / "config.json").write_text(json.dumps(config))
    log_file = home / "server.log"
    said_before = log_file.stat().st_size if log_file.exists() else 0
    with log_file.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "lemonade", "serve", "--port", "0", *args],
            env={**environment(home), **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=home,
        )
    try:
        url = _wait_for_url(process, log_file, said_before)
        yield Serving(url, process, home, log_file)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise


def environment(home: Path) -> dict[str, str]:
    """A minimal environment whose every directory is under `home`."""
    kept = ("PATH", "LANG", "LD_LIBRARY_PATH", "LEMONADE_WHEELS", "PYTHONPATH")
    return {
        **{name: os.environ[name] for name in kept if name in os.environ},
        "HOME": str(home),
        "LEMONADE_CACHE_DIR": str(home / "cache"),
        "LEMONADE_CONFIG_DIR": str(home / "config"),
        "XDG_RUNTIME_DIR": str(home / "run"),
        "HF_HUB_CACHE": str(home / "hub"),
        # Nobody listens there: a test that reaches for the internet fails at once.
        "HF_ENDPOINT": "http://127.0.0.1:9",
        "LEMONADE_GITHUB_URL": "http://127.0.0.1:9",
        "LEMONADE_GITHUB_API_URL": "http://127.0.0.1:9",
        "NO_PROXY": "*",
        "OMP_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
    }


def fake_catalog(
    home: Path,
    *,
    slots: str = "standard",
    ready_within: str = "20s",
    files: str = "gguf",
    program: Path = FAKE_ENGINE,
) -> Path:
    """A catalogue with the fake engine as recipe `fake`: one file each, nothing else."""
    folder = home / "catalog"
    (folder / "recipes").mkdir(parents=True, exist_ok=True)
    (folder / "backends").mkdir(exist_ok=True)
    (folder / "recipes" / "fake.toml").write_text(
        FAKE_RECIPE.format(slots=slots, ready_within=ready_within, files=files)
    )
    (folder / "backends" / "fake-program.toml").write_text(
        FAKE_BACKEND.format(python=sys.executable, program=program)
    )
    return folder


def fake_model(catalog: Path, name: str, *, label: str = "chat", args: str = "") -> None:
    """Add a model for the fake engine to a catalogue; its one file is a GGUF in name and magic."""
    file = catalog / f"{name}.gguf"
    file.write_bytes(b"GGUF" + bytes(64))
    registry = catalog / "server_models.json"
    models = json.loads(registry.read_text()) if registry.exists() else {}
    models[name] = {
        "checkpoint": str(file),
        "source": "local_path",
        "recipe": "fake",
        "labels": [label],
        "size": 0.001,
        "suggested": True,
        "recipe_options": {"fake_args": args} if args else {},
    }
    registry.write_text(json.dumps(models))


def survivors(home: Path) -> list[str]:
    """Living processes with `home` in their command line or environment; zombies are dead.

    The guardian of a server that was killed is given the time to clear up and leave.
    """
    deadline = time.monotonic() + PATIENCE
    while found := _living(home):
        guards = [one for one in found if "lemonade.supervisor.guardian" in one]
        ending = [one for one in found if one.endswith(" b''")]  # its memory is gone already
        if len(guards) + len(ending) < len(found) or time.monotonic() > deadline:
            break
        time.sleep(0.02)
    return found


def _living(home: Path) -> list[str]:
    mark = os.fsencode(str(home))
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            stat = (entry / "stat").read_text(errors="replace")
            text = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
        except OSError:
            continue
        if stat.rpartition(")")[2].split()[0] != "Z" and mark in text:
            found.append(f"{entry.name} {(entry / 'cmdline').read_bytes()!r}")
    return found


def gone(pid: int) -> bool:
    """Whether a process is dead; a zombie is."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return True
    return stat.rpartition(")")[2].split()[0] == "Z"


def eventually(condition: Any, what: str, within: float = PATIENCE) -> Any:
    """Wait for a condition; its first true value."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError(f"not within {within} s: {what}")


def _wait_for_url(process: subprocess.Popen[bytes], log_file: Path, said_before: int) -> str:
    def look() -> str | None:
        text = log_file.read_bytes()[said_before:].decode(errors="replace")
        if match := _SERVES.search(text):
            return match[1]
        if process.poll() is not None:
            raise AssertionError(f"the server ended with {process.returncode}:\n{text}")
        return None

    url: str = eventually(look, "the server says where it listens")
    return url
