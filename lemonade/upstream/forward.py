"""An answer on its way from a child's connection to a client's, as the bytes it came in.

Knows transports and framing, but no web framework: whoever owns the client's connection makes one
`Forwarder` for each request and gives its `take_head` to the child's connection. It parses no
body, and holds at most one block of it (and an unfinished chunk of a stream).
"""

from __future__ import annotations

import asyncio
import re
import socket
import struct
from collections.abc import Callable
from typing import Final, Protocol, cast

from lemonade.core.errors import UpstreamError
from lemonade.upstream.connection import BodySink
from lemonade.upstream.framing import BodyKind, BodyWalker, ResponseHead, walker_for
from lemonade.upstream.heads import Extra, client_framing, compose_head, error_event
from lemonade.upstream.passage import Passage, Reader, Tap

ERROR_LIMIT: Final = 64 * 1024
"""How much of a child's error is read when the caller wants to word it anew."""

_HELD_LIMIT: Final = 64 * 1024
"""How long an unfinished chunk of a stream may grow before it is passed on as it is."""

_SHORT: Final = 8
"""What is longer shows by itself whether an event ends with it."""

_EVENT_ENDS: Final = (b"\n\n", b"\r\r", b"\r\n\r\n")
_NO_EXTRA: Final = Extra()
_COMMENTS: Final = re.compile(rb"(?:[0-9A-Fa-f]+\r\n(?::[^\r\n]*\r?\n)+\r?\n\r\n)+")
_COMMENTS_LIMIT: Final = 512
_LAST_CHUNK: Final = b"0\r\n\r\n"


class Sieve(Protocol):
    """Takes something out of what a stream says."""

    def feed(self, data: bytes) -> bytes:
        """What may be passed on now that this came."""

    def rest(self) -> bytes:
        """What is left when the stream is complete."""


class Forwarder:
    """One answer for one client.

    Nothing is sent before there is something of the body: an engine that dies between its head
    and that has answered nobody, and somebody else may be asked.

    The sinks run in the callbacks of the child's connection. There is one for each way in which
    framing has to be treated; `take_head` chooses. After the conversation either `finish` or
    `break_off` is called, once.

    Attributes:
        head: of the child's answer, when it has come.
        composed: the head the client gets; it goes out with the first of the body.
        sent: bytes handed to the client's connection, but for what took the short way.
        stays: whether the client's connection can take another request afterwards.
        refusal: a child's error, collected instead of sent; `None` if there is none.
    """

    def __init__(  # noqa: PLR0913 - it joins two connections
        self,
        transport: asyncio.Transport,
        reader: Reader,
        *,
        modern: bool,
        stays: bool,
        extra: Extra = _NO_EXTRA,
        tap: Tap | None = None,
        passage: Passage | None = None,
        sieve: Sieve | None = None,
        begun: Callable[[], bool] | None = None,
        keep_errors: bool = False,
    ) -> None:
        """Nothing is sent yet.

        Args:
            transport: of the client's connection.
            reader: who owns it.
            modern: whether the client speaks HTTP/1.1.
            stays: whether the client wants to keep the connection.
            extra: see `compose_head`.
            tap: is shown the body as it comes.
            passage: is opened while the chunks of a stream may go there; the child's connection
                has to know it. `None` if they all come here.
            sieve: takes something out of a stream; then its chunks are ours.
            begun: asked once, when the body begins: whether the client has been sent a head of
                our own for a stream in chunks, because it waited long. It gets the body then.
                `None` if nobody tells the client anything meanwhile: then it gets also the
                comments by which an engine keeps a stream alive that has not begun.
            keep_errors: collect the body of an answer that is not a success, send nothing.
        """
        self._transport = transport
        self._reader = reader
        self._modern = modern
        self._wants_to_stay = stays
        self._extra = extra
        self._tap = tap
        self._passage = passage
        self._sieve = sieve
        self._begun = begun
        self._keep_errors = keep_errors
        self._framing = BodyKind.NONE
        self._walker: BodyWalker | None = None
        self._held = b""
        self._torn = False
        self._last = b""
        self._unsent_head = b""
        self._sink: Callable[[Forwarder, bytes, int], bool] | None = None
        """A function, not a method of ours: we would hold on to ourselves."""
        self.head: ResponseHead | None = None
        self.composed = b""
        self.sent = 0
        self.stays = stays
        self.refusal: bytearray | None = None

    @property
    def satisfied(self) -> bool:
        """Whether enough of an error was collected: the rest of the answer is not needed."""
        return self.refusal is not None and len(self.refusal) >= ERROR_LIMIT

    # ---- sinks

    def take_head(self, head: ResponseHead) -> BodySink:
        """Take the head; it waits for the body."""
        self.head = head
        if self._keep_errors and not 200 <= head.status < 300:
            self.refusal = bytearray()
            self._walker = walker_for(head, collect=True)
            return self._collect
        return self._take_body

    def _take_body(self, block: bytes, whole: int) -> bool:
        if self._sink is None:
            if not block or (self._begun is not None and self._is_comment(block, whole)):
                return self._transport.is_closing()
            self._sink = self._begin()
        return self._sink(self, block, whole)

    def _is_comment(self, block: bytes, whole: int) -> bool:
        """Whether it says nothing: somebody else may still be asked."""
        head = self.head
        assert head is not None
        plain = head.event_stream and head.body is BodyKind.CHUNKED and whole == len(block)
        return plain and len(block) <= _COMMENTS_LIMIT and _COMMENTS.fullmatch(block) is not None

    def _begin(self) -> Callable[[Forwarder, bytes, int], bool]:
        """Compose the head that goes out with what follows, and choose the sink for the body."""
        head = self.head
        assert head is not None
        if self._begun is not None and self._begun():
            self._framing = framing = BodyKind.CHUNKED
        else:
            self._framing = framing = client_framing(head, modern=self._modern)
            if framing is BodyKind.UNTIL_CLOSE:
                self.stays = False
            self.composed = compose_head(
                head, framing, modern=self._modern, stays=self.stays, extra=self._extra
            )
            self._unsent_head = self.composed
        unsized = framing in (BodyKind.CHUNKED, BodyKind.UNTIL_CLOSE)
        if self._sieve is not None and unsized and head.event_stream:
            self._walker = walker_for(head, collect=True)
            return Forwarder._pass_sieved
        if head.body is framing:
            chunks = framing is BodyKind.CHUNKED and head.event_stream
            return Forwarder._pass_whole_chunks if chunks else Forwarder._pass
        match head.body, framing:
            case BodyKind.CHUNKED, BodyKind.UNTIL_CLOSE:
                self._walker = walker_for(head, collect=True)
                return Forwarder._pass_payload
            case ((BodyKind.UNTIL_CLOSE | BodyKind.LENGTH | BodyKind.NONE), BodyKind.CHUNKED):
                return Forwarder._pass_as_chunk
            case _:
                return Forwarder._pass

    def _pass(self, block: bytes, _whole: int) -> bool:
        """As it came."""
        if not block:
            return self._write(block)
        if self._tap is not None:
            self._tap.feed(block)
        return self._pass_on(block)

    def _pass_on(self, block: bytes) -> bool:
        self._last = block if len(block) > _SHORT else self._last[-_SHORT:] + block
        return self._write(block)

    def _pass_whole_chunks(self, block: bytes, whole: int) -> bool:
        """As it came, but an unfinished chunk waits for its rest.

        So whatever happens to the child, the client's stream is at a place where we can speak.
        """
        passage = self._passage
        if passage is not None:
            if passage.open:
                self._last = passage.close()
            tap = self._tap
            passage.open = whole == len(block) > _SHORT and (tap is None or not tap.looking)
        if whole == len(block):
            out = self._held + block if self._held else block
            self._held = b""
            self._torn = False
        elif whole:
            out = self._held + block[:whole] if self._held else block[:whole]
            self._held = block[whole:]
            self._torn = False
        elif self._torn:
            # A very large chunk is being passed on in pieces.
            out = block
        else:
            self._held += block
            if len(self._held) <= _HELD_LIMIT:
                return self._write(b"")
            out, self._held, self._torn = self._held, b"", True
        return self._pass(out, 0)

    def _pass_payload(self, block: bytes, _whole: int) -> bool:
        """Without the child's chunks, to a client of HTTP/1.0."""
        return self._pass(self._walk(block), 0)

    def _pass_as_chunk(self, block: bytes, _whole: int) -> bool:
        """The child ends its body by closing; the client gets chunks and keeps its connection."""
        return self._pass(b"%x\r\n%b\r\n" % (len(block), block) if block else b"", 0)

    def _pass_sieved(self, block: bytes, _whole: int) -> bool:
        """Without what the sieve keeps back, in chunks of our own. The tap sees everything."""
        sieve, walker = self._sieve, self._walker
        assert sieve is not None
        assert walker is not None
        said = self._walk(block) if block else b""
        if said and self._tap is not None:
            self._tap.feed(said)
        out = sieve.feed(said)
        if walker.done:
            out += sieve.rest()
        if self._framing is BodyKind.CHUNKED:
            out = b"%x\r\n%b\r\n" % (len(out), out) if out else b""
            if walker.done:
                out += _LAST_CHUNK
        return self._pass_on(out) if out else self._write(b"")

    def _collect(self, block: bytes, _whole: int) -> bool:
        """An error for the caller, not for the client."""
        assert self.refusal is not None
        self.refusal += self._walk(block)
        return self.satisfied

    def _walk(self, block: bytes) -> bytes:
        assert self._walker is not None
        self._walker.feed(block)
        return self._walker.payload()

    # ---- the end

    def finish(self) -> None:
        """The child's answer is complete."""
        assert self.head is not None
        if self._sink is None:
            self._sink = self._begin()
        if self._unsent_head:
            head, self._unsent_head = self._unsent_head, b""
            self._write(head)
        if self.head.body is BodyKind.CHUNKED:
            return
        if self._framing in (BodyKind.LENGTH, BodyKind.NONE):
            return
        if self._walker is not None and self._walker.done:
            return
        rest = self._sieve.rest() if self._sieve is not None else b""
        if self._framing is BodyKind.CHUNKED:
            self._pass_on((b"%x\r\n%b\r\n" % (len(rest), rest) if rest else b"") + _LAST_CHUNK)
        elif rest:
            self._pass_on(rest)

    def break_off(self, error: UpstreamError) -> None:
        """The child's answer is not complete, and some of it is with the client.

        A stream that is at the end of an event gets an event that says so. Everything else is
        broken off in a way that cannot be taken for the end.
        """
        assert self.head is not None
        self.stays = False
        can_speak = self.head.event_stream and not self._torn and self._at_end_of_event()
        event = error_event(error)
        if can_speak and self._framing is BodyKind.CHUNKED:
            self._write(b"%x\r\n%b\r\n" % (len(event), event) + _LAST_CHUNK)
            self.stays = self._wants_to_stay
        elif can_speak and self._framing is BodyKind.UNTIL_CLOSE:
            self._write(event)
        else:
            self._abort()

    def _at_end_of_event(self) -> bool:
        if self._passage is not None and self._passage.open:
            self._last = self._passage.close()
        last = self._last
        if self._framing is BodyKind.CHUNKED:
            last = last.removesuffix(b"\r\n")
        return not last or last.endswith(_EVENT_ENDS)

    def _abort(self) -> None:
        if self._framing is BodyKind.UNTIL_CLOSE:
            # Here an ordinary end of the connection would mean the end of the body.
            handle = cast("socket.socket | None", self._transport.get_extra_info("socket"))
            if handle is not None:
                at_once = struct.pack("ii", 1, 0)
                handle.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
        self._transport.abort()

    def _write(self, data: bytes) -> bool:
        """Hand bytes to the client's connection; answers whether it has enough."""
        if self._unsent_head and data:
            data = self._unsent_head + data
            self._unsent_head = b""
        transport = self._transport
        if transport.is_closing():
            return True
        if data:
            self.sent += len(data)
            transport.write(data)
        return self._reader.writing_paused
