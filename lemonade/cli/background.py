"""A server of our own: started as a process, waited for, ended.

Two uses: `run` starts one that outlives it, and `demo` one that must not. What the server prints
goes to a file, whose last lines are quoted when it does not come up.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess  # noqa: TID251 - a server is no engine: nobody supervises it yet
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Final

from lemonade.client import LemonadeClient
from lemonade.core.errors import BadSetting, LemonadeError, ServerUnreachable
from lemonade.core.records import dataclass

LIVE_WITHIN: Final = 60.0
"""Seconds a server may take until it answers."""

_LOOK_EVERY: Final = 0.05
_QUOTED_LINES: Final = 15
_STOP_WITHIN: Final = 30.0
_ANEW_WITHIN: Final = 10.0
_PR_SET_PDEATHSIG: Final = 1
_CLOSING: Final = (signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class ServerProcess:
    """A server we started; `log` is the file its output goes to."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        """Of the server."""
        return self.process.pid

    @property
    def ended(self) -> bool:
        """Whether it is gone."""
        return self.process.poll() is not None

    def wait(self) -> int:
        """Wait until it is gone, however long; its exit code."""
        return self.process.wait()

    def last_lines(self) -> tuple[str, ...]:
        """What it printed last."""
        try:
            text = self.log.read_text("utf-8", "replace")
        except OSError:
            return ()
        return tuple(text.splitlines()[-_QUOTED_LINES:])

    def stop(self) -> None:
        """Ask it to end, wait, and end it if it does not. It stops its own engines."""
        if self.ended:
            return
        self.process.terminate()
        try:
            self.process.wait(_STOP_WITHIN)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def start_server(
    port: int, log: Path, *, tethered: bool, extra: Sequence[str] = ()
) -> ServerProcess:
    """Start `lemonade serve` on a port of this machine, in a session of its own.

    Its own session keeps a Ctrl-C meant for us away from it: we stop it ourselves, in order.

    Args:
        port: to listen on.
        log: file for its output; what was there is kept as `<log>.1`.
        tethered: the kernel ends it (SIGTERM) when we die, however that happens.
        extra: further words for `serve`.

    Raises:
        BadSetting: the log cannot be written.
    """
    command = [sys.executable, "-m", "lemonade", "serve", "--port", str(port), *extra]
    handle = _open_log(log)
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=handle,
            stderr=handle,
            start_new_session=True,
            # There are no threads yet that the fork could catch in the middle of something.
            preexec_fn=_die_with_parent() if tethered else None,  # noqa: PLW1509
        )
    finally:
        os.close(handle)
    return ServerProcess(process, log)


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """A closed terminal and a plain `kill` end the block in order, as Ctrl-C does."""

    def leave(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, leave) for number in _CLOSING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _open_log(log: Path) -> int:
    try:
        log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if log.exists():
            log.replace(log.with_name(log.name + ".1"))
        return os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    except OSError as error:
        raise BadSetting(
            f"The server's log {log} cannot be written: {error.strerror or error}.",
            remedy="Its directory is said by XDG_RUNTIME_DIR, or else by LEMONADE_CACHE_DIR.",
        ) from error


def wait_until_live(
    server: ServerProcess, client: LemonadeClient, *, anybody: bool = False
) -> None:
    """Wait until the server answers.

    Args:
        server: just started.
        client: for its address.
        anybody: content with another server there, e.g. one that was started at the same moment.

    Raises:
        ServerUnreachable: it ended, or does not answer in time; the message quotes its output.
    """
    limit = time.monotonic() + LIVE_WITHIN
    while True:
        ended = server.ended
        if client.live() and (anybody or not ended):
            return
        if ended:
            raise _no_server(server, f"ended with exit code {server.process.returncode}")
        if time.monotonic() > limit:
            server.stop()
            raise _no_server(server, f"did not answer within {LIVE_WITHIN:g} s")
        time.sleep(_LOOK_EVERY)


def wait_until_gone(client: LemonadeClient, within: float = _STOP_WITHIN) -> bool:
    """Whether the server stops answering within so many seconds."""
    limit = time.monotonic() + within
    while client.live():
        if time.monotonic() > limit:
            return False
        time.sleep(_LOOK_EVERY)
    return True


def wait_until_new(client: LemonadeClient, before: object, drain: float) -> bool:
    """Whether a server answers that has begun since.

    Args:
        client: for its address.
        before: what the one before said of itself.
        drain: seconds it gives to answers under way.
    """
    limit = time.monotonic() + drain + LIVE_WITHIN
    while time.monotonic() < limit:
        try:
            if client.health(_ANEW_WITHIN).get("server") != before:
                return True
        except LemonadeError:  # it is between its two lives
            pass
        time.sleep(_LOOK_EVERY)
    return False


def _no_server(server: ServerProcess, what: str) -> ServerUnreachable:
    lines = server.last_lines()
    quoted = "".join(f"\n  {line.rstrip()}" for line in lines)
    said = f" It said last:{quoted}\n" if lines else " It printed nothing. "
    return ServerUnreachable(
        f"The server that was started {what}.{said}All of its output is in {server.log}."
    )


def _die_with_parent() -> Callable[[], None] | None:
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def arrange() -> None:
        prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
        if os.getppid() != parent:  # it died before the arrangement stood
            os._exit(1)

    return arrange
