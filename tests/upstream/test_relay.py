"""The relay through a real web server: what a client sees of an engine, byte for byte."""

from __future__ import annotations

import asyncio
import os

import pytest

from tests.upstream.answers import (
    CHUNKED,
    DONE,
    END,
    EVENT,
    LAST,
    STREAM_HEAD,
    breaks,
    chunk,
    outcome,
    says,
)
from tests.upstream.peers import WAIT, Client, Engine, Front, Peer


async def test_a_stream_passes_untouched_and_both_connections_live_on(
    engine: Engine, front: Front
) -> None:
    body = [chunk(EVENT), b"4;x=y\r\n: a\n\r\n" + chunk(b"\n"), chunk(LAST), chunk(DONE), END]
    says(engine, STREAM_HEAD + CHUNKED, *body)
    async with asyncio.timeout(WAIT), await front.client() as client:
        for _ in range(3):
            await client.post()
            answer = await client.answer()
            assert answer.status == 200
            assert answer.raw == b"".join(body)
            assert answer.values("Cache-Control") == ["no-cache"]
            assert answer.values("X-Accel-Buffering") == ["no"]
            assert answer.header("X-Request-Id") == "r1"
            assert answer.header("Server") is None
            assert answer.header("Connection") is None
    assert len(engine.peers) == 1
    assert outcome(front).complete
    usage = front.taps[-1].finish()
    assert (usage.prompt_tokens, usage.output_tokens) == (3, 5)


async def test_trailers_and_a_torn_end_pass_untouched(engine: Engine, front: Front) -> None:
    raw = chunk(EVENT) + b"0;last\r\nX-Sum: 1\r\n\r\n"
    says(
        engine,
        STREAM_HEAD + CHUNKED + raw[:20],
        raw[20:-12],
        *(raw[-12 + i : -11 + i or None] for i in range(12)),
    )
    async with asyncio.timeout(WAIT), await front.client() as client:
        for _ in range(2):
            await client.post()
            assert (await client.answer(len(raw))).raw == raw
    assert len(engine.peers) == 1


async def test_a_body_of_known_length_passes_untouched(engine: Engine, front: Front) -> None:
    body = os.urandom(3_000_000)
    says(
        engine,
        b"HTTP/1.1 201 Quite Fine\r\nContent-Type: audio/wav\r\nX-Odd: a  b\r\nServer: s\r\n"
        b"Keep-Alive: timeout=5, max=100\r\nConnection: Keep-Alive, X-Hop\r\nX-Hop: 1\r\n"
        b"Access-Control-Allow-Origin: *\r\nX-Request-Id: theirs\r\nVary: Accept\r\n"
        b"Content-Length: 3000000\r\n\r\n",
        body[:1],
        body[1:],
    )
    front.extra_headers = (("X-Request-Id", "ours"), ("Vary", "Origin"))
    async with asyncio.timeout(WAIT), await front.client() as client:
        await client.post()
        await client.answer()
        await client.post()
        answer = await client.answer()
    assert answer.raw == body
    assert answer.head.split("\r\n") == [
        "HTTP/1.1 201 Quite Fine",
        "Content-Type: audio/wav",
        "X-Odd: a  b",
        "Vary: Accept",
        "Content-Length: 3000000",
        "X-Request-Id: ours",
        "Vary: Origin",
    ]
    assert len(engine.peers) == 1
    response = outcome(front).response
    assert response.headers["X-Odd"] == "a  b"
    assert response.body_length == len(answer.head) + 4 + 3_000_000
    assert response.keep_alive is True


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
async def test_answers_without_a_body(engine: Engine, front: Front, status: str) -> None:
    says(engine, f"HTTP/1.1 {status}\r\nETag: x\r\n\r\n".encode())
    async with asyncio.timeout(WAIT), await front.client() as client:
        for _ in range(2):
            await client.post()
            assert (await client.answer(0)).status == int(status[:3])


async def test_head_requests_have_no_body(engine: Engine, front: Front) -> None:
    says(engine, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
    async with asyncio.timeout(WAIT), await front.client() as client:
        for _ in range(2):
            await client.post(b"", method="HEAD")
            assert (await client.answer(0)).header("Content-Length") == "5"


async def test_a_body_until_close_gets_chunks_and_the_client_stays(
    engine: Engine, front: Front
) -> None:
    breaks(engine, STREAM_HEAD + b"\r\n", EVENT, DONE)
    async with asyncio.timeout(WAIT), await front.client() as client:
        for _ in range(2):
            await client.post()
            answer = await client.answer()
            payload = b"".join(answer.raw.split(b"\r\n")[1:-3:2])
            assert payload == EVENT + DONE
            assert outcome(front).complete


@pytest.mark.parametrize(
    "blocks",
    [
        (STREAM_HEAD + CHUNKED, chunk(EVENT[:5]) + b"4", b"0\r\nab", b"c" * 62 + b"\r\n", END),
        (STREAM_HEAD + b"\r\n", EVENT[:5], b"abc" + b"c" * 61),
        (STREAM_HEAD + b"Content-Length: 69\r\n\r\n", EVENT[:5], b"abc" + b"c" * 61),
    ],
)
async def test_an_old_client_gets_the_payload_and_the_end(
    engine: Engine, front: Front, blocks: tuple[bytes, ...]
) -> None:
    breaks(engine, *blocks)
    async with asyncio.timeout(WAIT), await front.client() as client:
        await client.post(version="1.0")
        answer = Client(client.reader, client.writer)
        head = await answer.head()
        assert "chunked" not in head
        assert "Connection: close" in head
        assert await client.reader.read(-1) == EVENT[:5] + b"ab" + b"c" * 62


async def test_an_old_client_may_stay_where_the_length_is_known(
    engine: Engine, front: Front
) -> None:
    async with asyncio.timeout(WAIT), await front.client() as client:
        for body in (b"one", b"two"):
            await client.post(body, version="1.0", more="Connection: keep-alive\r\n")
            answer = await client.answer()
            assert answer.raw == body
            assert answer.header("Connection") == "keep-alive"


async def test_a_client_that_wants_to_leave_is_let_go(engine: Engine, front: Front) -> None:
    async with asyncio.timeout(WAIT), await front.client() as client:
        await client.post(b"bye", more="Connection: close\r\n")
        answer = await client.answer()
        assert (answer.raw, answer.header("Connection")) == (b"bye", "close")
        assert await client.reader.read() == b""
    assert len(engine.asked) == 1


# ---- the client's side


@pytest.mark.parametrize("answering", [False, True])
async def test_a_client_that_leaves_disconnects_the_engine(
    engine: Engine, front: Front, *, answering: bool
) -> None:
    async def endless(peer: Peer) -> None:
        await engine.hear(peer)
        if answering:
            await peer.send(STREAM_HEAD + CHUNKED + chunk(EVENT))
        await peer.gone()

    engine.script = endless
    async with asyncio.timeout(WAIT):
        async with await front.client() as client:
            await client.post()
            if answering:
                await client.head()
            await engine.until(lambda: len(engine.asked) == 1)
            assert front.upstream.active == 1
        await engine.peers[0].left.wait()
    assert front.upstream.active == 0
    assert isinstance(front.outcomes[-1], asyncio.CancelledError)


async def test_a_client_that_does_not_read_costs_bounded_memory(
    engine: Engine, front: Front
) -> None:
    piece = chunk(b"data: " + b"x" * 65_000 + b"\n\n")
    blocked = asyncio.Event()
    sent = 0

    async def flood(peer: Peer) -> None:
        nonlocal sent
        await engine.hear(peer)
        peer.writer.transport.set_write_buffer_limits(high=1)
        await peer.send(STREAM_HEAD + CHUNKED)
        while sent < 4000:
            peer.writer.write(piece)
            sent += 1
            try:
                async with asyncio.timeout(0.3):
                    await peer.writer.drain()
            except TimeoutError:
                blocked.set()
                await peer.writer.drain()
            if sent > 2000:
                assert blocked.is_set(), "130 MB went somewhere although nobody reads"
            if blocked.is_set():
                break
        await peer.send(END)
        await peer.gone()

    engine.script = flood
    async with asyncio.timeout(WAIT), await front.client(small=True) as client:
        await client.post()
        await blocked.wait()
        held = sent
        await client.head()
        got = await client.reader.readuntil(b"\r\n")
        total = len(got) + len(
            await client.reader.readexactly(held * len(piece) - len(got) + len(END))
        )
    assert total == held * len(piece) + len(END)
    # Kernel buffers of four sockets, and of ours one high-water mark and one block.
    assert held * len(piece) < 100_000_000


async def test_a_pipelined_request_waits_for_its_turn(engine: Engine, front: Front) -> None:
    async with asyncio.timeout(WAIT), await front.client() as client:
        for number in range(5):
            await client.post(b"%d" % number)
        for number in range(5):
            assert (await client.answer()).raw == b"%d" % number
    assert len(engine.peers) == 1


async def test_many_streams_at_once_do_not_mix(engine: Engine, front: Front) -> None:
    async def counted(peer: Peer) -> None:
        while True:
            asked = await engine.hear(peer)
            await peer.send(STREAM_HEAD + CHUNKED)
            for number in range(20):
                await peer.send(chunk(b"data: %b %d\n\n" % (asked.body, number)))
                await asyncio.sleep(0)
            await peer.send(END)

    async def use(name: bytes) -> None:
        expected = b"".join(chunk(b"data: %b %d\n\n" % (name, number)) for number in range(20))
        async with await front.client() as client:
            for _ in range(3):
                await client.post(name)
                assert (await client.answer()).raw == expected + END

    engine.script = counted
    async with asyncio.timeout(WAIT), asyncio.TaskGroup() as group:
        for number in range(40):
            group.create_task(use(b"client%d" % number))
    assert len(engine.peers) <= 40
    assert front.upstream.active == 0
