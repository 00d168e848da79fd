from __future__ import annotations

import asyncio
import os

import pytest

from lemonade.core.errors import (
    ConnectionLost,
    GarbledAnswer,
    MalformedRequest,
    UpstreamError,
    UpstreamRefused,
    UpstreamTimeout,
)
from lemonade.core.process import Endpoint
from lemonade.upstream import (
    ResponseHead,
    Upstream,
    UpstreamRequest,
    UpstreamResponse,
    fetch,
    http_probe,
)
from tests.upstream.peers import WAIT, Engine, Peer

ASK = UpstreamRequest(method="POST", path="/v1/chat/completions", body=b'{"a":1}')


async def ask(upstream: Upstream, request: UpstreamRequest = ASK) -> tuple[int, bytes]:
    async with asyncio.timeout(WAIT), await upstream.send(request) as response:
        return response.status, await response.read()


async def test_a_connection_serves_many_requests(engine: Engine) -> None:
    upstream = Upstream(engine.endpoint)
    for number in range(5):
        assert await ask(upstream, UpstreamRequest("POST", "/x", str(number).encode())) == (
            200,
            str(number).encode(),
        )
    assert len(engine.peers) == 1
    assert (upstream.active, upstream.idle) == (0, 1)
    await upstream.aclose()


async def test_the_youngest_connection_is_used_first(engine: Engine) -> None:
    upstream = Upstream(engine.endpoint)
    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(ask(upstream))
    assert len(engine.peers) == upstream.idle == 3
    for _ in range(4):
        await ask(upstream)
    assert len(engine.peers) == 3
    await upstream.aclose()


async def test_the_engine_gets_few_headers_and_its_own_key(engine: Engine) -> None:
    upstream = Upstream(engine.endpoint, "the-engines-key")
    headers = (
        ("Authorization", "Bearer the-clients-key"),
        ("Cookie", "a=b"),
        ("Accept-Encoding", "gzip"),
        ("Connection", "close"),
        ("Transfer-Encoding", "chunked"),
        ("Content-Length", "99"),
        ("Host", "elsewhere"),
        ("X-Forwarded-For", "1.2.3.4"),
        ("CONTENT-TYPE", "application/json; charset=utf-8"),
        ("Accept", "text/event-stream"),
        ("User-Agent", "tester/1"),
        ("X-Request-Id", "r7"),
        ("traceparent", "00-1-2-01"),
    )
    await ask(upstream, UpstreamRequest("POST", "/v1/x?a=b%20c", b"{}", headers))
    (asked,) = engine.asked
    assert asked.line == "POST /v1/x?a=b%20c HTTP/1.1"
    assert asked.headers == {
        "host": f"127.0.0.1:{engine.endpoint.port}",
        "authorization": "Bearer the-engines-key",
        "content-type": "application/json; charset=utf-8",
        "content-length": "2",
        "accept": "text/event-stream",
        "user-agent": "tester/1",
        "x-request-id": "r7",
        "traceparent": "00-1-2-01",
    }
    await upstream.aclose()


@pytest.mark.parametrize(
    "request_",
    [
        UpstreamRequest("POST", "/a b"),
        UpstreamRequest("POST", "/a\r\nX: y"),
        UpstreamRequest("POST", "http://elsewhere/"),
        UpstreamRequest("POST", "/ä"),
        UpstreamRequest("POST", ""),
        UpstreamRequest("PO ST", "/"),
        UpstreamRequest("POST", "/", headers=(("User-Agent", "a\r\nX: y"),)),
        UpstreamRequest("POST", "/", headers=(("User-Agent", "€"),)),
    ],
)
async def test_nothing_can_be_smuggled_into_a_request(
    engine: Engine, request_: UpstreamRequest
) -> None:
    with pytest.raises(MalformedRequest):
        await Upstream(engine.endpoint).send(request_)
    assert not engine.peers


async def test_a_connection_the_engine_closed_while_idle_is_replaced(engine: Engine) -> None:
    async def once(peer: Peer) -> None:
        asked = await engine.hear(peer)
        await peer.answer(asked.body)

    engine.script = once
    upstream = Upstream(engine.endpoint)
    for _ in range(4):
        assert await ask(upstream) == (200, ASK.body)
    assert len(engine.peers) == 4
    await upstream.aclose()


async def test_a_reused_connection_that_dies_silently_is_tried_once_more(engine: Engine) -> None:
    async def first_only(peer: Peer) -> None:
        asked = await engine.hear(peer)
        await peer.answer(asked.body)
        if len(engine.peers) == 1:
            # The second request arrives, and the answer is the end of the connection.
            await engine.hear(peer)
        else:
            await engine.echo(peer)

    engine.script = first_only
    upstream = Upstream(engine.endpoint)
    assert await ask(upstream) == (200, ASK.body)
    assert await ask(upstream) == (200, ASK.body)
    assert len(engine.asked) == 3
    await upstream.aclose()


@pytest.mark.parametrize("part", [b"", b"H", b"HTTP/1.1 200 OK\r\nContent-Le"])
async def test_a_fresh_connection_is_not_tried_again(engine: Engine, part: bytes) -> None:
    async def give_up(peer: Peer) -> None:
        await engine.hear(peer)
        await peer.send(part)

    engine.script = give_up
    upstream = Upstream(engine.endpoint)
    with pytest.raises(ConnectionLost):
        await ask(upstream)
    assert len(engine.asked) == 1
    await upstream.aclose()


async def test_a_reused_connection_with_part_of_an_answer_is_not_tried_again(
    engine: Engine,
) -> None:
    async def one_and_a_half(peer: Peer) -> None:
        asked = await engine.hear(peer)
        await peer.answer(asked.body)
        await engine.hear(peer)
        await peer.send(b"HTTP/1.1 2")

    engine.script = one_and_a_half
    upstream = Upstream(engine.endpoint)
    await ask(upstream)
    with pytest.raises(ConnectionLost):
        await ask(upstream)
    assert len(engine.asked) == 2
    await upstream.aclose()


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


async def test_nobody_listening_is_refused(engine: Engine) -> None:
    await engine.stop()
    with pytest.raises(UpstreamRefused):
        await ask(Upstream(engine.endpoint))


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


async def test_closing_ends_every_conversation_at_once(engine: Engine) -> None:
    async def endless(peer: Peer) -> None:
        await engine.hear(peer)
        await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        await peer.gone()

    engine.script = endless
    upstream = Upstream(engine.endpoint)
    responses = [await upstream.send(ASK) for _ in range(3)]
    assert upstream.active == 3
    await upstream.aclose()
    for response in responses:
        with pytest.raises(ConnectionLost):
            await response.read()
    async with asyncio.timeout(WAIT):
        for peer in engine.peers:
            await peer.left.wait()
    assert upstream.active == 0
    with pytest.raises(UpstreamRefused):
        await ask(upstream)


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


async def test_idle_connections_are_limited_and_grow_old(engine: Engine) -> None:
    upstream = Upstream(engine.endpoint, idle_limit=2, idle_seconds=0.05)
    async with asyncio.TaskGroup() as group:
        for _ in range(4):
            group.create_task(ask(upstream))
    assert upstream.idle <= 2
    async with asyncio.timeout(WAIT):
        for peer in engine.peers:
            await peer.left.wait()
    assert upstream.idle == 0
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


async def test_two_tasks_can_share_one_connection_in_turn(engine: Engine) -> None:
    """The second takes the connection before the first has woken up from its answer."""
    upstream = Upstream(engine.endpoint)

    async def many(name: bytes) -> None:
        for number in range(200):
            body = b"%b%d" % (name, number)
            assert await ask(upstream, UpstreamRequest("POST", "/", body)) == (200, body)

    async with asyncio.TaskGroup() as group:
        for name in (b"a", b"b", b"c"):
            group.create_task(many(name))
    assert len(engine.peers) <= 3
    assert upstream.active == 0
    await upstream.aclose()


async def test_fetch_and_probe(engine: Engine) -> None:
    async def health(peer: Peer) -> None:
        asked = await engine.hear(peer)
        status = "200 OK" if len(engine.asked) > 1 else "503 Loading"
        await peer.answer(asked.line.encode(), status=status)

    engine.script = health
    probe = http_probe(engine.endpoint, "/health", api_key="k")
    assert await probe() is False
    assert await probe() is True
    assert await fetch(engine.endpoint, "/m?x=1", timeout=WAIT) == (200, b"GET /m?x=1 HTTP/1.1")
    assert len(await fetch(engine.endpoint, "/m", timeout=WAIT, limit=3)) == 2
    assert engine.asked[0].headers["authorization"] == "Bearer k"
    await engine.stop()
    assert await probe() is False


async def test_fetch_gives_up_in_time(engine: Engine) -> None:
    async def never(peer: Peer) -> None:
        await peer.gone()

    engine.script = never
    with pytest.raises(UpstreamTimeout):
        await fetch(engine.endpoint, "/health", timeout=0.05)
    async with asyncio.timeout(WAIT):
        await engine.peers[0].left.wait()


async def test_an_address_that_is_none_is_refused() -> None:
    with pytest.raises(UpstreamError):
        await ask(Upstream(Endpoint("127.0.0.1", 1)))
