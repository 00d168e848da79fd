"""The head of an answer as a client gets it: the child's, without what was for us only.

Pure. Which framing the client gets is decided here too, because the head has to say it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

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


def is_event_stream(head: ResponseHead) -> bool:
    """Whether the body is a stream of server-sent events."""
    return head.get(b"content-type")[:17].lower() == b"text/event-stream"


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
    extra: Sequence[tuple[str, str]] = (),
) -> bytes:
    """The head for the client, up to its empty line.

    Args:
        head: of the child's answer.
        framing: as `client_framing` says.
        modern: whether the client speaks HTTP/1.1.
        stays: whether the connection can take another request.
        extra: fields that are added, and replace those of the same names.
    """
    is_stream = is_event_stream(head)
    dropped = _STREAM_DROPPED if is_stream else _DROPPED
    replaced = {name.lower().encode("latin-1") for name, _ in extra}
    replaced.discard(_SHARED)
    parts = [b"HTTP/1.1 %d %b\r\n" % (head.status, head.reason)]
    for name, value in head.headers:
        lowered = name.lower()
        if lowered == b"connection":
            replaced.update(word.strip().lower() for word in value.split(b","))
    for name, value in head.headers:
        lowered = name.lower()
        if lowered in dropped or lowered in replaced or lowered[:15] == b"access-control-":
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
    for extra_name, extra_value in extra:
        parts.append(f"{extra_name}: {extra_value}\r\n".encode("latin-1"))
    parts.append(b"\r\n")
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
