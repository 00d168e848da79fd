"""Connections to an engine: how many, which one, and when another."""

from __future__ import annotations

import asyncio

import pytest

from lemonade.core.errors import (
    ConnectionLost,
    MalformedRequest,
    UpstreamError,
    UpstreamRefused,
    UpstreamTimeout,
)
from lemonade.core.process import Endpoint
from lemonade.upstream import (
    Upstream,
    UpstreamRequest,
    fetch,
    http_probe,
)
from tests.upstream.peers import ASK, WAIT, Engine, Peer, ask


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
        UpstreamRequest("POST", "/", headers=(("User-Agent", "a\0"),)),
    ],
)
async def test_nothing_can_be_smuggled_into_a_request(
    engine: Engine, request_: UpstreamRequest
) -> None:
    with pytest.raises(MalformedRequest):
        await Upstream(engine.endpoint).send(request_)
    assert not engine.peers


@pytest.mark.parametrize("agent", ["Zitrone ☃", "caf\udce9"])
async def test_a_header_passes_in_the_bytes_it_came_in(engine: Engine, agent: str) -> None:
    upstream = Upstream(engine.endpoint)
    await ask(upstream, UpstreamRequest("POST", "/", headers=(("User-Agent", agent),)))
    seen = engine.asked[0].headers["user-agent"].encode("latin-1")
    assert seen == agent.encode("utf-8", "surrogateescape")
    await upstream.aclose()


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


async def test_nobody_listening_is_refused(engine: Engine) -> None:
    await engine.stop()
    with pytest.raises(UpstreamRefused):
        await ask(Upstream(engine.endpoint))


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
