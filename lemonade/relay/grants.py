"""What a worker may relay: its grants, the names they go by, and how much of each is in use."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final

from lemonade.core.inference import Operation
from lemonade.core.process import Endpoint
from lemonade.relay.messages import (
    Anew,
    Ask,
    Cleared,
    Granted,
    Message,
    Named,
    Refused,
    ToWorker,
    Use,
    Withdrawn,
)
from lemonade.upstream import Upstream

_KNOWN: Final = 1024
"""How many names without a grant are remembered."""

_TELL_EVERY: Final = 0.25
"""Seconds between two reports of what is in use, while something is."""

_IDLE_AFTER: Final = 0.02
"""Seconds without a request after which a grant counts as idle: between two of one client's it
does not."""

Name = tuple[str, Operation]


class Held:
    """One grant. Its connections are this worker's own.

    Attributes:
        grant: as it was said last.
        requests: in flight.
        streams: of them, those whose first chunk has come.
        withdrawn: whether nothing new may be asked.
    """

    def __init__(self, grant: Granted, owner: Grants) -> None:
        self.grant = grant
        self.upstream = Upstream(Endpoint(grant.host, grant.port), grant.api_key)
        self.requests = 0
        self.streams = 0
        self.withdrawn = False
        self._owner = owner
        self._told = False
        """Whether the server knows that it is in use."""

    def begin(self) -> None:
        """One more request."""
        self.requests += 1
        if not self._told:
            self._told = True
            self.tell()
        self._owner.watch()

    def end(self) -> None:
        """One less."""
        self.requests -= 1
        if not self.requests:
            if self.withdrawn:
                self._owner.clear(self)
            else:
                asyncio.get_running_loop().call_later(_IDLE_AFTER, self._rest)

    def tell(self) -> None:
        """Say how much is in use."""
        quiet = self.upstream.quiet if self.requests else 0.0
        self._owner.send(Use(self.grant.id, self.requests, self.streams, quiet))

    def _rest(self) -> None:
        if not self.requests and self._told and not self.withdrawn:
            self._told = False
            self.tell()


class HeldRight:
    """The right to use a grant for one request."""

    def __init__(self, held: Held) -> None:
        self._held = held
        self._streaming = False
        self._open = True
        held.begin()

    @property
    def upstream(self) -> Upstream:
        """The engine's connections."""
        return self._held.upstream

    def streaming(self) -> None:
        """Note that the first chunk of a stream came."""
        if self._open and not self._streaming:
            self._streaming = True
            self._held.streams += 1

    def end(self) -> None:
        """Give it back. Idempotent."""
        if self._open:
            self._open = False
            self._held.streams -= self._streaming
            self._held.end()


class Grants:
    """All grants of a worker. Follows what the server says."""

    def __init__(
        self,
        send: Callable[[Message], None],
        later: Callable[[Coroutine[Any, Any, None]], None],
    ) -> None:
        """`send` tells the server; `later` makes a task."""
        self.send = send
        self._later = later
        self._held: dict[int, Held] = {}
        self._names: dict[Name, Held] = {}
        self._asked: set[Name] = set()
        """Names that the server was asked about, or has refused."""
        self._timer: asyncio.TimerHandle | None = None

    def find(self, model: str, operation: Operation) -> Held | None:
        """The grant that answers; the server is asked once about a name it has not spoken of."""
        name = model, operation
        held = self._names.get(name)
        if held is None and name not in self._asked:
            if len(self._asked) >= _KNOWN:
                self._asked.clear()
            self._asked.add(name)
            self.send(Ask(model, operation))
        return held

    def hear(self, message: ToWorker) -> None:
        """The server says something about grants."""
        match message:
            case Granted():
                self._grant(message)
            case Named():
                held = self._held.get(message.id)
                if held is not None and not held.withdrawn:
                    self._names[message.name, message.operation] = held
            case Refused():
                self._asked.add((message.name, message.operation))
                self._names.pop((message.name, message.operation), None)
            case Anew():
                self._names.clear()
                self._asked.clear()
            case Withdrawn():
                self._withdraw(message.id, now=message.now)
            case _:
                raise AssertionError(f"not about grants: {message}")

    def watch(self) -> None:
        """Report while anything is in use."""
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(_TELL_EVERY, self._report)

    def clear(self, held: Held) -> None:
        """Nothing of a withdrawn grant is in flight any more."""
        if self._held.pop(held.grant.id, None) is not None:
            self._later(self._close(held))

    async def aclose(self) -> None:
        """Close all connections to engines."""
        if self._timer is not None:
            self._timer.cancel()
        for held in self._held.values():
            await held.upstream.aclose()

    def _grant(self, grant: Granted) -> None:
        held = self._held.get(grant.id)
        if held is None:
            held = self._held[grant.id] = Held(grant, self)
        held.grant = grant
        if held.withdrawn:
            return
        self._asked.clear()  # a name that was refused may be one of this model
        for name in grant.names:
            self._names[name] = held

    def _withdraw(self, number: int, *, now: bool) -> None:
        held = self._held.get(number)
        if held is None:
            return
        held.withdrawn = True
        self._asked.clear()  # the model may be loaded again
        for name in [name for name, one in self._names.items() if one is held]:
            del self._names[name]
        if now:
            self._later(held.upstream.aclose())
        if not held.requests:
            self.clear(held)

    async def _close(self, held: Held) -> None:
        await held.upstream.aclose()
        self.send(Cleared(held.grant.id))

    def _report(self) -> None:
        self._timer = None
        busy = [held for held in self._held.values() if held.requests]
        for held in busy:
            held.tell()
        if busy:
            self.watch()
