"""One keep-alive connection to a child: one request at a time, bytes out, bytes in, by callbacks.

It knows sockets and framing. It does not know who wants the answer, and it never awaits: whoever
uses it from a task does the waiting (`pool`), and a protocol may drive it without any task.

```
  idle ──begin──▶ sending and receiving ──end of the answer──▶ idle, offered to the pool again
   │                │ failure, abort, end of connection
   └────────────────┴──────────────────▶ closed
```
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Final, TypeAlias, cast

from lemonade.core.errors import ConnectionLost, GarbledAnswer, UpstreamError, UpstreamTimeout
from lemonade.upstream.framing import (
    HEAD_LIMIT,
    KEY,
    ONE_CHUNK,
    BodyKind,
    BodyWalker,
    ResponseHead,
    parse_head,
    walker_for,
)
from lemonade.upstream.passage import Passage
from lemonade.upstream.watch import Watch

BodySink: TypeAlias = Callable[[bytes, int], bool]
"""Takes a block of the body, framing included, and how many of its bytes end a whole chunk
(see `BodyWalker.feed`). Answers whether it has had enough: reading then stops until `resume`.
The first block is empty if the head came alone, so that a sink can wait for the body to pass on
both at once."""

HeadSink: TypeAlias = Callable[[ResponseHead], BodySink]
"""Takes the head, says who takes the body. Interim (1xx) heads never get here."""

WholeSink: TypeAlias = Callable[[ResponseHead, bytes], None]
"""Takes head and body of an answer that is over: the connection belongs to somebody else again."""

_COMMENT: Final = 32
"""Bytes that a comment of an event stream may have with its framing: an engine may send one now
and then for a stream that it does nothing for."""

_SLICE: Final = 256 * 1024
"""How much of a large request is handed to the transport at a time."""


class StaleConnection(ConnectionLost):
    """A connection used before was closed by the child without a byte of an answer.

    The child most likely closed it while it was idle, so the request may be sent once more.
    """


class Connection(asyncio.Protocol):
    """One connection to a child.

    Made by the pool; ended by `abort`, by the child, or by an answer that leaves it in an unclear
    state. Between `begin` and the moment `over` turns true it belongs to one exchange.

    Attributes:
        over: whether the exchange has ended; true as well before the first.
        failure: why it failed, or `None` if the answer was complete.
        full: whether a sink has had enough; reading is paused until `resume`.
        loop: it lives on. Asking for the running one is a system call.
    """

    __slots__ = (
        "_buffer",
        "_forget",
        "_head_sink",
        "_heard_at",
        "_heard_something",
        "_keep_alive",
        "_made_at",
        "_method",
        "_notify",
        "_offer",
        "_passage",
        "_patience",
        "_served",
        "_sink",
        "_transport",
        "_unsent",
        "_unsent_from",
        "_walker",
        "_watch",
        "_whole_sink",
        "_writing_paused",
        "failure",
        "full",
        "loop",
        "over",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        offer: Callable[[Connection], None],
        forget: Callable[[Connection], None],
        watch: Watch,
    ) -> None:
        """A connection that is not connected yet.

        Args:
            loop: it lives on.
            offer: told when an exchange ended and the connection can be used again.
            forget: told once when it is closed, for whatever reason.
            watch: sees to it that the child is not silent for too long.
        """
        self.loop = loop
        self._offer = offer
        self._forget = forget
        self._watch = watch
        self._transport: asyncio.Transport | None = None
        self._served = 0
        self._writing_paused = False
        self._unsent: memoryview | None = None
        self._unsent_from = 0
        self._patience: float | None = None
        self._heard_at = 0.0
        self._made_at = 0.0
        self._reset()
        self.over = True
        self.failure: UpstreamError | None = None
        self.full = False

    def _reset(self) -> None:
        self._buffer = b""
        self._heard_something = False
        self._keep_alive = True
        self._walker: BodyWalker | None = None
        self._method = ""
        self._head_sink: HeadSink | None = None
        self._sink: BodySink | None = None
        self._passage: Passage | None = None
        self._whole_sink: WholeSink | None = None
        self._notify: Callable[[], None] | None = None

    # ---- for its user

    @property
    def usable(self) -> bool:
        """Whether a request can be begun on it."""
        transport = self._transport
        return self.over and transport is not None and not transport.is_closing()

    def begin(
        self,
        head: bytes,
        body: bytes | memoryview,
        method: str,
        head_sink: HeadSink,
        notify: Callable[[], None],
        *,
        patience: float | None = None,
        passage: Passage | None = None,
        whole_sink: WholeSink | None = None,
    ) -> None:
        """Send a request; from now on the sinks are called.

        Args:
            head: of the request, up to its empty line.
            body: may be large; it is sent as fast as the child takes it.
            method: of the request.
            head_sink: takes the answer's head.
            notify: called when `over` or `full` turned true.
            patience: how many seconds the child may be silent; `None` is without limit.
            passage: takes whole chunks of the body past the sink, while it is open.
            whole_sink: takes a successful answer that says its length and comes in one block, in
                place of the other sinks and of `notify`.
        """
        transport = self._transport
        assert transport is not None
        assert self.over
        self.over = False
        self.failure = None
        self._method = method
        self._head_sink = head_sink
        self._notify = notify
        self._passage = passage
        self._whole_sink = whole_sink
        if patience is not None:
            self._patience = patience
            self._heard_at = self._made_at = now = self.loop.time()
            self._watch.mind(self.loop, now + patience)
        if len(body) <= _SLICE:
            transport.write(head + body)
        else:
            transport.write(head)
            self._unsent = memoryview(body)
            self._unsent_from = 0
            self._send_more()

    @property
    def quiet(self) -> float:
        """Seconds since more than a comment came; none while it is us who do not listen."""
        return 0.0 if self.full else self.loop.time() - self._made_at

    def resume(self) -> None:
        """Read on after a sink had enough."""
        if self.full:
            self.full = False
            self._heard_at = self._made_at = self.loop.time()
            if self._transport is not None:
                self._transport.resume_reading()

    def abort(self, failure: UpstreamError | None = None) -> None:
        """Close at once, whatever is going on; the child notices that nobody listens.

        Args:
            failure: what the exchange in progress, if there is one, is told.
        """
        if self._transport is not None:
            self._transport.abort()
        if not self.over:
            self._fail(failure or ConnectionLost("The connection to the engine was closed."))
        self._forget(self)

    # ---- called by the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop, which has set TCP_NODELAY."""
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the event loop when the connection is gone."""
        self._transport = None
        if not self.over:
            walker = self._walker
            if exc is None and walker is not None and walker.ends_with_connection:
                self._end()
            elif self._served and not self._heard_something:
                self._fail(StaleConnection("The engine had closed the connection."))
            else:
                self._fail(_lost(self._sink is not None))
        self._forget(self)

    def eof_received(self) -> bool | None:
        """Called by the event loop; the default, closing, is right."""
        return None

    def pause_writing(self) -> None:
        """Called by the event loop: the child does not read as fast as we write."""
        self._writing_paused = True

    def resume_writing(self) -> None:
        """Called by the event loop: the child caught up."""
        self._writing_paused = False
        self._send_more()

    def data_received(self, data: bytes) -> None:
        """Called by the event loop for every block."""
        passage = self._passage
        if (
            passage is not None
            and passage.open
            and ONE_CHUNK.get(data[:KEY]) == len(data)
            and data[-2:] == b"\r\n"
        ):
            self._heard_at = self._made_at = self.loop.time()
            if passage.take(data):
                self._pause()
            return
        if self._patience is not None:
            self._heard_at = now = self.loop.time()
            if len(data) > _COMMENT:
                self._made_at = now
        walker = self._walker
        try:
            if walker is None:
                data = self._take_heads(data)
                walker = self._walker
                if walker is None:
                    return
            whole = walker.feed(data) if data else 0
        except GarbledAnswer as garbled:
            self.abort(garbled)
            return
        done = walker.done
        if done and walker.used != len(data):
            # Nobody asked for what comes after the answer, so nobody can trust the connection.
            self._keep_alive = False
            data = data[: walker.used]
        sink = self._sink
        assert sink is not None
        if sink(data, whole) and not done:
            self._pause()
        elif done:
            self._end()

    # ---- the answer

    def _take_heads(self, data: bytes) -> bytes:
        """Read heads until one is final; returns what came after it and has not been dealt with.

        Raises:
            GarbledAnswer: what came is no head, or is too large for one.
        """
        if self.over:
            self._keep_alive = False
            raise GarbledAnswer("The engine spoke without being asked.")
        self._heard_something = True
        data = self._buffer + data if self._buffer else data
        while True:
            end = data.find(b"\r\n\r\n") + 4
            if end == 3 or end > HEAD_LIMIT:
                if len(data) > HEAD_LIMIT:
                    raise GarbledAnswer("The head of the engine's answer is too large.")
                self._buffer = data
                return b""
            head = parse_head(data[:end], self._method)
            data = data[end:]
            if head.status >= 200:
                break
            if head.status == 101:
                raise GarbledAnswer("The engine changed the protocol without being asked.")
        self._buffer = b""
        self._keep_alive = head.keep_alive
        if (
            self._whole_sink is not None
            and head.body is BodyKind.LENGTH
            and head.length == len(data)
            and head.status < 300
        ):
            whole_sink = self._whole_sink
            self._part()
            whole_sink(head, data)
            return b""
        self._walker = walker_for(head)
        assert self._head_sink is not None
        self._sink = self._head_sink(head)
        return data

    def _pause(self) -> None:
        self.full = True
        if self._transport is not None:
            self._transport.pause_reading()
        if self._notify is not None:
            self._notify()

    def _end(self) -> None:
        """The answer is complete."""
        notify = self._notify
        # First offered, then told: whoever is told may want to send the next request on it.
        self._part()
        if notify is not None:
            notify()

    def _part(self) -> None:
        """The exchange is over; another one may begin."""
        # A child that answers before it has read the request will not read the rest of it as such.
        reusable = self._keep_alive and self._unsent is None
        self._close_exchange()
        if reusable and self.usable:
            self._served += 1
            self._offer(self)
        else:
            self.abort()

    def _fail(self, failure: UpstreamError) -> None:
        notify = self._notify
        self.failure = failure
        self._close_exchange()
        if notify is not None:
            notify()

    def _close_exchange(self) -> None:
        self._patience = None
        self._unsent = None
        self._reset()
        if self.full:
            self.full = False
            if self._transport is not None and not self._transport.is_closing():
                self._transport.resume_reading()
        self.over = True

    # ---- the request, and time

    def _send_more(self) -> None:
        """Hand over slices until the transport has enough."""
        body = self._unsent
        if body is None or self._transport is None:
            return
        while not self._writing_paused:
            piece = body[self._unsent_from : self._unsent_from + _SLICE]
            self._unsent_from += len(piece)
            if self._unsent_from >= len(body):
                self._unsent = None
            self._transport.write(piece)
            # Taking a large request is a sign of life.
            self._heard_at = self._made_at = self.loop.time()
            if self._unsent is None:
                return

    def left(self, now: float) -> float:
        """Seconds that the child may go on being silent; infinite if nobody minds."""
        if self.over or self._patience is None:
            return math.inf
        heard = now if self.full else self._heard_at
        return heard + self._patience - now

    def give_up(self) -> None:
        """The child was silent for too long."""
        self.abort(
            UpstreamTimeout(
                f"The engine was silent for {self._patience:g} seconds.",
                remedy="Raise global_timeout if the model needs longer than that.",
            )
        )


def _lost(answering: bool) -> ConnectionLost:  # noqa: FBT001
    when = "in the middle of its answer" if answering else "without an answer"
    return ConnectionLost(
        f"The engine closed the connection {when}.",
        remedy="Its log says why: see `lemonade logs`.",
    )
