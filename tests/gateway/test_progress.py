"""Deeds with progress, told as events: what their listeners see when they end in an odd way."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from lemonade.core.inference import JsonObject
from lemonade.core.progress import Progress, ProgressListener
from lemonade.gateway.progress import stream_operation

WAIT = 20.0


class Deeds:
    """A web server with one deed that never ends, and one that is cancelled by somebody else."""

    def __init__(self) -> None:
        self.ended = asyncio.Event()

    async def endless(self, listen: ProgressListener) -> JsonObject:
        try:
            while True:
                listen(Progress(file="x" * 60_000))
                await asyncio.sleep(0)
        finally:
            self.ended.set()

    async def cancelled(self, listen: ProgressListener) -> JsonObject:
        listen(Progress(file="x"))
        raise asyncio.CancelledError

    async def handle(self, request: web.Request) -> web.StreamResponse:
        deed = self.endless if request.path == "/endless" else self.cancelled
        return await stream_operation(request, deed, lambda error: {"error": error.message})


@pytest.fixture
async def deeds() -> AsyncIterator[tuple[Deeds, int]]:
    deeds = Deeds()
    app = web.Application()
    app.router.add_get("/{deed}", deeds.handle)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=1.0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield deeds, runner.addresses[0][1]
    await runner.cleanup()


async def ask(port: int, path: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    await writer.drain()
    return reader, writer


async def test_a_listener_that_leaves_ends_its_part_without_a_word(
    deeds: tuple[Deeds, int], caplog: pytest.LogCaptureFixture
) -> None:
    served, port = deeds
    with caplog.at_level(logging.INFO):
        async with asyncio.timeout(WAIT):
            for _ in range(5):
                reader, writer = await ask(port, "/endless")
                await reader.readexactly(100_000)
                writer.transport.abort()
                await served.ended.wait()
                served.ended.clear()
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]


async def test_a_deed_that_was_cancelled_is_not_called_complete(deeds: tuple[Deeds, int]) -> None:
    async with asyncio.timeout(WAIT):
        reader, writer = await ask(deeds[1], "/cancelled")
        said = (await reader.read()).decode()
        writer.close()
    assert "event: error" in said
    assert "event: complete" not in said
