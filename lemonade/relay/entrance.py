"""Who may come in, and for what: everything that a request's head alone decides.

Clients send the same head again and again, so what was decided lately is remembered by its bytes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from lemonade.core.access import AccessKeys
from lemonade.core.errors import ForbiddenOrigin
from lemonade.core.inference import Operation
from lemonade.core.records import dataclass
from lemonade.dialects import INFERENCE_ROUTES
from lemonade.relay.reading import RequestHead, Verdict, read_head
from lemonade.relay.welcome import check_origin

PREFIXES: Final = ("/api/v0", "/api/v1", "/v0", "/v1")
"""Every OpenAI and Lemonade operation is served under all four, with no difference."""

MAX_BODY_BYTES: Final = 1 << 30
"""Bodies beyond this are refused with 413. Clients send images and audio of 100 MiB and more."""

_KNOWN: Final = 256
"""How many heads are remembered."""

_KNOWN_SIZE: Final = 2 * 1024
"""How long they may be."""

_ELSEWHERE: Final = frozenset({Operation.TOKENIZE, Operation.SLOTS})
"""Operations whose model may be named elsewhere than in the body."""

_PASSED: Final = (b"accept", b"user-agent", b"traceparent", b"tracestate")
"""Headers of the client that the engine may see."""

_VALUE: Final = re.compile(rb"[\t -~\x80-\xff]*\Z")
"""What a header's value may have for us to write it again."""

_ORIGIN_FIELDS: Final = (
    "Origin",
    "Access-Control-Request-Headers",
    "Access-Control-Request-Private-Network",
)
"""What is looked at of a page's request before it is let in."""

_TARGETS: Final[dict[bytes, Operation]] = {
    f"{prefix}{path}".encode(): operation
    for prefix in PREFIXES
    for operation, method, path in INFERENCE_ROUTES
    if method == "POST" and operation not in _ELSEWHERE
}


@dataclass(frozen=True, slots=True)
class Entry:
    """A head, and what follows from it.

    Attributes:
        head: as it was read.
        operation: `None` if the request is not for us to answer.
        lines: those headers that the engine gets, as whole lines.
        headers: what every answer to it gets, besides the request's id.
        answer_lines: the same as they are written.
        given_id: what the client calls its request; may be nothing we accept.
    """

    head: RequestHead
    operation: Operation | None = None
    lines: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    answer_lines: bytes = b""
    given_id: str = ""

    def again(self, request_id: str, body: bytes) -> bytes:
        """The same request, written anew for somebody else; it has a name now."""
        head = self.head
        fields = {**(head.fields or {}), b"x-request-id": request_id.encode()}
        lines = b"".join(b"%b: %b\r\n" % field for field in fields.items())
        return b"%b %b HTTP/1.1\r\n%b\r\n%b" % (head.method, head.target, lines, body)


class Entrance:
    """Reads heads. Immutable but for its memory; keys and origins are those of the start."""

    def __init__(self, access: AccessKeys) -> None:
        self._access = access
        self._known = lru_cache(maxsize=_KNOWN)(self._read)

    def read(self, block: bytes) -> Entry:
        """What follows from a head. Never raises."""
        return self._known(block) if len(block) <= _KNOWN_SIZE else self._read(block)

    def _read(self, block: bytes) -> Entry:
        head = read_head(block)
        fields = head.fields
        if head.verdict is not Verdict.OURS or fields is None:
            return Entry(head)
        operation = _TARGETS.get(head.target)
        if operation is None or head.length > MAX_BODY_BYTES:
            return Entry(head)
        headers = self._welcome(fields)
        if headers is None:
            return Entry(head)
        lines = [(name, fields[name]) for name in _PASSED if name in fields]
        if any(_VALUE.match(value) is None for _, value in lines):
            return Entry(head)
        if b"accept" not in fields:
            lines.append((b"accept", b"*/*"))
        written = "".join(f"{name}: {value}\r\n" for name, value in headers)
        return Entry(
            head,
            operation,
            b"".join(b"%b: %b\r\n" % line for line in lines),
            headers,
            written.encode("latin-1"),
            _text(fields.get(b"x-request-id", b"")),
        )

    def _welcome(self, fields: Mapping[bytes, bytes]) -> tuple[tuple[str, str], ...] | None:
        """What an answer has to say of access; `None` for whom only a refusal is left."""
        authorization = fields.get(b"authorization")
        given = None if authorization is None else _text(authorization)
        if not self._access.admits("regular", given):
            return None
        headers = [("Vary", "Origin")]
        named = {
            name: _text(fields[field])
            for name in _ORIGIN_FIELDS
            if (field := name.lower().encode()) in fields
        }
        try:
            check_origin(named, self._access, headers)
        except ForbiddenOrigin:
            return None
        return tuple(headers)


def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")
