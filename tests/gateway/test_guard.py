"""The middleware around every handler, with handlers that go wrong in ways the server's do not."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import web

from lemonade.config import AccessKeys
from lemonade.core.errors import LemonadeError
from lemonade.gateway.middleware import guard
from lemonade.gateway.routing import Access, Route, RouteTable

WAIT = 20.0


@pytest.mark.parametrize("error", [LemonadeError("too late"), ValueError("too late")])
async def test_there_is_no_second_answer_inside_one_that_has_begun(error: Exception) -> None:
    async def begin(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"begun")
        raise error

    table = RouteTable((Route("GET", "/", begin, access=Access.PUBLIC, prefixed=False),))
    app = web.Application(middlewares=[guard(table, AccessKeys())])
    table.mount(app)
    runner = web.AppRunner(app, shutdown_timeout=1.0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with asyncio.timeout(WAIT):
        reader, writer = await asyncio.open_connection("127.0.0.1", runner.addresses[0][1])
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        said = await reader.read()
        writer.close()
    await runner.cleanup()
    assert said.count(b"HTTP/1.1") == 1
    assert said.endswith(b"begun\r\n")
