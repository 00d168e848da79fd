from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lemonade.core.errors import GarbledAnswer
from lemonade.upstream.framing import (
    BodyKind,
    BodyWalker,
    ChunkedBody,
    LengthBody,
    UnboundedBody,
    parse_head,
    walker_for,
)

token = st.text("abcXYZ09-_", min_size=1, max_size=8).map(str.encode)
value = st.text("abc 12;=\"',", max_size=12).map(lambda text: text.strip().encode())


@dataclass
class Written:
    """A chunked body, what it says, and where its chunks end."""

    raw: bytes
    payload: bytes
    ends: list[int]


@st.composite
def chunked(draw: st.DrawFn) -> Written:
    raw, payload, ends = b"", b"", [0]
    for piece in draw(st.lists(st.binary(min_size=1, max_size=40), max_size=6)):
        size = draw(st.sampled_from(["%x", "%X", "%08x"])) % len(piece)
        extension = draw(st.sampled_from([b"", b";a", b';a=1; b="x"', b" ;q"]))
        raw += size.encode() + extension + b"\r\n" + piece + b"\r\n"
        payload += piece
        ends.append(len(raw))
    raw += draw(st.sampled_from([b"0", b"000", b"0;last"])) + b"\r\n"
    for name, text in draw(st.lists(st.tuples(token, value), max_size=3)):
        raw += name + b": " + text + b"\r\n"
    raw += b"\r\n"
    ends.append(len(raw))
    return Written(raw, payload, ends)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    marks = [0, *sorted({place % (len(data) + 1) for place in places}), len(data)]
    pieces = [data[a:b] for a, b in pairwise(marks)]
    return [piece for piece in pieces if piece]


@given(chunked(), st.lists(st.integers(0, 10_000), max_size=12), st.binary(max_size=20))
def test_any_cut_of_chunks_gives_the_same_body_and_the_same_end(
    written: Written, places: list[int], rest: bytes
) -> None:
    walker = ChunkedBody(collect=True)
    payload, walked, boundary = b"", 0, 0
    for piece in cut(written.raw + rest, places):
        if walker.done:
            break
        whole = walker.feed(piece)
        boundary = walked + whole if whole else boundary
        walked += walker.used
        payload += walker.payload()
        assert boundary == max(end for end in written.ends if end <= walked)
        assert walker.used == len(piece) or walker.done
    assert walker.done
    assert walked == len(written.raw)
    assert payload == written.payload


@given(st.binary(max_size=100), st.lists(st.integers(0, 1000), max_size=6), st.binary(max_size=9))
def test_any_cut_of_a_known_length_ends_at_the_same_byte(
    body: bytes, places: list[int], rest: bytes
) -> None:
    walker = LengthBody(len(body), collect=True)
    seen, walked = b"", 0
    for piece in cut(body + rest, places):
        if walker.done:
            break
        assert walker.feed(piece) == walker.used
        walked += walker.used
        seen += walker.payload()
    assert walker.done
    assert (walked, seen) == (len(body), body)


def test_a_body_until_close_is_never_done_and_always_complete() -> None:
    walker = UnboundedBody(collect=True)
    assert walker.feed(b"abc") == 3
    assert not walker.done
    assert walker.ends_with_connection
    assert walker.payload() == b"abc"
    assert walker.payload() == b""


@pytest.mark.parametrize(
    "raw",
    [
        b"g\r\n",
        b"-1\r\n",
        b"+5\r\nhello\r\n",
        b"0x5\r\nhello\r\n",
        b"5_0\r\n",
        b" 5\r\nhello\r\n",
        b"\r\n",
        b"5\nhello\r\n",
        b"5\r\nhello!\r\n",
        b"5\r\nhelloXY",
        b"5\r\nhello\rX",
        b"5\r\nhello\n\n",
        b"ffffffffffffffff\r\n",
        b"5;\x00\r\nhello\r\n",
        b"5 5\r\nhello\r\n",
        b"1\r\nx\r\n0\r\nno colon\r\n\r\n",
        b"0\r\nbad name: x\r\n\r\n",
        b"0\r\nA: x\ny\r\n\r\n",
        b"5" + b";" + b"x" * 5000,
        b"0\r\n" + b"A: " + b"x" * 17000,
    ],
)
def test_malformed_chunks_are_refused_in_one_piece_and_byte_by_byte(raw: bytes) -> None:
    with pytest.raises(GarbledAnswer):
        ChunkedBody().feed(raw)
    with pytest.raises(GarbledAnswer):
        feed_bytes(ChunkedBody(), raw)


def feed_bytes(walker: BodyWalker, raw: bytes) -> None:
    for byte in raw:
        walker.feed(bytes([byte]))


def head(*lines: str, status: str = "HTTP/1.1 200 OK") -> bytes:
    return "\r\n".join([status, *lines, "", ""]).encode("latin-1")


@pytest.mark.parametrize(
    ("block", "method", "kind", "length", "keep_alive"),
    [
        (head("Content-Length: 5"), "POST", BodyKind.LENGTH, 5, True),
        (head("content-length:5", "Content-Length: 5"), "POST", BodyKind.LENGTH, 5, True),
        (head("Content-Length: 0"), "POST", BodyKind.LENGTH, 0, True),
        (head("Transfer-Encoding: Chunked"), "POST", BodyKind.CHUNKED, 0, True),
        (head(), "POST", BodyKind.UNTIL_CLOSE, 0, False),
        (head("Content-Length: 5"), "HEAD", BodyKind.NONE, 0, True),
        (head("Content-Length: 5", status="HTTP/1.1 304 Not"), "GET", BodyKind.NONE, 0, True),
        (head(status="HTTP/1.1 204 No Content"), "GET", BodyKind.NONE, 0, True),
        (head(status="HTTP/1.1 100"), "POST", BodyKind.NONE, 0, True),
        (head("Content-Length: 5", "Connection: x, Close"), "POST", BodyKind.LENGTH, 5, False),
        (head("Content-Length: 5", status="HTTP/1.0 200 OK"), "POST", BodyKind.LENGTH, 5, False),
        (
            head("Content-Length: 5", "Connection: Keep-Alive", status="HTTP/1.0 200 OK"),
            "POST",
            BodyKind.LENGTH,
            5,
            True,
        ),
    ],
)
def test_heads_tell_where_the_body_ends(
    block: bytes, method: str, kind: BodyKind, length: int, *, keep_alive: bool
) -> None:
    parsed = parse_head(block, method)
    assert (parsed.body, parsed.length, parsed.keep_alive) == (kind, length, keep_alive)
    assert isinstance(walker_for(parsed), BodyWalker)


def test_a_head_keeps_names_order_and_repetitions() -> None:
    parsed = parse_head(
        head("X-B:  2 ", "x-a: 1", "X-B: 3", "Content-Length: 0", status="HTTP/1.1 299 So So"),
        "GET",
    )
    assert (parsed.minor, parsed.status, parsed.reason) == (1, 299, b"So So")
    assert parsed.headers[:3] == ((b"X-B", b"2"), (b"x-a", b"1"), (b"X-B", b"3"))
    assert parsed.get(b"x-b") == b"2"
    assert parsed.get(b"nothing") == b""


@pytest.mark.parametrize(
    "block",
    [
        b"\r\n\r\n",
        head(status="HTTP/2 200 OK"),
        head(status="HTTP/1.1 20 OK"),
        head(status="HTTP/1.1 200OK"),
        head(status="ICY 200 OK"),
        head("no colon"),
        head("bad name: x"),
        head("Name : x"),
        head(": x"),
        head("A: b\nB: c"),
        head("A: b\rB: c"),
        head("A: b\0"),
        head("A: b", " folded"),
        head("Content-Length: 5", "Content-Length: 6"),
        head("Content-Length: 5, 5"),
        head("Content-Length: -5"),
        head("Content-Length: +5"),
        head("Content-Length: ٥".encode().decode("latin-1")),
        head("Content-Length: 1" + "0" * 20),
        head("Content-Length: 5", "Transfer-Encoding: chunked"),
        head("Transfer-Encoding: gzip, chunked"),
        head("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"),
        head("Transfer-Encoding: identity"),
        head("Transfer-Encoding: chunked", status="HTTP/1.0 200 OK"),
    ],
)
def test_heads_that_can_be_read_in_two_ways_are_refused(block: bytes) -> None:
    with pytest.raises(GarbledAnswer):
        parse_head(block, "POST")


@given(st.binary(max_size=200))
def test_no_bytes_do_worse_than_being_refused(data: bytes) -> None:
    for read in (lambda: parse_head(data, "GET"), lambda: ChunkedBody(collect=True).feed(data)):
        with suppress(GarbledAnswer):
            read()
