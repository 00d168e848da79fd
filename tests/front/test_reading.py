"""Heads of requests: what is taken as ours has one meaning, and whatever has two is nobody's.

The judge is a second reader, written here as plainly as possible: it goes by lines and knows no
patterns. Of a head that it cannot read with certainty it says nothing, and such a head may then be
refused or handed over, but not relayed.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lemonade.relay import Verdict, read_head
from lemonade.relay.reading import may_begin

_NAME = frozenset(b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_DIGITS = frozenset(b"0123456789")


@dataclass
class Plain:
    """What the second reader understood."""

    method: bytes
    target: bytes
    version: bytes
    pairs: list[tuple[bytes, bytes]]

    def values(self, name: bytes) -> list[bytes]:
        return [value for known, value in self.pairs if known == name]


def plainly(block: bytes) -> Plain | None:
    """A head without anything to argue about, or `None`."""
    if not block.endswith(b"\r\n\r\n"):
        return None
    first, *lines = block[:-4].split(b"\r\n")
    if any(byte < 32 or byte == 127 for byte in first):
        return None
    words = first.split(b" ")
    if len(words) != 3 or not all(words) or not set(words[0]) <= _NAME:
        return None
    pairs = []
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon or not name or not set(name) <= _NAME:
            return None
        if any((byte < 32 and byte != 9) or byte == 127 for byte in value):
            return None
        pairs.append((name.lower(), value.strip(b" \t")))
    return Plain(words[0], words[1], words[2], pairs)


def check(block: bytes) -> Verdict:
    """Whatever is said of a head agrees with the second reader."""
    head = read_head(block)
    plain = plainly(block)
    if head.verdict in (Verdict.OURS, Verdict.LEND):
        # The end of the body is counted by us, so there has to be one way to count.
        assert plain is not None
        assert not plain.values(b"transfer-encoding")
        lengths = plain.values(b"content-length")
        assert len(set(lengths)) <= 1
        assert all(set(length) <= _DIGITS and length for length in lengths)
        assert head.length == (int(lengths[0]) if lengths else 0)
        assert (head.method, head.target) == (plain.method, plain.target)
        words = b",".join(plain.values(b"connection")).lower().split(b",")
        named = {word.strip(b" \t") for word in words}
        if plain.version == b"HTTP/1.1":
            assert head.stays == (b"close" not in named)
        else:
            assert plain.version == b"HTTP/1.0"
            assert head.stays == (b"keep-alive" in named)
    if head.verdict is Verdict.OURS:
        assert plain is not None
        assert plain.method == b"POST"
        assert plain.version == b"HTTP/1.1"
        names = [name for name, _ in plain.pairs if name != b"connection"]
        assert len(names) == len(set(names))
        assert names.count(b"content-length") == 1
        assert not {b"expect", b"upgrade", b"content-encoding"} & set(names)
        assert head.fields is not None
        said = {name: value for name, value in head.fields.items() if name != b"connection"}
        assert said == {name: value for name, value in plain.pairs if name != b"connection"}
    if head.verdict is Verdict.REFUSE:
        assert head.refusal.endswith(".")
    return head.verdict


def ask(*fields: bytes, line: bytes = b"POST /v1/chat/completions HTTP/1.1") -> bytes:
    return b"\r\n".join((line, b"Host: x", *fields, b"", b""))


PLAIN = ask(b"Content-Length: 60")

OURS = {
    "plain": PLAIN,
    "another case": ask(b"CONTENT-length:60"),
    "blanks": ask(b"Content-Length: \t 60 \t"),
    "leading zeros": ask(b"Content-Length: 0060"),
    "nothing": ask(b"Content-Length: 0"),
    "an empty value": ask(b"Content-Length: 60", b"X-A:"),
    "any bytes in a value": ask(b"Content-Length: 60", b"X-A: \xff\xe2\x98\x83"),
    "two connections": ask(b"Content-Length: 60", b"Connection: a", b"Connection: b"),
}

AMBIGUOUS = {
    "length and chunks": (b"Content-Length: 60", b"Transfer-Encoding: chunked"),
    "chunks and length": (b"Transfer-Encoding: chunked", b"Content-Length: 60"),
    "two lengths": (b"Content-Length: 60", b"Content-Length: 61"),
    "a list of lengths": (b"Content-Length: 60, 60",),
    "a plus": (b"Content-Length: +60",),
    "a minus": (b"Content-Length: -60",),
    "hexadecimal": (b"Content-Length: 0x3c",),
    "underlines": (b"Content-Length: 6_0",),
    "a fraction": (b"Content-Length: 60.0",),
    "a blank length": (b"Content-Length: ",),
    "a length in two parts": (b"Content-Length: 6 0",),
    "other digits": ("Content-Length: ٦٠".encode(),),
    "an endless length": (b"Content-Length: " + b"9" * 40,),
    "chunks in a list": (b"Transfer-Encoding: gzip, chunked",),
    "chunks not last": (b"Transfer-Encoding: chunked, identity",),
    "chunks in two fields": (b"Transfer-Encoding: gzip", b"Transfer-Encoding: chunked"),
    "identity": (b"Transfer-Encoding: identity",),
    "no coding at all": (b"Transfer-Encoding:",),
    "something like chunks": (b"Transfer-Encoding: xchunked",),
    "chunks with something": (b"Transfer-Encoding: chunked;a=b",),
    "chunks behind a vertical tab": (b"Transfer-Encoding: \x0bchunked",),
    "a blank before the colon": (b"Content-Length : 60",),
    "a tab before the colon": (b"Content-Length\t: 60",),
    "a blank before the name": (b"X-A: b", b" Content-Length: 60"),
    "a folded line": (b"Content-Length: 60", b"X-A: b", b"\tc"),
    "a folded length": (b"Content-Length:", b" 60"),
    "a bare line feed": (b"Content-Length: 60", b"X-A: b\nContent-Length: 3"),
    "a bare carriage return": (b"Content-Length: 60", b"X-A: b\rContent-Length: 3"),
    "a carriage return at the end": (b"Content-Length: 60\r", b"X-A: b"),
    "a null": (b"Content-Length: 60", b"X-A: \0"),
    "a null in the length": (b"Content-Length: 60\0",),
    "a control character": (b"Content-Length: 60", b"X-A: \x01"),
    "a deleted character": (b"Content-Length: 60", b"X-A: \x7f"),
    "no name": (b"Content-Length: 60", b": b"),
    "no colon": (b"Content-Length: 60", b"X-A"),
    "two hosts": (b"Content-Length: 60", b"Host: y"),
}


@pytest.mark.parametrize("block", OURS.values(), ids=OURS.keys())
def test_what_is_plain_is_ours(block: bytes) -> None:
    assert check(block) is Verdict.OURS


@pytest.mark.parametrize("fields", AMBIGUOUS.values(), ids=AMBIGUOUS.keys())
def test_what_has_two_meanings_is_refused(fields: tuple[bytes, ...]) -> None:
    assert check(ask(*fields)) is Verdict.REFUSE


@pytest.mark.parametrize(
    "line",
    [
        b"POST  /v1/x HTTP/1.1",
        b"POST /v1/x  HTTP/1.1",
        b"POST /v1/x HTTP/1.1 ",
        b" POST /v1/x HTTP/1.1",
        b"POST /v1/x y HTTP/1.1",
        b"POST /v1/x HTTP/1.2",
        b"POST /v1/x HTTP/2.0",
        b"POST /v1/x http/1.1",
        b"POST /v1/x HTTP/1.1\n",
        b"POST /v1/x HTTP/01.1",
        b"POST /v1/x",
        b"POST /v1/\0 HTTP/1.1",
    ],
)
def test_a_line_that_is_not_read_leaves_the_connection_to_somebody_else(line: bytes) -> None:
    assert check(ask(b"Content-Length: 60", line=line)) is Verdict.GIVE


@pytest.mark.parametrize(
    "line", [b"POST\t/v1/x HTTP/1.1", b"P@ST /v1/x HTTP/1.1", b"", b"\x16\x03"]
)
def test_what_is_no_request_is_refused_however_much_of_it_came(line: bytes) -> None:
    block = ask(b"Content-Length: 60", line=line)
    assert check(block) is Verdict.REFUSE
    assert not all(may_begin(block[:size]) for size in range(len(block)))


@pytest.mark.parametrize(
    ("block", "verdict"),
    [
        (ask(b"Content-Length: 60", b"Content-Length: 60"), Verdict.LEND),
        (ask(b"Content-Length: 60", b"X-A: b", b"x-a: b"), Verdict.LEND),
        (ask(b"Content-Length: 60", b"Expect: 100-continue"), Verdict.LEND),
        (ask(b"Content-Length: 60", b"Content-Encoding: gzip"), Verdict.LEND),
        (ask(b"Content-Length: 60", line=b"POST /v1/x HTTP/1.0"), Verdict.LEND),
        (ask(b"Content-Length: 60", line=b"post /v1/x HTTP/1.1"), Verdict.LEND),
        (ask(b"Content-Length: 60", line=b"GET /v1/x HTTP/1.1"), Verdict.LEND),
        (ask(b"Content-Length: 60", b"X-A: " + b"a" * 9000), Verdict.LEND),
        (ask(b"Content-Length: 60", *(b"X-%d: a" % n for n in range(130))), Verdict.LEND),
        (ask(), Verdict.LEND),
        (b"POST /v1/x HTTP/1.1\r\nContent-Length: 1\r\n\r\n", Verdict.LEND),
        (ask(b"Transfer-Encoding: chunked"), Verdict.GIVE),
        (ask(b"Content-Length: 60", b"Upgrade: websocket"), Verdict.GIVE),
        (ask(b"Content-Length: 60", line=b"CONNECT x:1 HTTP/1.1"), Verdict.GIVE),
    ],
)
def test_what_is_unusual_is_handed_over(block: bytes, verdict: Verdict) -> None:
    assert check(block) is verdict


@pytest.mark.parametrize("end", [b"", b"\0", b"a\0", b"\x01a"])
def test_no_head_takes_long_to_read(end: bytes) -> None:
    """Read by a pattern with a choice this took hours, while nobody else was served."""
    verdict = check(ask(b"Content-Length: 60", b"X-A:" + b" \t" * 30_000 + end))
    assert verdict is (Verdict.REFUSE if end else Verdict.LEND)


@given(st.binary(max_size=300))
def test_any_bytes_are_judged(block: bytes) -> None:
    check(block)
    check(block + b"\r\n\r\n")


_PIECES = [
    b"POST ", b"GET ", b"/v1/chat/completions", b" HTTP/1.1", b" HTTP/1.0", b"\r\n", b"\r", b"\n",
    b"Content-Length", b"content-length", b"Transfer-Encoding", b"Connection", b"Host", b"Expect",
    b"Upgrade", b"X-A", b":", b": ", b" : ", b"\t", b" ", b"60", b"+60", b"0x3c", b"6", b"0", b",",
    b"chunked", b"identity", b"close", b"keep-alive", b"\0", b"\x0b", b"\x7f", b"\xff", b";", b"",
]  # fmt: skip


@given(st.lists(st.sampled_from(_PIECES), max_size=24))
def test_heads_of_the_right_pieces_in_any_order_are_judged(pieces: list[bytes]) -> None:
    check(b"".join(pieces) + b"\r\n\r\n")
    check(b"POST /v1/chat/completions HTTP/1.1\r\n" + b"".join(pieces) + b"\r\n\r\n")
    check(PLAIN[:-2] + b"".join(pieces) + b"\r\n\r\n")


_FIELD = st.tuples(
    st.sampled_from(
        [b"Content-Length", b"content-length", b"Transfer-Encoding", b"Connection", b"Host",
         b"Expect", b"Upgrade", b"Accept", b"User-Agent", b"X-Request-Id"]
    ),
    st.sampled_from(
        [b"60", b"61", b"060", b"6", b"", b"chunked", b"CHUNKED", b"close", b"keep-alive, close",
         b"keep-alive", b"x", b" x ", b"100-continue", b"60\t", b"\t60", b"60,60"]
    ),
)  # fmt: skip


@given(
    st.sampled_from([b"POST", b"GET", b"CONNECT"]),
    st.sampled_from([b"HTTP/1.1", b"HTTP/1.0"]),
    st.lists(_FIELD, max_size=6),
)
def test_well_formed_fields_in_any_number_are_judged(
    method: bytes, version: bytes, fields: list[tuple[bytes, bytes]]
) -> None:
    lines = [b"%b:%b" % field for field in fields]
    check(b"\r\n".join((b"%b /v1/x %b" % (method, version), *lines, b"", b"")))


def test_no_slip_of_a_single_byte_gives_a_head_two_meanings() -> None:
    """Every byte of a head replaced, left out and doubled, by all bytes that matter to readers."""
    heads = [PLAIN, ask(b"Connection: close", b"Content-Length: 7"), ask(b"X-A: b")]
    seen = set()
    for head in heads:
        for at in range(len(head) - 2):
            for byte in (b"", b"\r", b"\n", b"\0", b" ", b"\t", b":", b",", b"+", b"0", b"\xff"):
                seen.add(check(head[:at] + byte + head[at + 1 :]))
                seen.add(check(head[:at] + byte + head[at:]))
    assert seen == set(Verdict)


@pytest.mark.slow
def test_many_slips_at_once_give_no_head_two_meanings() -> None:
    chance = random.Random(20)
    heads = [*OURS.values(), *(ask(*fields) for fields in AMBIGUOUS.values())]
    seen = set()
    for _ in range(20_000):
        head = bytearray(chance.choice(heads))
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(len(head) - 6)
            head[at : at + chance.randint(0, 2)] = chance.choice(_PIECES)
        seen.add(check(bytes(head)))
    assert seen == set(Verdict)
