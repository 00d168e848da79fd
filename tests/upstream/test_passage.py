"""The short ways change nothing: with them and without, a client gets the same."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import cast

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lemonade.core.errors import ConnectionLost, UpstreamError
from lemonade.core.inference import Usage
from lemonade.telemetry import UsageTap
from lemonade.upstream import Connection, Forwarder, Passage
from lemonade.upstream.watch import Watch
from tests.upstream.answers import CHUNKED, DONE, END, LAST, STREAM_HEAD, chunk

TOKEN = b'data: {"choices":[{"delta":{"content":"%b"}}],"usage":null}\n\n'


class Transport:
    """One end of a connection: takes what is written, and is told to wait."""

    def __init__(self) -> None:
        self.written = b""
        self.writing_paused = False
        self.closing = False
        self.reading = True

    def write(self, data: bytes) -> None:
        assert not self.closing, "nobody writes to a connection that is closing"
        self.written += data

    def is_closing(self) -> bool:
        return self.closing

    def abort(self) -> None:
        self.closing = True

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


class Stream:
    """A stream from an engine to a client, driven block by block."""

    def __init__(self, *, short_way: bool) -> None:
        self.client, self.engine = Transport(), Transport()
        client = cast("asyncio.Transport", self.client)
        self.tap = UsageTap(stream=True, started=0.0, clock=lambda: 1.0)
        self.passage = Passage(client, self.client, self.tap) if short_way else None
        self.forwarder = Forwarder(
            client,
            self.client,
            modern=True,
            stays=True,
            tap=self.tap,
            passage=self.passage,
        )
        loop = asyncio.new_event_loop()
        self.connection = Connection(loop, lambda _: None, lambda _: None, Watch(set()))
        loop.close()  # it is asked for the time only
        self.connection.connection_made(cast("asyncio.Transport", self.engine))
        self.connection.begin(
            b"POST / HTTP/1.1\r\n\r\n",
            b"",
            "POST",
            self.forwarder.take_head,
            lambda: None,
            passage=self.passage,
        )

    def say(self, *blocks: bytes) -> None:
        for block in blocks:
            if not self.connection.over:
                self.connection.data_received(block)

    def end(self) -> tuple[bytes, Usage, UpstreamError | None]:
        """How it ends for the client if the engine says nothing more."""
        if not self.connection.over:
            self.connection.connection_lost(None)
        failure = self.connection.failure
        if failure is None:
            self.forwarder.finish()
        elif self.forwarder.sent and not self.client.closing:
            self.forwarder.break_off(failure)
        return self.client.written, self.tap.finish(), failure


def cut(whole: bytes, places: list[int]) -> list[bytes]:
    marks = sorted({0, len(whole), *(place % (len(whole) + 1) for place in places)})
    return [whole[a:b] for a, b in pairwise(marks)]


@given(
    sizes=st.lists(st.integers(0, 1300), max_size=30),
    places=st.lists(st.integers(0, 1 << 16), max_size=6),
    complete=st.booleans(),
    dropped=st.integers(0, 400),
)
@example(sizes=[100] * 12, places=[], complete=True, dropped=0)
@example(sizes=[100] * 12, places=[], complete=False, dropped=50)
def test_the_client_gets_the_same(
    sizes: list[int],
    places: list[int],
    complete: bool,
    dropped: int,
) -> None:
    chunks = [chunk(TOKEN % (b"x" * size)) for size in sizes]
    last = [chunk(LAST), chunk(DONE) + END] if complete else []
    ends: list[tuple[bytes, Usage, str]] = []
    for short_way in (True, False):
        stream = Stream(short_way=short_way)
        blocks = [STREAM_HEAD + CHUNKED, *chunks, *last]
        if places:
            blocks = cut(b"".join(blocks), places)
        if not complete and dropped:
            blocks[-1] = blocks[-1][:-dropped] or blocks[-1][:1]
        stream.say(*blocks)
        written, usage, failure = stream.end()
        ends.append((written, usage, type(failure).__name__))
    assert ends[0] == ends[1]


def test_whole_chunks_take_it_once_the_first_token_came() -> None:
    stream = Stream(short_way=True)
    passage = stream.passage
    assert passage is not None
    token = chunk(TOKEN % b"abcdefgh")
    stream.say(STREAM_HEAD + CHUNKED + chunk(TOKEN % b""), token, token)
    assert not passage.open, "when tokens come is not known yet"
    stream.say(token)
    assert passage.open
    sent = stream.forwarder.sent
    stream.say(token, token)
    assert stream.forwarder.sent == sent, "the forwarder has not seen them"
    assert stream.client.written.endswith(token * 5)
    stream.say(token[:10])
    assert not passage.open
    assert stream.client.written.endswith(token * 5), "half a chunk waits"
    stream.say(token[10:], token)
    assert passage.open
    assert stream.client.written.endswith(token * 7)


@pytest.mark.parametrize("end", [b"\n\n", b"\r\nx"])
def test_a_chunk_that_is_longer_than_it_says_is_found(end: bytes) -> None:
    stream = Stream(short_way=True)
    token = chunk(TOKEN % b"abcdefgh")
    stream.say(STREAM_HEAD + CHUNKED, *[token] * 6)
    stream.say(token[:-2] + end)
    assert stream.connection.over
    assert stream.connection.failure is not None
    assert stream.connection.failure.code == "garbled-answer"
    assert stream.client.written.count(b"abcdefgh") == 6


def test_a_client_that_does_not_read_stops_the_engine() -> None:
    stream = Stream(short_way=True)
    token = chunk(TOKEN % b"abcdefgh")
    stream.say(STREAM_HEAD + CHUNKED, *[token] * 6)
    stream.client.writing_paused = True
    stream.say(token)
    assert not stream.engine.reading
    assert stream.connection.full
    stream.connection.resume()
    assert stream.engine.reading


def test_nothing_is_written_to_a_client_that_leaves() -> None:
    stream = Stream(short_way=True)
    token = chunk(TOKEN % b"abcdefgh")
    stream.say(STREAM_HEAD + CHUNKED, *[token] * 6)
    stream.client.closing = True
    stream.say(token)
    assert stream.connection.full
    stream.connection.abort(ConnectionLost("enough"))


@pytest.mark.parametrize(
    ("block", "whole"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", True),
        (b"HTTP/1.1 201 OK\r\nContent-Length: 3\r\n\r\nabc", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab", False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcd", False),
        (b"HTTP/1.1 404 No\r\nContent-Length: 3\r\n\r\nabc", False),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", False),
        (b"HTTP/1.1 204 No\r\n\r\n", False),
    ],
)
def test_what_comes_whole_is_taken_whole(block: bytes, whole: bool) -> None:
    stream = Stream(short_way=False)
    taken: list[tuple[int, bytes]] = []
    stream.connection.abort()
    offered: list[Connection] = []
    connection = Connection(stream.connection.loop, offered.append, lambda _: None, Watch(set()))
    connection.connection_made(cast("asyncio.Transport", Transport()))
    connection.begin(
        b"POST / HTTP/1.1\r\n\r\n",
        b"",
        "POST",
        stream.forwarder.take_head,
        lambda: None,
        whole_sink=lambda head, body: taken.append((head.status, body)),
    )
    connection.data_received(block)
    assert bool(taken) is whole
    if whole:
        assert taken[0][1] == b"abc"
        assert offered == [connection], "somebody else may have it"
        assert connection.over
    else:
        assert stream.forwarder.head is not None
