from __future__ import annotations

import os
import pty
import re
import select
import signal
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.cli.conftest import Cli
from tests.serving import PATIENCE, environment, survivors

_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """The test's own directory; at the end nothing of it may be alive."""
    yield tmp_path
    left = survivors(tmp_path)
    assert not left, f"still alive: {left}"


@pytest.fixture
def bare(home: Path) -> Cli:
    """The command line of somebody who has nothing yet, on a port of his own."""
    return Cli({**environment(home), "LEMONADE_PORT": str(free_port())})


@pytest.fixture
def cli(bare: Cli, home: Path, engine_bundles: Path) -> Cli:
    """The same with the embedded engine installed."""
    link_bundles(home, engine_bundles)
    return bare


def link_bundles(home: Path, bundles: Path) -> None:
    """Installed bundles, seen through a directory of the test's own."""
    (home / "cache").mkdir(exist_ok=True)
    (home / "cache" / "bin").symlink_to(bundles)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


class Terminal:
    """A program at a terminal of its own, as a person has it: what it shows, and keys."""

    def __init__(self, pid: int, leader: int) -> None:
        self._pid = pid
        self._leader = leader
        self._shown = b""

    @property
    def text(self) -> str:
        """All it has shown so far, without colours and cursor movements."""
        return _CONTROL.sub("", self._shown.decode(errors="replace"))

    def expect(self, pattern: str) -> re.Match[str]:
        """Wait until it shows something."""
        limit = time.monotonic() + PATIENCE
        while not (found := re.search(pattern, self.text)):
            assert time.monotonic() < limit, f"{pattern!r} was not shown:\n{self.text}"
            assert self._read(), f"it ended without {pattern!r}:\n{self.text}"
        return found

    def press(self, keys: str) -> None:
        os.write(self._leader, keys.encode())

    def ended(self) -> int:
        """Wait for its end; the exit code."""
        while self._read():
            pass
        _, status = os.waitpid(self._pid, 0)
        self._pid = 0
        return os.waitstatus_to_exitcode(status)

    def close(self) -> None:
        if self._pid:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
        os.close(self._leader)

    def _read(self) -> bool:
        ready, _, _ = select.select([self._leader], [], [], PATIENCE)
        assert ready, f"it shows nothing any more:\n{self.text}"
        with suppress(OSError):  # the end of a terminal is an error on Linux
            chunk = os.read(self._leader, 65536)
            self._shown += chunk
            return bool(chunk)
        return False


@contextmanager
def terminal(command: Sequence[str], env: Mapping[str, str]) -> Iterator[Terminal]:
    """Run a command at a terminal, killed if it still runs at the end."""
    pid, leader = pty.fork()
    if pid == 0:
        try:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # it may be ignored, as in the background
            os.execvpe(command[0], list(command), {**env, "TERM": "xterm-256color"})
        finally:
            os._exit(127)
    one = Terminal(pid, leader)
    try:
        yield one
    finally:
        one.close()
