"""Where a request begins and ends, and whether that is all there is to know about it. Sans I/O.

Strict where framing is concerned: a request that another reader, behind us, could take for two, or
for one with another body, is refused. Everything else that is unusual is not judged here but
handed over.

Source: RFC 9112, sections 2.2, 3, 5, 6 and 11.2.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from enum import Enum
from typing import Final

from lemonade.core.records import dataclass

HEAD_LIMIT: Final = 64 * 1024
"""How long a head may be."""

_USUAL_SIZE: Final = 8 * 1000
_USUAL_FIELDS: Final = 100
"""Whether a larger head is still welcome is not judged here."""

_TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_LINE: Final = re.compile(rb"(" + _TOKEN + rb") ([!-~\x80-\xff]+) HTTP/1\.([01])\r\n")
_FIELD: Final = re.compile(rb"(" + _TOKEN + rb"):([\t -~\x80-\xff]*)\r\n")
"""Blanks around a value are taken off afterwards: a pattern that does it can take hours."""

_METHOD_LIMIT: Final = 20
_BEGINNING: Final = re.compile(rb"(?:" + _TOKEN + rb")?(?: |\Z)|\r\Z")
_LINE_ENDS: Final = re.compile(rb"(?:\r\n)*")
_DIGITS: Final = re.compile(rb"[0-9]{1,15}\Z")
_SINGLE: Final = frozenset({b"content-length", b"transfer-encoding", b"host"})
"""Fields that mean something else the second time."""

_UNUSUAL: Final = frozenset({b"content-encoding", b"expect"})
"""Fields with which a body is not what it seems, or not there yet."""


class Verdict(Enum):
    """What is to be done with a request."""

    OURS = "ours"
    """A POST with a length: its body says the rest."""

    LEND = "lend"
    """Somebody else's, and its end is known."""

    GIVE = "give"
    """Somebody else's, and so is the connection from now on."""

    REFUSE = "refuse"
    """Nobody's: it could be understood in two ways."""


@dataclass(frozen=True, slots=True)
class RequestHead:
    """The head of a request.

    Attributes:
        verdict: what is to be done with it.
        method: as it was written.
        target: likewise.
        length: bytes of the body that follows, unless the verdict is `GIVE` or `REFUSE`.
        stays: whether the client keeps the connection.
        fields: by name in lower case; of several of a name the last.
        refusal: why it is refused, and what to do about it.
    """

    verdict: Verdict
    method: bytes = b""
    target: bytes = b""
    length: int = 0
    stays: bool = True
    fields: Mapping[bytes, bytes] | None = None
    refusal: str = ""


NO_REQUEST: Final = RequestHead(
    Verdict.REFUSE, refusal="This is no HTTP request. Speak HTTP/1.1, without TLS."
)
"""What cannot even begin one; see `may_begin`."""


def skip_line_ends(data: bytes) -> bytes:
    """What is left without those before a request: some clients end a body with one too many."""
    found = _LINE_ENDS.match(data)
    assert found is not None
    return data[found.end() :]


def may_begin(data: bytes) -> bool:
    """Whether a request could begin like that; an empty beginning can."""
    return _BEGINNING.match(data[:_METHOD_LIMIT]) is not None


def read_head(block: bytes) -> RequestHead:
    """Read a head, from the request line to the empty line, both included. Never raises."""
    line = _LINE.match(block)
    if line is None:
        # It may be another version, or nearly HTTP; whoever gets it can only refuse it.
        return RequestHead(Verdict.GIVE) if may_begin(block) else NO_REQUEST
    method, target, modern = line[1], line[2], line[3] == b"1"
    fields: dict[bytes, bytes] = {}
    repeated = False
    position, end = line.end(), len(block) - 2
    while position < end:
        field = _FIELD.match(block, position)
        if field is None:
            return _refuse("A header line of the request is malformed.")
        position = field.end()
        name, value = field[1].lower(), field[2].strip(b" \t")
        if name in fields:
            if name in _SINGLE and fields[name] != value:
                return _refuse(f"The request has more than one {name.decode()}.")
            if name == b"connection":
                fields[name] += b"," + value
                continue
            repeated = True
        fields[name] = value
    head = _judge(method, target, fields, modern=modern)
    unusual = repeated or len(block) > _USUAL_SIZE or len(fields) > _USUAL_FIELDS
    if unusual and head.verdict is Verdict.OURS:
        return replace(head, verdict=Verdict.LEND)
    return head


def _judge(
    method: bytes, target: bytes, fields: dict[bytes, bytes], *, modern: bool
) -> RequestHead:
    coding, said = fields.get(b"transfer-encoding"), fields.get(b"content-length")
    if coding is not None:
        if said is not None:
            return _refuse("The request has both a Content-Length and a Transfer-Encoding.")
        if not modern or coding.lower() != b"chunked":
            return _refuse("The request has a Transfer-Encoding that is not just 'chunked'.")
    if said is not None and _DIGITS.match(said) is None:
        return _refuse("The request's Content-Length is not a number.")
    length = int(said) if said else 0
    words = [word.strip() for word in fields.get(b"connection", b"").lower().split(b",")]
    stays = b"close" not in words if modern else b"keep-alive" in words
    if coding is not None or b"upgrade" in fields or method == b"CONNECT":
        return RequestHead(Verdict.GIVE)
    ours = method == b"POST" and modern and said is not None and b"host" in fields
    ours = ours and fields.keys().isdisjoint(_UNUSUAL)
    verdict = Verdict.OURS if ours else Verdict.LEND
    return RequestHead(verdict, method, target, length, stays, fields)


def _refuse(why: str) -> RequestHead:
    why = f"{why} Send each request with one length, as HTTP has it."
    return RequestHead(Verdict.REFUSE, refusal=why)
