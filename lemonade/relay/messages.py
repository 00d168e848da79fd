"""What the server and a worker process say to each other, and how it is written.

A worker relays what it was granted and hands everything else to the server. It decides nothing:
which names mean which engine, how long that holds, and what is counted are the server's to know.

```
server                                    worker
   │ ── Welcome ──────────────────────────▶ │
   │ ◀────────────────────────────── Ready ─│ accepts from now on
   │ ── Granted, Named, Refused ──────────▶ │ ◀── Ask: a name nobody has spoken of
   │ ◀────────────────── Use, Finished ─────│ while it relays
   │ ── Withdrawn ────────────────────────▶ │ takes no more of it
   │ ◀──────────────────────────── Cleared ─│ nothing of it is in flight
   │ ── Ping ─────────────────────────────▶ │ ◀── Pong: its loop turns
```

`Moved` takes another way, since a connection travels with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, Generic, TypeAlias, TypeVar, cast

import msgspec

from lemonade.core.access import AccessKeys
from lemonade.core.events import RequestFinished
from lemonade.core.inference import Operation
from lemonade.relay.exchange import Patience

_LENGTH: Final = 4
"""Bytes that say how long a message is."""

_WAITS: Final = 0.02
"""Seconds that a message may wait for company if it is not urgent."""

M = TypeVar("M")


class Message(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Something said."""


class GrantedLimits(msgspec.Struct, frozen=True, array_like=True):
    """See `target.Limits`."""

    above: int


class GrantedManner(msgspec.Struct, frozen=True, array_like=True):
    """See `target.Manner`."""

    operations: dict[Operation, str]
    own_name: bool
    old_limit: bool
    usage: str
    limits: GrantedLimits | None
    adapts: bool


class GrantedRecipe(msgspec.Struct, frozen=True, array_like=True):
    """See `target.Recipe`."""

    title: str
    upstream: GrantedManner


class Granted(Message, frozen=True, tag=True, array_like=True):
    """A loaded model may be used. Said again when something of it has changed.

    Attributes:
        id: of the grant; the same model loaded again has another.
        names: under which it answers, and for what.
    """

    id: int
    served_name: str
    recipe: GrantedRecipe
    context: int
    host: str
    port: int
    api_key: str
    names: tuple[tuple[str, Operation], ...]


# ---- to a worker


class Welcome(Message, frozen=True, tag=True, array_like=True):
    """The first word: who may come in, and how long is waited."""

    access: AccessKeys
    patience: Patience


class Named(Message, frozen=True, tag=True, array_like=True):
    """A grant holds for this name too."""

    id: int
    name: str
    operation: Operation


class Refused(Message, frozen=True, tag=True, array_like=True):
    """Whoever asks for this by that name is the server's, until something else is said."""

    name: str
    operation: Operation


class Anew(Message, frozen=True, tag=True, array_like=True):
    """Names may mean something else: forget them."""


class Withdrawn(Message, frozen=True, tag=True, array_like=True):
    """Use it for nothing more; with `now`, not even for what is in flight."""

    id: int
    now: bool = False


class Settings(Message, frozen=True, tag=True, array_like=True):
    """A setting has changed."""

    patience: Patience


class Explained(Message, frozen=True, tag=True, array_like=True):
    """The answer to `Puzzled`."""

    ticket: int
    incident: str = ""
    remedy: str = ""


class Ping(Message, frozen=True, tag=True, array_like=True):
    """Does the loop turn?"""


class End(Message, frozen=True, tag=True, array_like=True):
    """Finish what is under way, within so many seconds, and end."""

    seconds: float


# ---- from a worker


class Ready(Message, frozen=True, tag=True, array_like=True):
    """It accepts connections."""


class Pong(Message, frozen=True, tag=True, array_like=True):
    """The answer to `Ping`."""


class Ask(Message, frozen=True, tag=True, array_like=True):
    """What does this name mean?"""

    name: str
    operation: Operation


class Use(Message, frozen=True, tag=True, array_like=True):
    """How much of a grant is in use; `quiet`: seconds since more than a comment came."""

    id: int
    requests: int
    streams: int
    quiet: float


class Cleared(Message, frozen=True, tag=True, array_like=True):
    """Nothing of a withdrawn grant is in flight, and no connection to its engine is left."""

    id: int


class Finished(Message, frozen=True, tag=True, array_like=True):
    """A request is over."""

    request_id: str
    event: RequestFinished


class Puzzled(Message, frozen=True, tag=True, array_like=True):
    """An engine was lost during an answer. Why?"""

    ticket: int
    id: int


class Logged(Message, frozen=True, tag=True, array_like=True):
    """A line for the server's log."""

    level: int
    name: str
    text: str
    request_id: str


ToWorker: TypeAlias = (
    Welcome | Granted | Named | Refused | Anew | Withdrawn | Settings | Explained | Ping | End
)
FromWorker: TypeAlias = Ready | Pong | Ask | Use | Cleared | Finished | Puzzled | Logged


class Moved(msgspec.Struct, frozen=True, array_like=True):
    """A connection goes to the server.

    Attributes:
        lost: the grant whose engine was asked for its first request, and lost; 0 is none.
        early: what was read of it.
        more: whether that comes by a connection of its own, being long.
    """

    lost: int
    early: bytes
    more: bool = False


class Channel(asyncio.Protocol, Generic[M]):
    """One end of the way between server and worker.

    What one turn of the loop says is written at once. What can wait is, since being told of every
    request by itself costs the server more than to be told of many.
    """

    def __init__(self, kinds: Any, hear: Callable[[M], None], ended: Callable[[], None]) -> None:  # noqa: ANN401
        """Not connected yet.

        Args:
            kinds: the union of what the other side says.
            hear: told every message.
            ended: told once that the other side is gone.
        """
        self._decoder = msgspec.msgpack.Decoder(kinds)
        self._encoder = msgspec.msgpack.Encoder()
        self._hear = hear
        self._ended = ended
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._unsent = bytearray()
        self._due: asyncio.Handle | None = None
        self._urgent = False

    def send(self, message: Message, *, urgent: bool = True) -> None:
        """Say something. Whom nobody hears any more speaks in vain."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        written = self._encoder.encode(message)
        if urgent and not self._urgent:
            self._urgent = True
            asyncio.get_running_loop().call_soon(self.flush)
        elif self._due is None and not self._urgent:
            self._due = asyncio.get_running_loop().call_later(_WAITS, self.flush)
        self._unsent += len(written).to_bytes(_LENGTH, "little") + written

    def flush(self) -> None:
        """Write what was said."""
        self._urgent = False
        if self._due is not None:
            self._due.cancel()
            self._due = None
        if self._unsent and self._transport is not None:
            self._transport.write(bytes(self._unsent))
        self._unsent.clear()

    def close(self) -> None:
        """Say no more, once everything is written."""
        self.flush()
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop."""
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the event loop."""
        self._transport = None
        self._ended()

    def data_received(self, data: bytes) -> None:
        """Called by the event loop."""
        data = self._buffer + data if self._buffer else data
        at = 0
        while len(data) - at >= _LENGTH:
            end = at + _LENGTH + int.from_bytes(data[at : at + _LENGTH], "little")
            if end > len(data):
                break
            message = self._decoder.decode(data[at + _LENGTH : end])
            at = end
            self._hear(message)
        self._buffer = data[at:]
