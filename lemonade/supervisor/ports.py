"""Private ports on the loopback: lent one at a time, and checked for who really listens.

A port is found by binding to port 0 and closing again, so somebody else may take it before the
child does. A lease only promises that this server does not give the port to two children;
`taken_by_others` is how a readiness probe answered by a stranger is recognised.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from lemonade.supervisor.processes import executable_of, pids, sockets_of

LOOPBACK: Final = "127.0.0.1"

_LISTEN: Final = "0A"
_ATTEMPTS: Final = 100


class PortLease:
    """One port that no other child of this server gets until it is released.

    May be used as a context manager. Releasing twice is harmless.
    """

    def __init__(self, port: int, leased: set[int]) -> None:
        self.port = port
        self._leased = leased

    def release(self) -> None:
        """Give the port back."""
        self._leased.discard(self.port)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


class Ports:
    """The leases of one supervisor. Used from the event loop's thread only."""

    def __init__(self) -> None:
        self._leased: set[int] = set()

    def lease(self) -> PortLease:
        """A port nobody listens on and no child of ours has been given.

        Raises:
            OSError: the loopback has no free port.
        """
        with ExitStack() as held:  # the kernel offers another number as long as we hold this one
            for _ in range(_ATTEMPTS):
                probe = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
                probe.bind((LOOPBACK, 0))
                port: int = probe.getsockname()[1]
                if port not in self._leased:
                    self._leased.add(port)
                    return PortLease(port, self._leased)
        raise OSError(f"No free port was found on {LOOPBACK}.")

    def claim(self, port: int) -> PortLease:
        """A port on which a child that was taken over listens already."""
        self._leased.add(port)
        return PortLease(port, self._leased)


def taken_by_others(port: int, family: Iterable[int]) -> bool:
    """Whether somebody listens on the port and it is none of the processes of `family`.

    `False` also when that cannot be known: nobody listens on a TCP port of that number, or the
    kernel does not let us see what the family has open. Blocks.
    """
    listeners = _listeners(port)
    if not listeners:
        return False
    open_sockets = [sockets_of(pid) for pid in family]
    if not open_sockets or any(found is None for found in open_sockets):
        return False
    return not any(listeners & found for found in open_sockets if found)


def listener_on(port: int) -> str:
    """Who listens there, for people; empty if nobody does. Blocks, for as long as a scan takes.

    Raises:
        OSError: we may open no more files.
    """
    listeners = _listeners(port)
    if not listeners:
        return ""
    for pid in pids():
        if listeners & (sockets_of(pid) or frozenset()):
            name = Path(executable_of(pid) or "").name
            return f"another program ({name or 'unknown'}, pid {pid})"
    return "a program of another user"


def listens(port: int, family: Iterable[int]) -> bool | None:
    """Whether one of the processes of `family` does; `None` if nobody at all. Blocks."""
    listeners = _listeners(port)
    if not listeners:
        return None
    return any(listeners & (sockets_of(pid) or frozenset()) for pid in family)


def _listeners(port: int) -> frozenset[int]:
    """Inodes of the sockets that listen on the port, over both families of addresses."""
    suffix = f":{port:04X}"
    inodes = set()
    for table in ("tcp", "tcp6"):
        try:
            lines = Path(f"/proc/self/net/{table}").read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[1].endswith(suffix) and fields[3] == _LISTEN:
                inodes.add(int(fields[9]))
    return frozenset(inodes)
