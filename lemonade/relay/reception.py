"""`Reception`: takes connections, keeps the list of them, and closes those that dawdle.

One for each process that listens: what it can answer itself, and whom it asks otherwise, is for
those who inherit from it to say.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from typing import Final

from lemonade.relay.client import Answer, Client, Helper, Phase
from lemonade.relay.entrance import Entrance, Entry
from lemonade.relay.target import Target

BACKLOG: Final = 1024
"""How many connections may wait for being accepted."""

_LOOK_EVERY: Final = 1.0
"""Seconds between two looks at the deadlines of connections, while there are any."""

_LOOK_AT_THE_END: Final = 0.02


class Reception(ABC):
    """Where connections are accepted.

    Attributes:
        clients: connections that are open.
        closing: whether the server is ending.
        read: says what follows from the head of a request.
    """

    def __init__(self, entrance: Entrance) -> None:
        self.loop = asyncio.get_running_loop()
        self.clients: set[Client] = set()
        self.closing = False
        self.read = entrance.read
        self._look: asyncio.TimerHandle | None = None

    @abstractmethod
    def open(self, client: Client, entry: Entry, body: bytes) -> Answer | None:
        """Somebody to answer a whole request; `None` if it has to go elsewhere."""

    @abstractmethod
    def help(self, client: Client) -> Helper | None:
        """Somebody to hand a request to; `None` if the connection itself has to go."""

    @abstractmethod
    def part_with(self, client: Client, data: bytes) -> None:
        """Take a connection from a client that has no helper, with what was read of it."""

    def accept(self, early: bytes = b"", asked_before: Target | None = None) -> Client:
        """A protocol for a connection; see `Client`. Called by the event loop."""
        if self._look is None:
            self._look = self.loop.call_later(_LOOK_EVERY, self._look_around)
        return Client(self, early, asked_before)

    async def wind_up(self, seconds: float) -> None:
        """Close what is idle at once, and what is being relayed after some time."""
        self.closing = True
        for client in tuple(self.clients):
            client.wind_up()
        try:
            async with asyncio.timeout(seconds):
                while any(client.phase is Phase.RELAYING for client in self.clients):
                    await asyncio.sleep(_LOOK_AT_THE_END)
        except TimeoutError:
            for client in tuple(self.clients):
                if client.phase is Phase.RELAYING:
                    client.transport.abort()

    def shut(self) -> None:
        """Close everything that is open."""
        for client in tuple(self.clients):
            client.transport.abort()
        if self._look is not None:
            self._look.cancel()

    def _look_around(self) -> None:
        self._look = None
        now = self.loop.time()
        for client in [one for one in self.clients if one.deadline < now]:
            client.overdue()
        if self.clients:
            self._look = self.loop.call_later(_LOOK_EVERY, self._look_around)
