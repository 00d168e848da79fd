"""A house for connections without a server around it: who they ask, and a clock to turn.

What is relayed is answered by `Echo`, in as many turns of the loop as the request says; all else
goes to a real aiohttp application. The connection itself is real: a pair of sockets.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

from aiohttp import web

from lemonade.config import AccessKeys
from lemonade.front.delegate import Delegate
from lemonade.relay.client import Client
from lemonade.relay.entrance import Entrance, Entry

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

WAIT = 20.0
_DATE = re.compile(rb"Date: [^\r]*\r\n")


class Clock:
    """The one thing of a loop that a connection asks for."""

    def __init__(self) -> None:
        self.now = 1000.0

    def time(self) -> float:
        return self.now


class Echo:
    """Answers with what it was asked: in one piece, or as a stream of `n` pieces."""

    def __init__(self, client: Client, entry: Entry, body: bytes) -> None:
        self.client = client
        self.stays = entry.head.stays
        self.asked = json.loads(body)
        self.body = body
        self.abandoned = False
        self.resumed = 0

    def begin(self) -> None:
        if self.asked.get("model") == "silent":
            return
        asyncio.get_running_loop().call_soon(self.answer, self.asked.get("n", 0))

    def answer(self, left: int) -> None:
        if self.abandoned:
            return
        if not self.asked.get("n"):
            self.client.answer(200, self.body, b"X-Echo: yes\r\n", stays=self.stays)
            self.client.answered(stays=self.stays)
            return
        if left == self.asked["n"]:
            self.client.transport.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        if left:
            self.client.transport.write(b"4\r\n%04d\r\n" % left)
            asyncio.get_running_loop().call_soon(self.answer, left - 1)
        else:
            self.client.transport.write(b"0\r\n\r\n")
            self.client.answered(stays=self.stays)

    def resume(self) -> None:
        self.resumed += 1

    def abandon(self) -> None:
        self.abandoned = True


class Counting(Delegate):
    """A delegate that keeps count of what aiohttp calls."""

    finished: int = 0

    async def finish_response(self, *args: Any, **kwargs: Any) -> Any:
        self.finished += 1
        return await super().finish_response(*args, **kwargs)


class TestHouse:
    """Where connections of a test are accepted."""

    __test__ = False

    def __init__(self, server: web.Server) -> None:
        self.clients: set[Client] = set()
        self.closing = False
        self.loop: Any = Clock()
        self.answers: list[Echo] = []
        self.calls: list[Call] = []
        self.delegates: list[Counting] = []
        self._server = server
        self._entrance = Entrance(AccessKeys())

    def read(self, block: bytes) -> Entry:
        return self._entrance.read(block)

    def open(self, client: Client, entry: Entry, body: bytes) -> Echo | None:
        if b"elsewhere" in body:
            return None
        echo = Echo(client, entry, body)
        self.answers.append(echo)
        return echo

    def help(self, client: Client) -> Delegate:
        one = Counting(self._server, asyncio.get_running_loop())
        self.delegates.append(one)
        return one

    def part_with(self, client: Client, data: bytes) -> None:
        raise AssertionError("everybody gets a delegate")

    async def call(self) -> Call:
        """A connection: its client side, and what the house made of it."""
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        _, client = await asyncio.get_running_loop().connect_accepted_socket(
            lambda: Client(self), ours
        )
        reader, writer = await asyncio.open_connection(sock=theirs, limit=1 << 22)
        call = Call(client, reader, writer)
        self.calls.append(call)
        return call


class Call:
    """A client's side."""

    def __init__(
        self, client: Client, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.client = client
        self.reader = reader
        self.writer = writer

    def say(self, data: bytes) -> None:
        """As if these bytes had come in one block."""
        self.client.data_received(data)

    async def rest(self) -> bytes:
        """Everything until the house closes, without what differs from second to second."""
        async with asyncio.timeout(WAIT):
            said = await self.reader.read(-1)
        self.hang_up()
        return _DATE.sub(b"", said)

    async def hear(self, *, bodiless: bool = False) -> tuple[int, bytes, bytes]:
        """The next answer: status, head and body, which has a length."""
        async with asyncio.timeout(WAIT):
            head = await self.reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"(?i)content-length: (\d+)", head)
            size = int(length[1]) if length and not bodiless else 0
            return int(head.split()[1]), head, await self.reader.readexactly(size)

    def hang_up(self) -> None:
        self.writer.transport.abort()

    async def leave(self) -> None:
        self.hang_up()
        with suppress(ConnectionError):
            await self.writer.wait_closed()


def post(
    body: bytes, *fields: bytes, path: bytes = b"/v1/chat/completions", version: bytes = b"1.1"
) -> bytes:
    length = b"Content-Length: %d" % len(body)
    lines = (b"POST %b HTTP/%b" % (path, version), b"Host: x", length, *fields)
    return b"\r\n".join((*lines, b"", body))


def get(path: bytes = b"/live", *fields: bytes, method: bytes = b"GET") -> bytes:
    return b"\r\n".join((b"%b %b HTTP/1.1" % (method, path), b"Host: x", *fields, b"", b""))


async def _live(_request: web.Request) -> web.Response:
    return web.Response(text="alive")


async def _echo(request: web.Request) -> web.Response:
    return web.Response(body=await request.read())


async def _refuse(request: web.Request) -> web.Response:
    await request.read()
    raise web.HTTPNotFound


async def _stream(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    for number in range(3):
        await response.write(b"piece %d " % number)
        await asyncio.sleep(0)
    await response.write_eof()
    return response


def ordinary() -> web.Application:
    """What an application has, in small."""
    app = web.Application(client_max_size=1 << 20)
    app.router.add_get("/live", _live, allow_head=True)
    app.router.add_get("/stream", _stream)
    app.router.add_post("/v1/chat/completions", _echo)
    app.router.add_post("/v1/upload", _echo)
    app.router.add_post("/v1/refused", _refuse)
    return app


@asynccontextmanager
async def house(app: web.Application | None = None) -> AsyncIterator[TestHouse]:
    """A house; at the end nobody is in it, and no task of it is left."""
    before = asyncio.all_tasks()
    runner = web.AppRunner(
        app or ordinary(), handle_signals=False, handler_cancellation=True, access_log=None
    )
    await runner.setup()
    assert runner.server is not None
    one = TestHouse(runner.server)
    try:
        yield one
    finally:
        for call in one.calls:
            await call.leave()
        await runner.cleanup()
    async with asyncio.timeout(WAIT):
        while one.clients or asyncio.all_tasks() - before:
            await asyncio.sleep(0)
