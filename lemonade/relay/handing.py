"""Connections on their way from one process to another: the socket itself is passed.

So nothing of what is said on it later passes through the process that accepted it. What that one
has read already goes along; where it is long, by a connection of its own, since a message to
which a socket is attached has to be short.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Final

import msgspec

from lemonade.relay.messages import Moved

_SHORT: Final = 32 * 1024
"""How long a message may be."""

_AGAIN: Final = 0.005
"""Seconds until the next attempt where the other side has not taken what was sent before."""

_MOST_AT_ONCE: Final = 64
"""Connections taken in one turn of the loop."""


class Hander:
    """Passes connections on, in order. What the other side does not take waits."""

    def __init__(
        self, way: socket.socket, spawn: Callable[[Coroutine[Any, Any, None]], None]
    ) -> None:
        """`spawn` makes a task of something."""
        self._way = way
        self._spawn = spawn
        self._waiting: deque[tuple[bytes, list[int]]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def hand(self, descriptor: int, lost: int, early: bytes) -> None:
        """Pass on a connection; the descriptor is ours from now on.

        Raises:
            OSError: too many are open; this one is closed then.
        """
        descriptors = [descriptor]
        if len(early) > _SHORT:
            try:
                ours, theirs = socket.socketpair()
            except OSError:
                os.close(descriptor)
                raise
            descriptors.append(theirs.detach())
            self._spawn(_write(ours, early))
            moved = Moved(lost, b"", more=True)
        else:
            moved = Moved(lost, early)
        self._waiting.append((msgspec.msgpack.encode(moved), descriptors))
        self._send()

    def _send(self) -> None:
        if self._timer is not None:
            return
        while self._waiting:
            message, descriptors = self._waiting[0]
            try:
                socket.send_fds(self._way, [message], descriptors)
            except ConnectionError:
                pass  # nobody is there any more, and we shall end as well
            except OSError:
                self._timer = asyncio.get_running_loop().call_later(_AGAIN, self._retry)
                return
            self._waiting.popleft()
            for one in descriptors:
                os.close(one)

    def _retry(self) -> None:
        self._timer = None
        self._send()


Take = Callable[[socket.socket, Moved, socket.socket | None], None]
"""Told a connection, what is known of it, and where the rest of that comes."""


class Taker:
    """Takes connections that are passed to this process."""

    def __init__(self, way: socket.socket, take: Take) -> None:
        """Begins at once.

        Args:
            way: where they come; ours from now on.
            take: told each, what is known of it, and where the rest of that comes.
        """
        way.settimeout(0)
        self._way = way
        self._take = take
        asyncio.get_running_loop().add_reader(way.fileno(), self._look)

    def close(self) -> None:
        """Take what is there, and no more."""
        if self._way.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._way.fileno())
            self._look()
            self._way.close()

    def _look(self) -> None:
        for _ in range(_MOST_AT_ONCE):
            try:
                message, descriptors, *_ = socket.recv_fds(self._way, 2 * _SHORT, 2)
            except OSError:  # for now, or for good: then the channel says so
                return
            if not descriptors:  # there was no room for another one in this process
                continue
            first, *rest = (socket.socket(fileno=one) for one in descriptors)
            first.settimeout(0)
            moved = msgspec.msgpack.decode(message, type=Moved)
            if moved.more and not rest:
                first.close()
                continue
            self._take(first, moved, rest[0] if rest else None)


async def read_rest(more: socket.socket) -> bytes:
    """What comes by a connection of its own, to its end."""
    reader, writer = await asyncio.open_unix_connection(sock=more)
    try:
        return await reader.read()
    finally:
        writer.close()


async def _write(where: socket.socket, data: bytes) -> None:
    _, writer = await asyncio.open_unix_connection(sock=where)
    with contextlib.suppress(ConnectionError):
        writer.write(data)
        await writer.drain()
        writer.close()
        await writer.wait_closed()
