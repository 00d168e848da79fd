"""Bodies that come in pieces, too large, or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from lemonade.gateway.bodies import read_body

WAIT = 20.0
LIMIT = 1 << 20


@pytest.fixture
async def port() -> AsyncIterator[int]:
    async def read(request: web.Request) -> web.Response:
        body = await read_body(request, 0.05 if request.path == "/hasty" else WAIT)
        return web.Response(text=f"{len(body)} {body[:3].decode()}")

    app = web.Application(client_max_size=LIMIT)
    app.router.add_post("/{path}", read)
    runner = web.AppRunner(app, shutdown_timeout=1.0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield runner.addresses[0][1]
    await runner.cleanup()


async def ask(port: int, path: str, *pieces: bytes, field: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"POST %b HTTP/1.1\r\nHost: x\r\n%b\r\n\r\n" % (path.encode(), field))
    async with asyncio.timeout(WAIT):
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        head = await reader.readuntil(b"\r\n\r\n")
        writer.transport.abort()
    return head.split(b" ")[1]


async def test_pieces_and_chunks_are_put_together(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    async with asyncio.timeout(WAIT):
        for body in (b"", b"abc", b"abc" * 300_000):
            writer.write(
                b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
            )
            writer.write(
                b"POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n%b0\r\n\r\n"
                % (b"%x\r\n%b\r\n" % (len(body), body) if body else b"")
            )
            for _ in range(2):
                head = await reader.readuntil(b"\r\n\r\n")
                assert b" 200 " in head
                said = b"%d %b" % (len(body), body[:3])
                assert await reader.readexactly(len(said)) == said
    writer.close()


async def test_a_body_without_a_length_is_cut_at_the_limit(port: int) -> None:
    chunk = b"10000\r\n%b\r\n" % bytes(0x10000)
    status = await ask(port, "/x", *[chunk] * 17, field=b"Transfer-Encoding: chunked")
    assert status == b"413"


async def test_a_client_that_falls_silent_is_not_waited_for(port: int) -> None:
    assert await ask(port, "/hasty", b"ab", field=b"Content-Length: 3") == b"408"
