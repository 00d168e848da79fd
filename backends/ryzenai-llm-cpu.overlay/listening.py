"""As much HTTP/1.1 as a private server on the loopback needs, on asyncio.

One request at a time on a connection, kept open between them. Bodies come with a length or in
chunks; answers go out with a length, or in chunks as they are made. Whoever hangs up while his
answer is being made is noticed. Connections, heads and bodies have limits; there are no threads.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from http import HTTPStatus

CONNECTIONS = 256
HEAD_LIMIT = 64 * 1024
BODY_LIMIT = 64 * 1024 * 1024


@dataclass(frozen=True)
class Request:
    """What a client asked. Names of headers are in small letters."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass
class Reply:
    """An answer: in one piece, or `stream`, whose every item is sent at once.

    The stream is closed when the client hangs up before its end.
    """

    status: int = 200
    body: bytes = b""
    kind: str = "application/json"
    stream: AsyncGenerator[bytes, None] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


Handler = Callable[[Request], Awaitable[Reply]]
Connected = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Bad(Exception):
    """A request that is no HTTP, or too large."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def as_json(document: object, status: int = 200, **headers: str) -> Reply:
    """A reply that is a JSON document."""
    return Reply(status, json.dumps(document, ensure_ascii=False).encode(), headers=headers)


class _Watched(asyncio.StreamReaderProtocol):
    """A connection that says when its client has hung up, whoever is reading.

    Attributes:
        hung_up: set then.
    """

    def __init__(self, reader: asyncio.StreamReader, connected: Connected) -> None:
        super().__init__(reader, connected)
        self.hung_up = asyncio.Event()

    def eof_received(self) -> bool | None:
        self.hung_up.set()
        return super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self.hung_up.set()
        super().connection_lost(exc)


class Listener:
    """Serves a handler to many connections."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._open = 0

    async def listen(self, host: str, port: int) -> tuple[asyncio.Server, int]:
        """Begin; returns the port as well, for 0 takes a free one.

        Raises:
            OSError: it is taken.
        """

        def accept() -> _Watched:
            return _Watched(asyncio.StreamReader(HEAD_LIMIT), self._connected)

        server = await asyncio.get_running_loop().create_server(accept, host, port)
        return server, server.sockets[0].getsockname()[1]

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            if self._open > CONNECTIONS:
                await _send(writer, _trouble(503, "There are too many connections."), last=True)
            else:
                while await self._one(reader, writer):
                    pass
        except (ConnectionError, asyncio.IncompleteReadError, TimeoutError):
            pass  # the client left
        finally:
            self._open -= 1
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Serve one request; whether another may follow."""
        try:
            request = await _read(reader, writer)
        except Bad as error:
            await _send(writer, _trouble(error.status, str(error)), last=True)
            return False
        if request is None:
            return False
        last = request.headers.get("connection", "").lower() == "close"
        protocol = writer.transport.get_protocol()
        assert isinstance(protocol, _Watched)
        left = asyncio.ensure_future(protocol.hung_up.wait())
        answer = asyncio.ensure_future(self._answer(request, writer, last=last))
        try:
            await asyncio.wait((left, answer), return_when=asyncio.FIRST_COMPLETED)
            if answer.done():
                answer.result()
            return answer.done() and not last
        finally:
            left.cancel()
            answer.cancel()
            await asyncio.wait((left, answer))

    async def _answer(self, request: Request, writer: asyncio.StreamWriter, *, last: bool) -> None:
        await _send(writer, await self._handler(request), last=last)


async def _read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Request | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if error.partial.strip():
            raise Bad(400, "The request ends in its head.") from error
        return None
    except asyncio.LimitOverrunError as error:
        raise Bad(431, "The head of the request is too large.") from error
    first, *lines = head.decode("latin-1").split("\r\n")
    words = first.split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        raise Bad(400, "That is no HTTP request.")
    headers = {}
    for line in filter(None, lines):
        name, colon, value = line.partition(":")
        if not colon or name.strip() != name:
            raise Bad(400, "A header of the request cannot be read.")
        headers[name.lower()] = value.strip()
    if headers.get("expect", "").lower() == "100-continue":
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    body = await _body(reader, headers)
    if words[2] == "HTTP/1.0":
        headers["connection"] = "close"
    return Request(words[0], words[1].partition("?")[0], headers, body)


async def _body(reader: asyncio.StreamReader, headers: Mapping[str, str]) -> bytes:
    if "chunked" in headers.get("transfer-encoding", "").lower():
        return await _chunks(reader)
    length = headers.get("content-length", "0")
    if not (length.isascii() and length.isdigit()):
        raise Bad(400, "The length of the body is no number.")
    return await reader.readexactly(_allowed(int(length)))


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while True:
        line = (await reader.readline()).split(b";")[0].strip()
        try:
            size = int(line, 16)
        except ValueError as error:
            raise Bad(400, "A chunk of the body has no size.") from error
        _allowed(len(body) + size)
        chunk = await reader.readexactly(max(size, 0))
        if not size:
            while (await reader.readline()).strip():
                pass  # trailers
            return body
        body += chunk
        await reader.readline()


def _allowed(size: int) -> int:
    if not 0 <= size <= BODY_LIMIT:
        raise Bad(413, "The body of the request is too large.")
    return size


async def _send(writer: asyncio.StreamWriter, reply: Reply, *, last: bool) -> None:
    head = [f"HTTP/1.1 {reply.status} {HTTPStatus(reply.status).phrase}"]
    head += [f"Content-Type: {reply.kind}", *(f"{k}: {v}" for k, v in reply.headers.items())]
    head += ["Connection: close"] if last else []
    if reply.stream is None:
        head.append(f"Content-Length: {len(reply.body)}")
        writer.write("\r\n".join([*head, "", ""]).encode("latin-1") + reply.body)
        await writer.drain()
        return
    head += ["Transfer-Encoding: chunked", "Cache-Control: no-cache"]
    writer.write("\r\n".join([*head, "", ""]).encode("latin-1"))
    async with aclosing(reply.stream) as stream:
        async for piece in stream:
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            await writer.drain()
    writer.write(b"0\r\n\r\n")
    await writer.drain()


def _trouble(status: int, message: str) -> Reply:
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": None}
    return as_json({"error": error}, status)
