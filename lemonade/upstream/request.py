"""What is asked of a child, and how it is written on the wire.

A child gets few headers: those it needs to understand the body, and those that let its log be read
together with ours. The client's credentials, cookies and wishes about encodings stay here, whoever
makes the request: what is not on the list is not written.
"""

from __future__ import annotations

import re
from typing import Final

from lemonade.core.errors import MalformedRequest
from lemonade.core.records import dataclass

PASSED: Final = frozenset(
    {"accept", "content-type", "traceparent", "tracestate", "user-agent", "x-request-id"}
)
"""Headers a child may see, in lower case."""

_LINE: Final = re.compile(r"[A-Z]{1,20} /[!-~]*\Z")
_VALUE: Final = re.compile(r"[\t -~\x80-\ud7ff\udc80-\udcff\ue000-\U0010ffff]*\Z")
"""Text, and bytes that are none in the way Python keeps them."""


@dataclass(frozen=True, slots=True)
class UpstreamRequest:
    """A request to a child.

    Attributes:
        method: in capitals.
        path: absolute, with its query, percent-encoded.
        body: as the child shall get it.
        headers: of the client or ours; only those in `PASSED` are sent, in the bytes they came
            in. A body without a Content-Type is said to be JSON.
        patience: how many seconds the child may be silent before the request counts as failed;
            `None` is without limit.
    """

    method: str
    path: str
    body: bytes | memoryview = b""
    headers: tuple[tuple[str, str], ...] = ()
    patience: float | None = None


def render_request(request: UpstreamRequest, host: str, api_key: str) -> bytes:
    """The head of the request, up to its empty line.

    Args:
        request: to be sent.
        host: for the Host header.
        api_key: the child's own; empty if it has none.

    Raises:
        MalformedRequest: the path or a header value cannot be written in a request.
    """
    line = f"{request.method} {request.path}"
    if not _LINE.match(line):
        raise MalformedRequest("The path has characters that cannot stand in a request.")
    fields = {"accept": "*/*"}
    if request.body or request.method == "POST":
        fields["content-type"] = "application/json"
    for name, value in request.headers:
        lowered = name.lower()
        if lowered in PASSED:
            if not _VALUE.match(value):
                raise MalformedRequest(f"The header {name} has characters it cannot have.")
            fields[lowered] = value
    text = f"{line} HTTP/1.1\r\nhost: {host}\r\n"
    for lowered, value in fields.items():
        text += f"{lowered}: {value}\r\n"
    if request.body or request.method not in {"GET", "HEAD"}:
        text += f"content-length: {len(request.body)}\r\n"
    if api_key:
        text += f"authorization: Bearer {api_key}\r\n"
    return text.encode("utf-8", "surrogateescape") + b"\r\n"


def render_relayed(path: str, lines: bytes, host: str, api_key: str) -> bytes:
    """The head of a request to be relayed, but for its last lines; see `finish_relayed`.

    Args:
        path: absolute.
        lines: whole lines of those headers of the client that a child may see.
        host: for the Host header.
        api_key: the child's own; empty if it has none.
    """
    secret = f"authorization: Bearer {api_key}\r\n" if api_key else ""
    beginning = f"POST {path} HTTP/1.1\r\nhost: {host}\r\n{secret}"
    return beginning.encode() + b"content-type: application/json\r\n" + lines


def finish_relayed(beginning: bytes, request_id: str, length: int) -> bytes:
    """The whole head: what differs between requests that are otherwise alike comes last."""
    return b"%bx-request-id: %b\r\ncontent-length: %d\r\n\r\n" % (
        beginning,
        request_id.encode(),
        length,
    )
