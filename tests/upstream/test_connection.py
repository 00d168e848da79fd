"""One exchange: what an engine may do with its connection, and what we make of it."""

from __future__ import annotations

import asyncio
import os

import pytest

from lemonade.core.errors import (
    ConnectionLost,
    GarbledAnswer,
    UpstreamTimeout,
)
from lemonade.upstream import (
    ResponseHead,
    Upstream,
    UpstreamRequest,
    UpstreamResponse,
)
from tests.upstream.peers import ASK, WAIT, Engine, Peer, ask


async def test_heads_may_be_torn_anywhere(engine: Engine) -> None:
    head = b"HTTP/1.1 200 OK\r\nX: y\r\nTransfer-Encoding: chunked\r\n\r\n"
    raw = head + b"2\r\nab\r\n0\r\nT: u\r\n\r\n"

    async def byte_by_byte(peer: Peer) -> None:
        while True:
            await engine.hear(peer)
            for place in range(len(raw)):
                await peer.send(raw[place : place + 1])
                await asyncio.sleep(0)

    engine.script = byte_by_byte
    upstream = Upstream(engine.endpoint)
    for _ in range(2):
        assert await ask(upstream) == (200, b"ab")
    assert len(engine.peers) == 1
    await upstream.aclose()


async def test_interim_answers_are_skipped(engine: Engine) -> None:
    async def early_hints(peer: Peer) -> None:
        asked = await engine.hear(peer)
        await peer.send(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: x\r\n\r\n")
        await peer.answer(asked.body, status="201 Made")

    engine.script = early_hints
    upstream = Upstream(engine.endpoint)
    assert await ask(upstream) == (201, ASK.body)
    await upstream.aclose()


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * 70_000 + b"\r\n\r\n",
        b"y" * 70_000,
    ],
)
async def test_garbage_is_an_error_and_ends_the_connection(engine: Engine, answer: bytes) -> None:
    async def babble(peer: Peer) -> None:
        await engine.hear(peer)
        await peer.send(answer)
        await peer.gone()

    engine.script = babble
    upstream = Upstream(engine.endpoint)
    with pytest.raises(GarbledAnswer):
        await ask(upstream)
    async with asyncio.timeout(WAIT):
        await engine.peers[0].left.wait()
    assert (upstream.active, upstream.idle) == (0, 0)
    await upstream.aclose()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n\r\n",
    ],
)
async def test_connections_that_cannot_be_trusted_are_not_used_again(
    engine: Engine, answer: bytes
) -> None:
    async def linger(peer: Peer) -> None:
        await engine.hear(peer)
        await peer.send(answer)
        await peer.gone()

    engine.script = linger
    upstream = Upstream(engine.endpoint)
    for _ in range(2):
        assert await ask(upstream) == (200, b"ok")
    assert len(engine.peers) == 2
    await upstream.aclose()


async def test_an_engine_that_speaks_unasked_is_disconnected(engine: Engine) -> None:
    async def twice(peer: Peer) -> None:
        asked = await engine.hear(peer)
        await peer.answer(asked.body)
        if len(engine.peers) == 1:
            await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged")
            await peer.gone()

    engine.script = twice
    upstream = Upstream(engine.endpoint)
    assert await ask(upstream) == (200, ASK.body)
    async with asyncio.timeout(WAIT):
        await engine.peers[0].left.wait()
    assert await ask(upstream) == (200, ASK.body)
    await upstream.aclose()


async def drain_into(pieces: list[bytes], response: UpstreamResponse) -> None:
    async for piece in response.blocks():
        pieces.append(piece)  # noqa: PERF401 - what came before an error counts


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\n",
    ],
)
async def test_half_an_answer_is_an_error(engine: Engine, raw: bytes) -> None:
    async def half(peer: Peer) -> None:
        await engine.hear(peer)
        await peer.send(raw)

    engine.script = half
    upstream = Upstream(engine.endpoint)
    pieces: list[bytes] = []
    async with await upstream.send(ASK) as response:
        with pytest.raises(ConnectionLost):
            await drain_into(pieces, response)
    assert b"".join(pieces) == b"half"
    await upstream.aclose()


async def test_a_body_until_close_is_whole_when_the_engine_closes(engine: Engine) -> None:
    async def until_close(peer: Peer) -> None:
        await engine.hear(peer)
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\nall of it")

    engine.script = until_close
    upstream = Upstream(engine.endpoint)
    assert await ask(upstream) == (200, b"all of it")
    await upstream.aclose()


async def test_a_silent_engine_runs_out_of_patience(engine: Engine) -> None:
    async def silent(peer: Peer) -> None:
        await engine.hear(peer)
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab")
        await peer.gone()

    engine.script = silent
    upstream = Upstream(engine.endpoint)
    request = UpstreamRequest("GET", "/", patience=0.05)
    async with asyncio.timeout(WAIT), await upstream.send(request) as response:
        with pytest.raises(UpstreamTimeout):
            await response.read()
        await engine.peers[0].left.wait()
    await upstream.aclose()


async def test_cancelling_the_waiting_task_disconnects(engine: Engine) -> None:
    async def never(peer: Peer) -> None:
        await engine.hear(peer)
        await peer.gone()

    engine.script = never
    upstream = Upstream(engine.endpoint)
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(ask(upstream))
        await engine.until(lambda: len(engine.asked) == 1)
        waiting.cancel()
    async with asyncio.timeout(WAIT):
        await engine.peers[0].left.wait()
    assert (upstream.active, upstream.idle) == (0, 0)
    await upstream.aclose()


async def test_leaving_an_answer_early_disconnects(engine: Engine) -> None:
    async def endless(peer: Peer) -> None:
        await engine.hear(peer)
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
        while True:
            await peer.send(b"x" * 65536)

    engine.script = endless
    upstream = Upstream(engine.endpoint)
    async with await upstream.send(ASK) as response:
        assert len(await response.read(1000)) == 1000
    async with asyncio.timeout(WAIT):
        await engine.peers[0].left.wait()
    assert upstream.active == 0
    await upstream.aclose()


async def test_a_hundred_mebibytes_go_to_an_engine_that_reads_slowly(engine: Engine) -> None:
    piece = os.urandom(1 << 20)
    body = piece * 100

    async def slow(peer: Peer) -> None:
        await peer.reader.readuntil(b"\r\n\r\n")
        for _ in range(100):
            assert await peer.reader.readexactly(1 << 20) == piece
        await peer.answer(b"thanks")

    engine.script = slow
    upstream = Upstream(engine.endpoint)
    assert await ask(upstream, UpstreamRequest("POST", "/", body)) == (200, b"thanks")
    assert upstream.idle == 1
    await upstream.aclose()


async def test_an_answer_before_the_whole_request_was_read_is_the_answer(engine: Engine) -> None:
    async def hasty(peer: Peer) -> None:
        await peer.reader.readuntil(b"\r\n\r\n")
        await peer.answer(b"too much", status="413 Too Large")
        await peer.gone()

    engine.script = hasty
    upstream = Upstream(engine.endpoint)
    body = bytes(64 << 20)
    assert await ask(upstream, UpstreamRequest("POST", "/", body)) == (413, b"too much")
    assert upstream.idle == 0
    await upstream.aclose()


async def test_a_sink_that_has_enough_is_left_alone_until_it_is_drained(engine: Engine) -> None:
    async def flood(peer: Peer) -> None:
        await engine.hear(peer)
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 1_000_000)
        await peer.gone()

    engine.script = flood
    upstream = Upstream(engine.endpoint)
    waits, seen, open_now = 0, 0, True

    def take_body(block: bytes, _whole: int) -> bool:
        nonlocal seen, open_now
        assert open_now
        seen += len(block)
        open_now = False
        return True

    async def drained() -> None:
        nonlocal waits, open_now
        await asyncio.sleep(0)
        waits += 1
        open_now = True

    def take_head(_head: ResponseHead) -> object:
        return take_body

    async with asyncio.timeout(WAIT):
        await upstream.converse(ASK, take_head, drained)  # type: ignore[arg-type]
    assert seen == 1_000_000
    assert waits >= 1
    assert upstream.idle == 1
    await upstream.aclose()
