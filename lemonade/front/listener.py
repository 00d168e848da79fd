"""`Listener`: takes connections, keeps the list of them, and closes those that dawdle."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Final, Self

from aiohttp import web

from lemonade.front.client import Client, Phase
from lemonade.front.delegate import Delegate
from lemonade.front.entrance import Entrance, Entry
from lemonade.front.exchange import Exchange
from lemonade.front.relay import Relay
from lemonade.gateway import Parts

_LOOK_EVERY: Final = 1.0
"""Seconds between two looks at the deadlines of connections, while there are any."""

BACKLOG: Final = 1024


class Listener:
    """Serves an application on sockets. An async context manager.

    Made by the composition root after the pool. Leaving it closes what is idle at once, gives
    answers under way some seconds, and ends the application's runner after that.

    Attributes:
        clients: connections that are open.
        closing: whether the server is ending.
    """

    def __init__(
        self,
        app: web.Application,
        parts: Parts,
        sockets: Sequence[socket.socket],
        *,
        shutdown_seconds: float,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.relay = Relay(parts)
        self.clients: set[Client] = set()
        self.closing = False
        self._entrance = Entrance(parts.access)
        self._sockets = sockets
        self._seconds = shutdown_seconds
        self._runner = web.AppRunner(
            app,
            handle_signals=False,
            handler_cancellation=True,
            access_log=None,
            shutdown_timeout=shutdown_seconds,
        )
        self._servers: list[asyncio.Server] = []
        self._look: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        await self.relay.__aenter__()
        for one in self._sockets:
            server = await self.loop.create_server(self._accept, sock=one, backlog=BACKLOG)
            self._servers.append(server)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.closing = True
        for server in self._servers:
            server.close()
        for client in tuple(self.clients):
            client.wind_up()
        try:
            async with asyncio.timeout(self._seconds):
                while any(client.phase is Phase.RELAYING for client in self.clients):
                    await asyncio.sleep(0.02)
        except TimeoutError:
            for client in tuple(self.clients):
                if client.phase is Phase.RELAYING:
                    client.transport.abort()
        await self._runner.cleanup()
        await self.relay.__aexit__(kind, error, trace)
        for client in tuple(self.clients):
            client.transport.abort()
        if self._look is not None:
            self._look.cancel()

    # ---- for its clients

    def open(self, client: Client, entry: Entry, body: bytes) -> Exchange | None:
        """Somebody to answer a whole request; `None` if it has to go elsewhere."""
        return self.relay.open(client, entry, body)

    def read(self, block: bytes) -> Entry:
        """What follows from the head of a request."""
        return self._entrance.read(block)

    def delegate(self, answered: Callable[[], None]) -> Delegate:
        """Somebody to hand a request to."""
        server = self._runner.server
        assert server is not None
        return Delegate(server, self.loop, answered)

    # ---- called by the event loop

    def _accept(self) -> Client:
        if self._look is None:
            self._look = self.loop.call_later(_LOOK_EVERY, self._look_around)
        return Client(self)

    def _look_around(self) -> None:
        self._look = None
        now = self.loop.time()
        for client in [one for one in self.clients if one.deadline < now]:
            client.overdue()
        if self.clients:
            self._look = self.loop.call_later(_LOOK_EVERY, self._look_around)
