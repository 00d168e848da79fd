"""Where an HTTP/1 answer begins and ends, sans I/O.

Reads the head of a child's answer and walks its body to find the exact end, without looking at
what the body says and without copying it. It is strict: whatever two readers could understand in
two ways is `GarbledAnswer`, because the bytes are passed on as they are.

Source: RFC 9112, sections 4, 5, 6 and 7.1.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import field
from enum import Enum
from functools import lru_cache
from typing import Final, TypeAlias

from lemonade.core.errors import GarbledAnswer
from lemonade.core.records import dataclass

HEAD_LIMIT: Final = 64 * 1024
TRAILER_LIMIT: Final = 16 * 1024
_SIZE_LINE_LIMIT: Final = 4 * 1024

_KNOWN_SIZE: Final = 2 * 1024
"""How long a head may be to be remembered."""

_CR: Final = 0x0D
_LF: Final = 0x0A
_TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: ([^\r\n\0]*))?\r\n")
_FIELD: Final = re.compile(rb"(" + _TOKEN + rb"):([^\r\n\0]*)\r\n")
"""Blanks around a value are taken off afterwards: a pattern that does it can take hours."""

_SIZE_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n\0]*)?\r\n")
_SIZE_LINE_BEGINNING: Final = re.compile(rb"[0-9A-Fa-f]{0,15}[ \t]*(?:;[^\r\n\0]*)?\r?")
_TRAILERS: Final = re.compile(rb"(?:" + _TOKEN + rb":[^\r\n\0]*\r\n)*\r\n")

ONE_CHUNK: Final[dict[bytes, int]] = {}
"""How long a block is that is one whole chunk, by its first bytes, the size line among them.
Kept by `ChunkedBody`; whoever finds the length of a block in it, and a line end at its end, need
not read the size line again."""

KEY: Final = 5
"""How many bytes those are: three digits, the line end."""

_SHORTEST: Final = 64
_LONGEST: Final = 1024
_KNOWN_CHUNKS: Final = 4096

Header: TypeAlias = tuple[bytes, bytes]
"""A field: its name as the child wrote it, its value without surrounding blanks."""


class BodyKind(Enum):
    """How the end of a body is told."""

    NONE = "none"
    LENGTH = "length"
    CHUNKED = "chunked"
    UNTIL_CLOSE = "until-close"


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """The head of an answer.

    Attributes:
        minor: the digit after `HTTP/1.`.
        status: 100 to 999.
        reason: may be empty.
        headers: in the order they came.
        body: how the body's end is told.
        length: bytes of the body; 0 unless `body` is `LENGTH`.
        keep_alive: whether the child will take another request on the connection.
        event_stream: whether the body is a stream of server-sent events.
        composed: heads for clients that were made of it; see `compose_head`.
    """

    minor: int
    status: int
    reason: bytes
    headers: tuple[Header, ...]
    body: BodyKind
    length: int
    keep_alive: bool
    event_stream: bool = False
    composed: dict[object, bytes] = field(default_factory=dict, compare=False, repr=False)

    def get(self, name: bytes) -> bytes:
        """The value of the first field of that (lower-case) name, or nothing."""
        for known, value in self.headers:
            if known.lower() == name:
                return value
        return b""


def parse_head(block: bytes, method: str) -> ResponseHead:
    """Read a head. An engine's are much alike, and those read lately are known.

    Args:
        block: from the status line to the empty line, both included.
        method: of the request it answers; the answer to `HEAD` has no body.

    Raises:
        GarbledAnswer: it is not HTTP/1, or says two things about its length.
    """
    return (_parse_known if len(block) <= _KNOWN_SIZE else _parse)(block, method)


def _parse(block: bytes, method: str) -> ResponseHead:
    line = _STATUS_LINE.match(block)
    if line is None:
        raise GarbledAnswer("The engine's answer does not begin with an HTTP status line.")
    minor, status, reason = int(line[1]), int(line[2]), line[3] or b""
    headers: list[Header] = []
    lengths: list[bytes] = []
    codings: list[bytes] = []
    connection: list[bytes] = []
    content_type = b""
    position, end = line.end(), len(block) - 2
    while position < end:
        line = _FIELD.match(block, position)
        if line is None:
            raise GarbledAnswer("The engine's answer has a malformed header line.")
        position = line.end()
        name, value = line[1], line[2].strip(b" \t")
        headers.append((name, value))
        lowered = name.lower()
        if lowered == b"content-length":
            lengths.append(value)
        elif lowered == b"transfer-encoding":
            codings.append(value)
        elif lowered == b"connection":
            connection.extend(word.strip() for word in value.lower().split(b","))
        elif lowered == b"content-type":
            content_type = content_type or value
    kind, length = _framing(status, method, minor, lengths, codings)
    keep_alive = b"close" not in connection if minor else b"keep-alive" in connection
    return ResponseHead(
        minor=minor,
        status=status,
        reason=reason,
        headers=tuple(headers),
        body=kind,
        length=length,
        keep_alive=keep_alive and kind is not BodyKind.UNTIL_CLOSE,
        event_stream=content_type[:17].lower() == b"text/event-stream",
    )


_parse_known = lru_cache(maxsize=256)(_parse)


def _framing(
    status: int, method: str, minor: int, lengths: list[bytes], codings: list[bytes]
) -> tuple[BodyKind, int]:
    """How the body's end is told, and its length if that is how."""
    if codings and lengths:
        raise GarbledAnswer("The engine's answer has both a Content-Length and chunks.")
    if codings and (not minor or len(codings) != 1 or codings[0].lower() != b"chunked"):
        raise GarbledAnswer("The engine's answer has a transfer encoding nobody asked for.")
    if len(set(lengths)) > 1 or (
        lengths and not (lengths[0].isdigit() and len(lengths[0]) <= len("999999999999999"))
    ):
        raise GarbledAnswer("The engine's answer has an unreadable Content-Length.")
    if status < 200 or status in {204, 304} or method == "HEAD":
        return BodyKind.NONE, 0
    if codings:
        return BodyKind.CHUNKED, 0
    if lengths:
        return BodyKind.LENGTH, int(lengths[0])
    return BodyKind.UNTIL_CLOSE, 0


class BodyWalker(ABC):
    """Follows one body through blocks of any size.

    Attributes:
        done: whether the body is complete; nothing may be fed afterwards.
        used: how many bytes of the block last fed belong to the body, framing included. Less than
            the whole block only if the body ended in it.
    """

    __slots__ = ("_pieces", "done", "used")

    def __init__(self, *, collect: bool = False) -> None:
        self.done = False
        self.used = 0
        self._pieces: list[bytes] | None = [] if collect else None

    @abstractmethod
    def feed(self, block: bytes) -> int:
        """Walk over the next block.

        Returns:
            How many of its bytes, counted from its start, may be passed on at a point where the
            framing allows something to be inserted: the end of the last whole chunk, 0 if no chunk
            ends here. For bodies without chunks every byte counts.

        Raises:
            GarbledAnswer: the framing is malformed.
        """

    @property
    def ends_with_connection(self) -> bool:
        """Whether the body would be complete if the connection ended now."""
        return self.done

    def payload(self) -> bytes:
        """What the body says, framing removed, since the last call. Only if told to `collect`."""
        pieces = self._pieces
        if not pieces:
            return b""
        joined = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        return joined


class LengthBody(BodyWalker):
    """A body of known length; of length 0 if there is none."""

    __slots__ = ("_left",)

    def __init__(self, length: int, *, collect: bool = False) -> None:
        super().__init__(collect=collect)
        self._left = length
        self.done = length == 0

    def feed(self, block: bytes) -> int:
        """As promised by the base class."""
        used = min(len(block), self._left)
        self._left -= used
        self.used = used
        self.done = self._left == 0
        if self._pieces is not None:
            self._pieces.append(block[:used])
        return used


class UnboundedBody(BodyWalker):
    """A body that ends with its connection."""

    __slots__ = ()

    def feed(self, block: bytes) -> int:
        """As promised by the base class."""
        self.used = len(block)
        if self._pieces is not None:
            self._pieces.append(block)
        return self.used

    @property
    def ends_with_connection(self) -> bool:
        """Always."""
        return True


class ChunkedBody(BodyWalker):
    """Chunks with extensions, then trailers. Both are walked over and otherwise ignored."""

    __slots__ = ("_in_trailers", "_left", "_line")

    def __init__(self, *, collect: bool = False) -> None:
        super().__init__(collect=collect)
        self._left = 0
        """Bytes to go in the current chunk, its final CRLF included; 0 between chunks."""
        self._line = b""
        """The beginning of a size line, or of the trailers, that came in an earlier block."""
        self._in_trailers = False

    def feed(self, block: bytes) -> int:
        """As promised by the base class."""
        size = len(block)
        self.used = size
        if self._pieces is None and not (self._left or self._line or self._in_trailers):
            # Nearly every block is one whole chunk.
            only = _SIZE_LINE.match(block)
            if only is not None and block[-2:] == b"\r\n":
                length = int(only[1], 16)
                if length and only.end() + length + 2 == size:
                    fits = only.end() <= KEY and _SHORTEST <= size <= _LONGEST
                    if fits and len(ONE_CHUNK) < _KNOWN_CHUNKS:
                        ONE_CHUNK[block[:KEY]] = size
                    return size
        position = whole = 0
        while position < size:
            if self._left:
                if size - position < self._left:
                    self._walk_part(block, position)
                    return whole
                position = whole = self._walk_rest(block, position)
            elif self._in_trailers or self._line:
                position = self._walk_torn(block, position)
                if self.done:
                    self.used = position
                    return position
            else:
                line = _SIZE_LINE.match(block, position)
                if line is None:
                    position = self._walk_torn(block, position)
                else:
                    position = line.end()
                    last = self._begin_chunk(line[1])
                    if last and block[position : position + 2] == b"\r\n":
                        self.done = True  # as nearly every body ends
                        self.used = position + 2
                        return self.used
        return whole

    def _begin_chunk(self, digits: bytes) -> bool:
        """Whether it is the empty one, after which nothing but trailers comes."""
        length = int(digits, 16)
        if length:
            self._left = length + 2
        else:
            self._in_trailers = True
        return not length

    def _walk_part(self, block: bytes, position: int) -> None:
        """The rest of the block lies inside the current chunk."""
        left = self._left
        self._left = left - (len(block) - position)
        if self._left == 1 and block[-1] != _CR:
            raise GarbledAnswer("A chunk of the engine's answer is longer than it says.")
        if self._pieces is not None and left > 2:
            self._pieces.append(block[position : position + left - 2])

    def _walk_rest(self, block: bytes, position: int) -> int:
        """The current chunk ends in this block."""
        end = position + self._left
        if block[end - 1] != _LF or (self._left > 1 and block[end - 2] != _CR):
            raise GarbledAnswer("A chunk of the engine's answer is longer than it says.")
        if self._pieces is not None and self._left > 2:
            self._pieces.append(block[position : end - 2])
        self._left = 0
        return end

    def _walk_torn(self, block: bytes, position: int) -> int:
        """A size line that is not whole in this block, or the trailers."""
        before = len(self._line)
        text = self._line + block[position:]
        if self._in_trailers:
            match = _TRAILERS.match(text)
            limit, beginning = TRAILER_LIMIT, _may_begin_trailers(text)
        else:
            match = _SIZE_LINE.match(text)
            limit = _SIZE_LINE_LIMIT
            beginning = match is not None or _SIZE_LINE_BEGINNING.fullmatch(text) is not None
        if match is None:
            if not beginning or len(text) > limit:
                raise GarbledAnswer("The chunks of the engine's answer are malformed.")
            self._line = text
            return len(block)
        self._line = b""
        if self._in_trailers:
            self.done = True
        else:
            self._begin_chunk(match[1])
        return position + match.end() - before


def _may_begin_trailers(text: bytes) -> bool:
    """Whether trailers that are not whole yet could still become well-formed."""
    *lines, last = text.split(b"\r\n")
    if b"\n" in last or b"\0" in last:
        return False
    return all(_FIELD.fullmatch(line + b"\r\n") is not None for line in lines)


def walker_for(head: ResponseHead, *, collect: bool = False) -> BodyWalker:
    """The walker for the body that follows this head.

    Args:
        head: of the answer.
        collect: keep what the body says, for `payload`.
    """
    if head.body is BodyKind.CHUNKED:
        return ChunkedBody(collect=collect)
    if head.body is BodyKind.UNTIL_CLOSE:
        return UnboundedBody(collect=collect)
    return LengthBody(head.length, collect=collect)
