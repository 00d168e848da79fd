"""Both ends of the relay, with every bad habit a test wants: an engine told line by line what to
send, a web server around `relay`, and a client that sees raw bytes."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Self

from aiohttp import web

from lemonade.core.errors import UpstreamError
from lemonade.core.process import Endpoint
from lemonade.dialects import UsageSieve
from lemonade.gateway.streaming import BufferedError, RelayOutcome, relay
from lemonade.telemetry import UsageTap
from lemonade.upstream import Upstream, UpstreamRequest

WAIT = 20.0


@dataclass
class Asked:
    """A request as an engine got it."""

    line: str
    headers: dict[str, str]
    body: bytes


class Peer:
    """One accepted connection of the engine."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.left = asyncio.Event()

    async def request(self) -> Asked:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        line, *fields = head[:-4].split("\r\n")
        headers = {}
        for field in fields:
            name, _, value = field.partition(":")
            headers[name.lower()] = value.strip()
        body = await self.reader.readexactly(int(headers.get("content-length", 0)))
        return Asked(line, headers, body)

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, body: bytes, *, status: str = "200 OK", more: str = "") -> None:
        await self.send(
            f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{more}\r\n".encode() + body
        )

    def close(self) -> None:
        self.writer.close()

    def reset(self) -> None:
        """End the connection as a process does that is killed with unread data."""
        handle = self.writer.get_extra_info("socket")
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def gone(self) -> None:
        """Return when the other side has closed the connection."""
        try:
            while await self.reader.read(65536):
                pass
        except ConnectionError:
            pass


Script = Callable[[Peer], Awaitable[None]]


class Engine:
    """Runs one script for each connection. What a script raises fails the test."""

    def __init__(self) -> None:
        self.peers: list[Peer] = []
        self.asked: list[Asked] = []
        self.failures: list[BaseException] = []
        self.script: Script = self.echo
        self._news = asyncio.Condition()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.endpoint = Endpoint("127.0.0.1", self._server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()
        assert not self.failures, self.failures

    async def stop(self) -> None:
        """Accept no more; existing connections are broken."""
        self._server.close()
        for peer in self.peers:
            peer.writer.transport.abort()
        for peer in self.peers:
            await peer.left.wait()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer)
        self.peers.append(peer)
        await self._tell()
        try:
            await self.script(peer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        except BaseException as failure:  # noqa: BLE001
            self.failures.append(failure)
        finally:
            writer.close()
            peer.left.set()
            await self._tell()

    async def echo(self, peer: Peer) -> None:
        """Answer every request with its own body."""
        while True:
            asked = await self.hear(peer)
            await peer.answer(asked.body)

    async def hear(self, peer: Peer) -> Asked:
        asked = await peer.request()
        self.asked.append(asked)
        await self._tell()
        return asked

    async def _tell(self) -> None:
        async with self._news:
            self._news.notify_all()

    async def until(self, what: Callable[[], bool]) -> None:
        """Wait for something that changes when a connection or a request comes or goes."""
        async with asyncio.timeout(WAIT), self._news:
            await self._news.wait_for(what)


class Front:
    """A web server that relays everything to one engine."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.upstream = Upstream(endpoint)
        self.outcomes: list[RelayOutcome | BufferedError | BaseException] = []
        self.buffer_errors = False
        self.patience: float | None = None
        self.extra_headers: tuple[tuple[str, str], ...] = (("X-Request-Id", "r1"),)
        self.taps: list[UsageTap] = []
        self.sieves = False

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=256 << 20)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=1.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port: int = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.upstream.aclose()
        await self._runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        wanted = UpstreamRequest(
            method=request.method,
            path=request.path_qs,
            body=await request.read(),
            headers=tuple(request.headers.items()),
            patience=self.patience,
        )
        tap = UsageTap(stream=True)
        self.taps.append(tap)
        try:
            outcome = await relay(
                request,
                self.upstream,
                wanted,
                extra_headers=self.extra_headers,
                tap=tap,
                sieve=UsageSieve() if self.sieves else None,
                buffer_errors=self.buffer_errors,
            )
        except UpstreamError as error:
            self.outcomes.append(error)
            return web.json_response({"error": error.code}, status=502)
        except BaseException as error:
            self.outcomes.append(error)
            raise
        self.outcomes.append(outcome)
        if isinstance(outcome, BufferedError):
            return web.Response(status=outcome.status, body=b"wrapped " + outcome.body)
        return outcome.response

    async def client(self, *, small: bool = False) -> Client:
        handle = socket.socket()
        handle.setblocking(False)
        if small:
            handle.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        await asyncio.get_running_loop().sock_connect(handle, ("127.0.0.1", self.port))
        reader, writer = await asyncio.open_connection(sock=handle, limit=4096)
        return Client(reader, writer)


@dataclass
class Answer:
    """What a client got, byte for byte."""

    head: str
    raw: bytes

    @property
    def status(self) -> int:
        return int(self.head.split(" ")[1])

    def header(self, name: str) -> str | None:
        values = self.values(name)
        return values[0] if values else None

    def values(self, name: str) -> list[str]:
        lines = [line.partition(": ") for line in self.head.split("\r\n")[1:]]
        return [value for field, _, value in lines if field.lower() == name.lower()]


class Client:
    """A connection to the web server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.transport.abort()

    async def post(
        self,
        body: bytes = b"{}",
        *,
        version: str = "1.1",
        more: str = "",
        method: str = "POST",
        path: str = "/v1/x",
    ) -> None:
        self.writer.write(
            f"{method} {path} HTTP/{version}\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
            f"{more}\r\n".encode()
            + body
        )
        await self.writer.drain()

    async def head(self) -> str:
        return (await self.reader.readuntil(b"\r\n\r\n"))[:-4].decode("latin-1")

    async def answer(self, length: int | None = None) -> Answer:
        """The next answer: `length` raw bytes after the head, or all of a known framing."""
        answer = Answer(await self.head(), b"")
        if length is not None:
            answer.raw = await self.reader.readexactly(length)
        elif answer.header("Transfer-Encoding") == "chunked":
            while not answer.raw.endswith(b"0\r\n\r\n"):
                answer.raw += await self.reader.readuntil(b"\r\n")
        elif (known := answer.header("Content-Length")) is not None:
            answer.raw = await self.reader.readexactly(int(known))
        else:
            answer.raw = await self.reader.read(-1)
        return answer


ASK = UpstreamRequest(method="POST", path="/v1/chat/completions", body=b'{"a":1}')


async def ask(upstream: Upstream, request: UpstreamRequest = ASK) -> tuple[int, bytes]:
    async with asyncio.timeout(WAIT), await upstream.send(request) as response:
        return response.status, await response.read()
