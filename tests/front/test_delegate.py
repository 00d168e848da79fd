"""What lending a connection to aiohttp for one request relies on, held against this aiohttp."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator

import aiohttp
import pytest
from aiohttp import web

from lemonade.relay.client import Phase
from tests.front.house import WAIT, Call, Handler, get, house, ordinary, post
from tests.serving import Serving, fake_catalog, serving, survivors

CHAT = b'{"model":"m"}'
UPLOAD = b"/v1/upload"
CHUNKED = (
    b"POST /v1/upload HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
)


def application(**handlers: Handler) -> web.Application:
    """The ordinary one, and these under their names, whatever the method."""
    app = ordinary()
    for name, handler in handlers.items():
        app.router.add_route("*", f"/{name}", handler)
    return app


async def until(call: Call, phase: Phase) -> None:
    async with asyncio.timeout(WAIT):
        while call.client.phase is not phase:
            await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (get(), 200),
        (get(b"/nothing"), 404),
        (get(method=b"DELETE"), 405),
        (get(method=b"HEAD"), 200),
        (post(b"abc", path=UPLOAD), 200),
        (post(b"x" * 500_000, path=UPLOAD), 200),
        (post(b"x" * (2 << 20), path=UPLOAD), 413),
        (post(b"abc", path=b"/v1/refused"), 404),
        (post(b"abc", b"Expect: 100-continue", path=UPLOAD), 100),
        (post(b"elsewhere"), 200),
    ],
)
async def test_an_answer_ends_once_and_leaves_the_connection(
    request_bytes: bytes, status: int
) -> None:
    tasks = asyncio.all_tasks()
    bodiless = request_bytes.startswith(b"HEAD")
    async with house() as one:
        call = await one.call()
        for times in (1, 2, 3):
            call.say(request_bytes)
            assert (await call.hear(bodiless=bodiless))[0] == status
            if status == 100:
                assert (await call.hear())[0] == 200
            await until(call, Phase.READING)
            assert [delegate.finished for delegate in one.delegates] == [1] * times
            assert one.delegates[-1].transport is None
        call.say(post(CHAT))
        assert (await call.hear())[2] == CHAT
        await no_more_than(tasks)


async def no_more_than(tasks: set[asyncio.Task[object]]) -> None:
    """Until no task is left but those."""
    async with asyncio.timeout(WAIT):
        while asyncio.all_tasks() - tasks:
            await asyncio.sleep(0)


async def test_a_mistake_of_a_handler_is_one_answer_too(caplog: pytest.LogCaptureFixture) -> None:
    async def mistake(_request: web.Request) -> web.Response:
        raise RuntimeError("a mistake")

    caplog.set_level(logging.CRITICAL, "aiohttp.server")
    async with house(application(mistake=mistake)) as one:
        call = await one.call()
        call.say(get(b"/mistake"))
        assert (await call.hear())[0] == 500
        assert await call.rest() == b""  # aiohttp closes after it
        assert [delegate.finished for delegate in one.delegates] == [1]
        assert not one.clients


async def test_a_client_that_does_not_stay_is_let_go() -> None:
    async with house() as one:
        for last in (get(b"/live", b"Connection: close"), post(CHAT, version=b"1.0")):
            call = await one.call()
            call.say(last + get())
            assert (await call.rest()).count(b"HTTP/1.") == 1


async def test_a_server_that_ends_lets_go_after_the_answer() -> None:
    async with house() as one:
        for request in (get(), post(CHAT)):
            call = await one.call()
            call.say(request)
            one.closing = True
            assert (await call.rest()).count(b"HTTP/1.") == 1
            one.closing = False


async def test_a_body_in_chunks_has_the_connection_for_good() -> None:
    async with house() as one:
        call = await one.call()
        call.say(post(CHAT) + CHUNKED + get() + CHUNKED)
        assert [(await call.hear())[2] for _ in range(4)] == [CHAT, b"abcde", b"alive", b"abcde"]
        assert call.client.phase is Phase.GIVEN
        call.say(post(CHAT))
        assert (await call.hear())[2] == CHAT
        assert [delegate.finished for delegate in one.delegates] == [4]


async def test_a_body_is_asked_for_before_it_comes() -> None:
    async with house() as one:
        call = await one.call()
        head, _, body = post(b"abc", b"Expect: 100-continue", path=UPLOAD).partition(b"\r\n\r\n")
        call.say(head + b"\r\n\r\n")
        assert (await call.hear())[0] == 100
        call.say(body + post(CHAT))
        assert [(await call.hear())[2] for _ in range(2)] == [b"abc", CHAT]


async def test_an_answer_before_the_body_leaves_the_rest_to_aiohttp() -> None:
    async def hasty(_request: web.Request) -> web.Response:
        return web.Response(status=413)

    async with house(application(hasty=hasty)) as one:
        call = await one.call()
        whole = post(b"x" * 300_000, path=b"/hasty")
        call.say(whole[:100_000])
        assert (await call.hear())[0] == 413
        await until(call, Phase.GIVEN)
        call.say(whole[100_000:] + get() + post(CHAT))
        assert [(await call.hear())[2] for _ in range(2)] == [b"alive", CHAT]


async def test_a_body_nobody_reads_is_not_taken_for_a_request() -> None:
    async def hasty(_request: web.Request) -> web.Response:
        return web.Response(status=413)

    async with house(application(hasty=hasty)) as one:
        call = await one.call()
        call.say(post(get() * 5000, path=b"/hasty") + post(CHAT))
        assert (await call.hear())[0] == 413
        assert (await call.hear())[2] == CHAT


async def test_the_handler_of_a_client_that_leaves_is_cancelled() -> None:
    entered, cancelled = asyncio.Event(), asyncio.Event()

    async def endless(_request: web.Request) -> web.Response:
        entered.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        raise AssertionError("it is not reached")

    async with house(application(endless=endless)) as one, asyncio.timeout(WAIT):
        call = await one.call()
        call.say(post(b"abc", path=b"/endless"))
        await entered.wait()
        call.hang_up()
        await cancelled.wait()


async def test_a_client_that_does_not_read_is_not_written_to_without_a_limit() -> None:
    block, most = b"x" * 65536, 0

    async def much(request: web.Request) -> web.StreamResponse:
        nonlocal most
        response = web.StreamResponse(headers={"Content-Length": str(len(block) * 200)})
        await response.prepare(request)
        for _ in range(200):
            await response.write(block)
            assert request.transport is not None
            most = max(most, request.transport.get_write_buffer_size())
        return response

    async with house(application(much=much)) as one:
        call = await one.call()
        call.reader._transport.pause_reading()  # type: ignore[attr-defined]
        call.say(get(b"/much") + get())
        async with asyncio.timeout(WAIT):
            while not call.client.writing_paused:
                await asyncio.sleep(0)
        call.reader._transport.resume_reading()  # type: ignore[attr-defined]
        assert len((await call.hear())[2]) == len(block) * 200
        assert (await call.hear())[2] == b"alive"
        assert most < 1 << 20


async def test_a_client_that_did_not_read_before_is_not_written_to_either() -> None:
    """A connection is lent while its client is behind with what was relayed."""
    async with house() as one:
        call = await one.call()
        call.client.pause_writing()
        call.say(get(b"/stream"))
        await until(call, Phase.LENT)
        for _ in range(20):
            await asyncio.sleep(0)
        assert call.client.phase is Phase.LENT
        call.client.resume_writing()
        async with asyncio.timeout(WAIT):
            await call.reader.readuntil(b"\r\n0\r\n\r\n")
        await until(call, Phase.READING)


def frame(text: bytes) -> bytes:
    """A short text of a client, masked with nothing."""
    return bytes((0x81, 0x80 | len(text))) + bytes(4) + text


async def test_a_websocket_has_the_connection_for_good() -> None:
    async def talk(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            await socket.send_str(message.data.upper())
        return socket

    async with house(application(talk=talk)) as one, asyncio.timeout(WAIT):
        call = await one.call()
        call.say(post(CHAT))
        assert (await call.hear())[0] == 200
        fields = (
            b"Upgrade: websocket",
            b"Connection: Upgrade",
            b"Sec-WebSocket-Version: 13",
            b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
        )
        call.say(get(b"/talk", *fields) + frame(b"one"))
        assert (await call.hear())[0] == 101
        assert await call.reader.readexactly(5) == b"\x81\x03ONE"
        for byte in frame(b"two"):
            call.say(bytes((byte,)))
        assert await call.reader.readexactly(5) == b"\x81\x03TWO"
        assert call.client.phase is Phase.GIVEN
        call.say(b"\x88\x80\0\0\0\0")
        assert await call.reader.readexactly(4) == b"\x88\x02\x03\xe8"
        assert await call.rest() == b""
        assert [delegate.finished for delegate in one.delegates] == [1]


async def test_an_upgrade_that_is_declined_is_an_answer() -> None:
    async with house() as one:
        call = await one.call()
        fields = (b"Upgrade: h2c", b"Connection: Upgrade")
        call.say(get(b"/live", *fields))
        assert (await call.hear())[2] == b"alive"
        call.say(post(CHAT) + get())
        assert [(await call.hear())[2] for _ in range(2)] == [CHAT, b"alive"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    home = tmp_path_factory.mktemp("delegate")
    with serving(home, env={"LEMONADE_CATALOG": str(fake_catalog(home))}) as one:
        yield one
    assert not survivors(home)
    assert "Traceback" not in one.log()


@pytest.mark.slow
async def test_the_log_is_followed_through_the_front(server: Serving) -> None:
    async with asyncio.timeout(WAIT), aiohttp.ClientSession(server.url) as session:
        async with session.get("/live") as reply:
            assert reply.status == 200
        async with session.ws_connect("/logs/stream") as socket:
            await socket.send_json({"type": "logs.subscribe", "after_seq": None})
            said = await socket.receive_json()
            assert said["type"] == "logs.snapshot"
        async with session.get("/live") as reply:
            assert reply.status == 200
