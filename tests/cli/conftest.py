"""The command line as a user has it: a process of its own, and a stand-in to talk to."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 45.0


@dataclass
class Server:
    """A running stand-in."""

    port: int
    process: subprocess.Popen[str]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def reset(self, **state: object) -> None:
        """Forget everything; `models=[]` and the like replace what it begins with."""
        requests.post(f"{self.url}/reset", json=state, timeout=PATIENCE).raise_for_status()

    def asked(self, path: str) -> list[dict[str, Any]]:
        """The requests for a path, in order."""
        report = requests.get(f"{self.url}/asked", timeout=PATIENCE).json()
        return [request for request in report["asked"] if request["path"].endswith(path)]

    def left(self) -> list[str]:
        """The paths whose clients went away before the end."""
        paths: list[str] = requests.get(f"{self.url}/asked", timeout=PATIENCE).json()["left"]
        return paths


@contextmanager
def stand_in_process(*words: str) -> Iterator[Server]:
    """A stand-in with the given words, ended afterwards."""
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("stand_in.py")), *words],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield Server(int(process.stdout.readline()), process)
    finally:
        process.terminate()
        process.wait(PATIENCE)
        if process.stdout is not None:
            process.stdout.close()


@pytest.fixture(scope="session")
def shared_stand_in() -> Iterator[Server]:
    with stand_in_process() as server:
        yield server


@pytest.fixture
def server(shared_stand_in: Server) -> Server:
    shared_stand_in.reset()
    return shared_stand_in


@dataclass
class Cli:
    """Runs `lemonade` with an environment of its own, pointed at a stand-in."""

    env: dict[str, str] = field(default_factory=dict)
    module: str = "lemonade"

    def __call__(
        self, *words: str, stdin: str | None = None, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", self.module, *words],
            env={**self.env, **(env or {})},
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    @contextmanager
    def running(self, *words: str) -> Iterator[subprocess.Popen[str]]:
        """The same, while it runs; killed if it still does at the end."""
        process = subprocess.Popen(
            [sys.executable, "-m", self.module, *words],
            env={**self.env, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # A runner in the background ignores Ctrl-C, and would hand that down.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
        )
        try:
            yield process
        finally:
            process.kill()
            process.communicate()

    def at_terminal(self, *words: str, typed: str = "") -> tuple[int, str]:
        """The exit code and all that a terminal showed."""
        leader, follower = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, "-m", self.module, *words],
            env={**self.env, "TERM": "xterm-256color", "COLUMNS": "120"},
            stdin=follower,
            stdout=follower,
            stderr=follower,
            start_new_session=True,
        )
        os.close(follower)
        if typed:
            os.write(leader, typed.encode())
        shown = b""
        with suppress(OSError):  # the end of a terminal is an error on Linux
            while chunk := os.read(leader, 65536):
                shown += chunk
        os.close(leader)
        return process.wait(PATIENCE), shown.decode()


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Nothing of the person who runs the tests, and every directory under the test's own."""
    kept = ("PATH", "LANG", "LD_LIBRARY_PATH")
    return {
        **{name: os.environ[name] for name in kept if name in os.environ},
        "PYTHONPATH": str(ROOT),
        "HOME": str(tmp_path),
        "LEMONADE_CACHE_DIR": str(tmp_path / "cache"),
        "LEMONADE_CONFIG_DIR": str(tmp_path / "config"),
        "XDG_RUNTIME_DIR": str(tmp_path / "run"),
    }


@pytest.fixture
def cli(environment: dict[str, str], server: Server) -> Cli:
    return Cli({**environment, "LEMONADE_PORT": str(server.port)})


@pytest.fixture
def lonely(environment: dict[str, str]) -> Cli:
    """A command line without a server: nobody listens on port 1."""
    return Cli({**environment, "LEMONADE_PORT": "1"})


def eventually(look: Callable[[], Any], what: str) -> Any:
    """Wait for a first true value."""
    limit = time.monotonic() + PATIENCE
    while time.monotonic() < limit:
        if value := look():
            return value
        time.sleep(0.02)
    raise AssertionError(f"not in time: {what}")
