"""`Listener`: the server's own reception; what is not relayed at once is aiohttp's."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from aiohttp import web

from lemonade.front.delegate import Delegate
from lemonade.front.relay import Relay
from lemonade.gateway import Parts
from lemonade.relay import BACKLOG, Client, Entrance, Entry, Exchange, Reception


class Listener(Reception):
    """Serves an application on sockets. An async context manager.

    Made by the composition root after the pool. Leaving it closes what is idle at once, gives
    answers under way some seconds, and ends the application's runner after that.
    """

    def __init__(
        self,
        app: web.Application,
        parts: Parts,
        sockets: Sequence[socket.socket],
        *,
        shutdown_seconds: float,
    ) -> None:
        super().__init__(Entrance(parts.access))
        self.relay = Relay(parts)
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

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        await self.relay.__aenter__()
        self._servers += await self.listen(self._sockets)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.turn_away()
        await self.wind_up(self._seconds)
        await self._runner.cleanup()
        await self.relay.__aexit__(kind, error, trace)
        self.shut()

    def turn_away(self) -> None:
        """Take no more connections and no more requests; answers under way may go on."""
        self.closing = True
        for server in self._servers:
            server.close()
        for client in tuple(self.clients):
            client.wind_up()

    async def listen(self, sockets: Sequence[socket.socket]) -> list[asyncio.Server]:
        """Accept connections there until the servers are closed, or this is left."""
        return [
            await self.loop.create_server(self.accept, sock=one, backlog=BACKLOG)
            for one in sockets
        ]

    def open(self, client: Client, entry: Entry, body: bytes) -> Exchange | None:
        """Somebody to answer a whole request; `None` if it has to go elsewhere."""
        return self.relay.open(client, entry, body)

    def help(self, client: Client) -> Delegate:
        """Somebody to hand a request to."""
        server = self._runner.server
        assert server is not None
        return Delegate(server, self.loop)

    def part_with(self, client: Client, data: bytes) -> None:
        """Never asked: everybody gets a helper."""
        raise AssertionError("unreachable: there is always a helper")
