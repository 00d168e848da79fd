"""A server of the self-test's own: a child process, told by what it prints where it listens.

It listens on a free port of the loopback, lives no longer than this process does, and what it
prints is kept in memory only: a full disk is one of the things that are tried.
"""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess  # noqa: TID251 - a server is no engine: nobody supervises it
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

import requests

from lemonade.client import LemonadeClient
from lemonade.core.errors import ServerUnreachable
from lemonade.selftest.place import Place
from lemonade.supervisor import ask_for_parent_death_signal

PATIENCE: Final = 60.0
"""Seconds that anything may take here before it counts as wrong. Machines may be busy."""

_KEPT_LINES: Final = 400
_SERVES: Final = re.compile(r"Lemonade serves (http://\S+:\d+)")
_LOOK_EVERY: Final = 0.02


def eventually(condition: Callable[[], bool], within: float = PATIENCE) -> bool:
    """Whether a condition becomes true in so many seconds."""
    limit = time.monotonic() + within
    while not condition():
        if time.monotonic() > limit:
            return False
        time.sleep(_LOOK_EVERY)
    return True


class PrivateServer:
    """One run of `lemonade serve`. Made by `start`; ended by `end`, or by a fault.

    Attributes:
        url: where it listens.
        files: it had open when it had first settled; 0 until somebody looked.
        resident_bytes: of it, likewise.
    """

    def __init__(self, place: Place, workers: int = 0) -> None:
        self.url = ""
        self.files = 0
        self.resident_bytes = 0
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        command = [sys.executable, "-m", "lemonade", "serve", "--host", "127.0.0.1", "--port", "0"]
        command += ["--workers", str(workers)]
        self._process = subprocess.Popen(
            command,
            env=place.environment(os.environ),
            cwd=place.root,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a Ctrl-C is meant for us, and we end it ourselves
            preexec_fn=_tied_to(os.getpid()),  # noqa: PLW1509 - it calls the kernel and nothing else
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @classmethod
    def start(cls, place: Place, workers: int = 0) -> PrivateServer:
        """Start one and wait until it serves.

        Args:
            place: to live in.
            workers: processes beside it that relay.

        Raises:
            ServerUnreachable: it does not; the message quotes it.
        """
        server = cls(place, workers)
        try:
            serves = eventually(lambda: bool(server.url) or not server.alive) and server.alive
        except BaseException:  # nobody else knows it yet
            server.end()
            raise
        if not serves:
            server.end()
            said = "".join(f"\n  {line}" for line in server.last_lines(15))
            raise ServerUnreachable(f"The private server did not start. It said last:{said}")
        return server

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process.poll() is None

    @property
    def status(self) -> int | None:
        """How it ended: an exit status, or a signal as a negative number."""
        return self._process.poll()

    def client(self) -> LemonadeClient:
        """A conversation of its own with it."""
        return LemonadeClient(self.url)

    def sum_of(self, counter: str) -> int:
        """What a counter of its metrics has come to, whatever the labels.

        Raises:
            ServerUnreachable: it does not tell.
        """
        with requests.Session() as session:
            session.trust_env = False
            try:
                page = session.get(f"{self.url}/metrics", timeout=PATIENCE).text
            except requests.RequestException as error:
                raise ServerUnreachable(f"The server tells no metrics: {error}.") from error
        rows = [row for row in page.splitlines() if row.startswith(f"{counter}_total{{")]
        return round(sum(float(row.rpartition(" ")[2]) for row in rows))

    def last_lines(self, most: int) -> tuple[str, ...]:
        """What it printed last."""
        return tuple(self._lines)[-most:]

    def signal(self, number: int) -> None:
        """Send it a signal, if it runs."""
        if self.alive:
            self._process.send_signal(number)

    def wait(self, within: float = PATIENCE) -> bool:
        """Whether it ends in so many seconds."""
        try:
            self._process.wait(within)
        except subprocess.TimeoutExpired:
            return False
        return True

    def let_no_file_grow(self, *, forbidden: bool) -> None:
        """Have every write that makes a file longer fail, as on a full disk; or allow it again."""
        if self.alive:
            _, hard = resource.prlimit(self.pid, resource.RLIMIT_FSIZE)
            resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (0 if forbidden else hard, hard))

    def end(self, *, within: float = PATIENCE) -> bool:
        """Ask it to end, and kill it if it does not; whether asking was enough."""
        self.signal(signal.SIGTERM)
        ended = self.wait(within)
        if not ended:
            self.signal(signal.SIGKILL)
            self.wait()
        self._reader.join(1.0)
        return ended

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as output:
            for line in output:
                text = line.decode("utf-8", "replace").rstrip()
                self._lines.append(text[:2000])
                if not self.url and (match := _SERVES.search(text)):
                    self.url = match[1]


def _tied_to(parent: int) -> Callable[[], None]:
    def arrange() -> None:
        ask_for_parent_death_signal(signal.SIGTERM)
        if os.getppid() != parent:  # it ended before the arrangement stood
            os._exit(1)

    return arrange
