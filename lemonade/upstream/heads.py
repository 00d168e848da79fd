"""The head of an answer as a client gets it: the child's, without what was for us only.

Pure. Which framing the client gets is decided here too, because the head has to say it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final, Self

import msgspec

from lemonade.core.errors import UpstreamError
from lemonade.upstream.framing import BodyKind, ResponseHead

_DROPPED: Final = frozenset(
    {
        b"connection",
        b"content-length",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-connection",
        b"server",
        b"te",
        b"transfer-encoding",
        b"upgrade",
    }
)
"""Hop-by-hop, or said anew below. `Server` would tell the world which engine this is."""

_STREAM_DROPPED: Final = _DROPPED | {b"cache-control", b"x-accel-buffering"}
_STREAM_HEADERS: Final = b"Cache-Control: no-cache\r\nX-Accel-Buffering: no\r\n"
_SHARED: Final = b"vary"
"""Both sides may say this; lists of it add up."""


class Extra(msgspec.Struct):
    """Fields that are added to a head, and replace those of the same names.

    Attributes:
        names: in lower case; not those whose lists add up.
        lines: as they are written.
    """

    names: frozenset[bytes] = frozenset()
    lines: bytes = b""

    @classmethod
    def of(cls, pairs: Sequence[tuple[str, str]]) -> Self:
        """From names and values."""
        names = {name.lower().encode("latin-1") for name, _ in pairs}
        lines = "".join(f"{name}: {value}\r\n" for name, value in pairs)
        return cls(frozenset(names - {_SHARED}), lines.encode("latin-1"))


_NOTHING: Final = Extra()


def client_framing(head: ResponseHead, *, modern: bool) -> BodyKind:
    """How the client is told where the body ends.

    Args:
        head: of the child's answer.
        modern: whether the client speaks HTTP/1.1. An older one knows no chunks.
    """
    if head.body is BodyKind.CHUNKED or head.body is BodyKind.UNTIL_CLOSE:
        return BodyKind.CHUNKED if modern else BodyKind.UNTIL_CLOSE
    return head.body


def compose_head(
    head: ResponseHead,
    framing: BodyKind,
    *,
    modern: bool,
    stays: bool,
    extra: Extra = _NOTHING,
) -> bytes:
    """The head for the client, up to its empty line.

    Args:
        head: of the child's answer.
        framing: as `client_framing` says.
        modern: whether the client speaks HTTP/1.1.
        stays: whether the connection can take another request.
        extra: fields that are added, and replace those of the same names.
    """
    key = modern, stays, extra.names
    known = head.composed.get(key)
    if known is None:
        known = head.composed[key] = _compose(
            head, framing, modern=modern, stays=stays, replaced=extra.names
        )
    return known + extra.lines + b"\r\n"


def compose_whole(head: ResponseHead, body: bytes, *, stays: bool, extra: Extra) -> bytes:
    """An answer that says its length, with its body, for a client that speaks HTTP/1.1."""
    return compose_head(head, BodyKind.LENGTH, modern=True, stays=stays, extra=extra) + body


def _compose(
    head: ResponseHead,
    framing: BodyKind,
    *,
    modern: bool,
    stays: bool,
    replaced: frozenset[bytes],
) -> bytes:
    """All but the added fields and the empty line."""
    is_stream = head.event_stream
    dropped = {*(_STREAM_DROPPED if is_stream else _DROPPED), *replaced}
    parts = [b"HTTP/1.1 %d %b\r\n" % (head.status, head.reason)]
    for name, value in head.headers:
        lowered = name.lower()
        if lowered == b"connection":
            dropped.update(word.strip().lower() for word in value.split(b","))
    for name, value in head.headers:
        lowered = name.lower()
        if lowered in dropped or lowered[:15] == b"access-control-":
            continue
        parts.append(b"%b: %b\r\n" % (name, value))
    if framing is BodyKind.CHUNKED:
        parts.append(b"Transfer-Encoding: chunked\r\n")
    elif framing is BodyKind.LENGTH:
        parts.append(b"Content-Length: %d\r\n" % head.length)
    elif framing is BodyKind.NONE and head.status >= 200 and head.status != 204:
        # The answer to HEAD, or 304: the length is that of the body there would have been.
        length = head.get(b"content-length")
        parts.append(b"Content-Length: %b\r\n" % length if length else b"")
    if not stays:
        parts.append(b"Connection: close\r\n")
    elif not modern:
        parts.append(b"Connection: keep-alive\r\n")
    if is_stream:
        parts.append(_STREAM_HEADERS)
    return b"".join(parts)


def error_event(error: UpstreamError) -> bytes:
    """The event a broken stream ends with. No `[DONE]` follows it."""
    inner: dict[str, object] = {
        "message": str(error),
        "type": "backend_error",
        "code": error.code.replace("-", "_"),
    }
    for fact in ("how", "incident"):
        if fact in error.facts:
            inner[fact] = error.facts[fact]
    return b"data: " + json.dumps({"error": inner}).encode() + b"\n\n"
