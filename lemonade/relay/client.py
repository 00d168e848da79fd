"""`Client`: one accepted connection, request after request.

```
          ┌──────────────── answered ◀────────────────┐
          ▼                                           │
  ──▶ READING ──whole, ours, model is warm──▶ RELAYING ┤
          │ ───anything else────────────────▶ LENT ────┘
          │ ───its end is not known─────────▶ GIVEN      until the connection ends
          └────two meanings─────────────────▶ CLOSING
```

Invariant: at most one request is being answered. What comes after it waits, up to a limit beyond
which reading stops.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable
from enum import Enum
from http import HTTPStatus
from typing import Any, Final, Protocol, cast

from lemonade.dialects import json_bytes
from lemonade.relay.entrance import Entry
from lemonade.relay.reading import HEAD_LIMIT, NO_REQUEST, Verdict, may_begin, skip_line_ends
from lemonade.relay.target import Target

HEAD_SECONDS: Final = 30.0
"""How long a head may take from its first byte."""

BODY_SECONDS: Final = 30.0
"""How long a client may be silent in the middle of a body."""

IDLE_SECONDS: Final = 75.0
"""How long a connection may be idle between requests. Proxies in front of us close after 60."""

_EARLY_LIMIT: Final = 64 * 1024
"""How much of the next requests may come before the current one is answered."""

_REASONS: Final = {status.value: status.phrase.encode() for status in HTTPStatus}


class Phase(Enum):
    """What a connection is doing."""

    READING = "reading"
    RELAYING = "relaying"
    LENT = "lent"
    GIVEN = "given"
    PARTING = "parting"
    CLOSING = "closing"


class Answer(Protocol):
    """Somebody who answers one request of ours."""

    def begin(self) -> None:
        """Ask the engine."""

    def resume(self) -> None:
        """The client has read what it was sent."""

    def abandon(self) -> None:
        """The client is gone."""


class Helper(Protocol):
    """Somebody who is handed a request, or all that is left of a connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Here is the connection."""

    def connection_lost(self, exc: BaseException | None) -> None:
        """It is gone."""

    def data_received(self, data: bytes) -> None:
        """Some of it."""

    def eof_received(self) -> None:
        """The client says no more."""

    def pause_writing(self) -> None:
        """The client does not read as fast as it is written to."""

    def resume_writing(self) -> None:
        """It caught up."""

    def serve(self, answered: Callable[[], None], *, asked_before: bool) -> None:
        """What comes is a request.

        Args:
            answered: to be told in a later turn of the loop when a whole answer was handed to the
                connection, and the connection goes on.
            asked_before: whether an engine was asked already, and lost.
        """

    def dismiss(self) -> None:
        """It has answered, and the connection is not its own."""


class House(Protocol):
    """Where a connection was accepted."""

    clients: set[Client]
    closing: bool
    loop: asyncio.AbstractEventLoop

    def read(self, block: bytes) -> Entry:
        """What follows from the head of a request."""

    def open(self, client: Client, entry: Entry, body: bytes) -> Answer | None:
        """Somebody to answer a whole request; `None` if it has to go elsewhere."""

    def help(self, client: Client) -> Helper | None:
        """Somebody to hand a request to; `None` if the connection itself has to go."""

    def part_with(self, client: Client, data: bytes) -> None:
        """Take a connection from a client that has no helper, with what was read of it."""


class Client(asyncio.Protocol):
    """One accepted connection. Made by the listener; ends with its connection.

    Attributes:
        transport: the connection; once it is closed it takes nothing any more.
        writing_paused: whether the client does not read as fast as it is written to.
        deadline: when `overdue` is to be called, on the loop's clock.
        phase: what it is doing.
        asked_before: the model whose engine was asked for the next request already, and lost.
    """

    __slots__ = (
        "_buffer",
        "_delegate",
        "_entry",
        "_exchange",
        "_house",
        "_missing",
        "_pieces",
        "_reading_paused",
        "asked_before",
        "deadline",
        "phase",
        "transport",
        "writing_paused",
    )

    transport: asyncio.Transport

    def __init__(
        self, house: House, early: bytes = b"", asked_before: Target | None = None
    ) -> None:
        """A connection that is not there yet.

        Args:
            house: where it was accepted.
            early: what was read of it elsewhere; see `start`.
            asked_before: the model whose engine was asked for that, and lost.
        """
        self._house = house
        self._buffer = early
        self.asked_before = asked_before
        self._entry: Entry | None = None
        self._pieces: list[bytes] = []
        self._missing = 0
        """Bytes of the current request's body that have not come."""
        self._exchange: Answer | None = None
        self._delegate: Helper | None = None
        self._reading_paused = False
        self.writing_paused = False
        self.deadline = math.inf
        self.phase = Phase.READING

    # ---- called by the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop, which has set TCP_NODELAY."""
        self.transport = cast("asyncio.Transport", transport)
        self._house.clients.add(self)
        self._wait(IDLE_SECONDS)

    def start(self) -> None:
        """Look at what was read elsewhere, unless more has come and it was looked at with that."""
        if self.phase is Phase.READING and self._buffer:
            self.data_received(b"")

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the event loop when the connection is gone."""
        self._house.clients.discard(self)
        self.phase = Phase.CLOSING
        self.deadline = math.inf
        self._buffer = b""
        self._pieces.clear()
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.abandon()
        delegate, self._delegate = self._delegate, None
        if delegate is not None:
            delegate.connection_lost(exc)

    def eof_received(self) -> bool | None:
        """Called by the event loop; the default, closing, is right: nobody reads the answer."""
        if self._delegate is not None:
            self._delegate.eof_received()
        return None

    def pause_writing(self) -> None:
        """Called by the event loop: the client does not read as fast as we write."""
        self.writing_paused = True
        if self._delegate is not None:
            self._delegate.pause_writing()

    def resume_writing(self) -> None:
        """Called by the event loop: the client caught up."""
        self.writing_paused = False
        if self._delegate is not None:
            self._delegate.resume_writing()
        elif self._exchange is not None:
            self._exchange.resume()
        elif self.phase is Phase.PARTING:
            self._part()

    def data_received(self, data: bytes) -> None:
        """Called by the event loop for every block."""
        match self.phase:
            case Phase.READING:
                if self._entry is not None:
                    self._take_body(data)
                else:
                    self._read(self._buffer + data if self._buffer else data)
            case Phase.LENT if self._missing:
                self._lend(data)
            case Phase.GIVEN:
                assert self._delegate is not None
                self._delegate.data_received(data)
            case Phase.CLOSING:
                return
            case _:
                self._buffer += data
                if len(self._buffer) > _EARLY_LIMIT and not self._reading_paused:
                    self._reading_paused = True
                    self.transport.pause_reading()

    # ---- reading requests

    def _read(self, data: bytes) -> None:
        """A request begins here; nothing before it is left."""
        if data[:2] == b"\r\n":
            data = skip_line_ends(data)
        end = data.find(b"\r\n\r\n") + 4
        if end == 3 or end > HEAD_LIMIT:
            self._keep_reading(data)
            return
        self._buffer = b""
        entry = self._house.read(data[:end])
        head = entry.head
        if head.verdict is Verdict.REFUSE:
            self.refuse(400, head.refusal)
        elif entry.operation is not None:
            missing = head.length - (len(data) - end)
            if missing > 0:
                self._entry, self._missing = entry, missing
                self._pieces = [data]
                self._wait(BODY_SECONDS)
            else:
                self._begin(entry, data, end)
        elif head.verdict is Verdict.GIVE:
            self._hand_over(Phase.GIVEN, data)
        else:
            self._hand_over(Phase.LENT, data, end + head.length)

    def _keep_reading(self, data: bytes) -> None:
        if not may_begin(data):
            self.refuse(400, NO_REQUEST.refusal)
            return
        if len(data) > HEAD_LIMIT:
            self.refuse(431, "The head of the request is too large. Send fewer headers.")
            return
        if data and not self._buffer:
            self._wait(HEAD_SECONDS)
        self._buffer = data

    def _take_body(self, data: bytes) -> None:
        """More of a body whose beginning waits."""
        self._pieces.append(data)
        self._missing -= len(data)
        if self._missing > 0:
            self._wait(BODY_SECONDS)
            return
        entry, self._entry = self._entry, None
        self._missing = 0
        assert entry is not None
        whole = b"".join(self._pieces)
        self._pieces = []
        self._begin(entry, whole, whole.find(b"\r\n\r\n") + 4)

    def _begin(self, entry: Entry, data: bytes, body_at: int) -> None:
        """A whole request of ours is here; what follows it is another one."""
        self.deadline = math.inf
        end = body_at + entry.head.length
        exchange = self._house.open(self, entry, data[body_at:end])
        if exchange is None:
            self._hand_over(Phase.LENT, data, end)
            return
        if end < len(data):
            self._buffer = data[end:]
        self.asked_before = None
        self.phase = Phase.RELAYING
        self._exchange = exchange
        exchange.begin()

    # ---- answers

    def answered(self, *, stays: bool) -> None:
        """The current request is over: its answer has been handed to the connection."""
        self._exchange = None
        if self.phase is not Phase.RELAYING:
            return
        if not stays or self._house.closing:
            self.close()
        elif not self.transport.is_closing():
            self._go_on()

    def part(self, request: bytes, asked_before: Target) -> None:
        """Another process shall answer the current request, and have the connection."""
        self._exchange = None
        self.asked_before = asked_before
        self._let_go(request + self._buffer)

    def answer(self, status: int, body: bytes, lines: bytes, *, stays: bool) -> None:
        """Write an answer of our own, in JSON."""
        if self.transport.is_closing():
            return
        self.transport.write(
            b"HTTP/1.1 %d %b\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n%b%b\r\n%b"
            % (
                status,
                _REASONS.get(status, b""),
                len(body),
                b"" if stays else b"Connection: close\r\n",
                lines,
                body,
            )
        )

    def refuse(self, status: int, message: str) -> None:
        """Say what is wrong with a request that nobody will get, and close."""
        error: dict[str, Any] = {
            "message": message,
            "type": "invalid_request_error",
            "code": "malformed_request",
        }
        self.answer(status, json_bytes({"error": error}), b"", stays=False)
        self.close()

    def close(self) -> None:
        """Close when everything is written; what comes is not read any more."""
        self.phase = Phase.CLOSING
        self.deadline = math.inf
        self.transport.close()

    def overdue(self) -> None:
        """Called by the listener when the deadline has passed."""
        if self._entry is not None:
            self.refuse(408, "The rest of the body did not come in time. Send all of it.")
        elif self._buffer:
            self.refuse(408, "The head of the request did not come in time. Send all of it.")
        else:
            self.close()

    def wind_up(self) -> None:
        """The server is ending: take nothing new; an answer under way may go on."""
        if self.phase is Phase.READING:
            self.close()

    # ---- lending the connection

    def _hand_over(self, phase: Phase, data: bytes, length: int = 0) -> None:
        """Somebody else answers.

        Args:
            phase: whether the connection is lent or given.
            data: all that was read.
            length: of the request, if it is lent.
        """
        delegate = self._house.help(self)
        if delegate is None:
            self._let_go(data)
            return
        self.phase = phase
        self.deadline = math.inf
        self._delegate = delegate
        delegate.serve(self._delegate_answered, asked_before=self.asked_before is not None)
        self.asked_before = None
        delegate.connection_made(self.transport)
        if self.writing_paused:
            delegate.pause_writing()
        if phase is Phase.GIVEN:
            delegate.data_received(data)
        else:
            self._missing = length
            self._lend(data)

    def _let_go(self, data: bytes) -> None:
        """The connection goes to another process, as soon as what was written has been sent."""
        self.phase = Phase.PARTING
        self.deadline = math.inf
        self._buffer = data
        self.transport.pause_reading()
        if self.transport.get_write_buffer_size():
            self.transport.set_write_buffer_limits(0)
        else:
            self._part()

    def _part(self) -> None:
        data, self._buffer = self._buffer, b""
        self.phase = Phase.CLOSING
        self._house.part_with(self, data)

    def _lend(self, data: bytes) -> None:
        """Give the delegate what belongs to its request, and keep what follows."""
        assert self._delegate is not None
        missing = self._missing
        self._missing = max(0, missing - len(data))
        if len(data) > missing:
            self._buffer = data[missing:]
            data = data[:missing]
        self._delegate.data_received(data)

    def _delegate_answered(self) -> None:
        delegate = self._delegate
        if delegate is None or self.phase is not Phase.LENT or self.transport.is_closing():
            return
        if self._missing:
            # It answered before it had the whole request. What comes is its to judge.
            self.phase = Phase.GIVEN
            return
        self._delegate = None
        delegate.dismiss()
        self.transport.resume_reading()  # it may have paused it
        self._reading_paused = False
        if self._house.closing:
            self.close()
        else:
            self._go_on()

    # ---- the next request

    def _go_on(self) -> None:
        self.phase = Phase.READING
        if self._reading_paused:
            self._reading_paused = False
            self.transport.resume_reading()
        if self._buffer:
            data, self._buffer = self._buffer, b""
            self._wait(HEAD_SECONDS)
            self._read(data)
        else:
            self._wait(IDLE_SECONDS)

    def _wait(self, seconds: float) -> None:
        self.deadline = self._house.loop.time() + seconds


def header_lines(pairs: Iterable[tuple[str, str]]) -> bytes:
    """Headers as they are written."""
    return "".join(f"{name}: {value}\r\n" for name, value in pairs).encode("latin-1")
