"""An inference engine that does what each request tells it, byte for byte.

A request may hold an object `fake` with `steps`, a list of what is done in answer to it:

    ["send", text]          these bytes (text in Latin-1), handed to the network at once
    ["stream", seed, n, size, seconds]   n pieces of `stream_pieces`, one in so many seconds
    ["gather", name, n]     wait until n requests have come this far
    ["pause", name]         wait until `POST /fake/go?name=`
    ["close"]               end the connection in order
    ["reset"]               end it as a process does that is killed
    ["die"]                 be killed
    ["stay"]                wait until the client has left, and note that

Instead of `steps` it may hold `asks`, such lists for the first time it is asked, the second and so
on; the last stands for all that follow. What is asked is known by its `note`. Notes are written to
the file `--book`, a line each, and so outlive this process: `asked NOTE`, `left NOTE`.

Without a `fake` the answer is a small one that tells the digest of the body. It uses the standard
library only and is run as a program of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import random
import signal
import socket
import struct
import sys
from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit


def stream_pieces(seed: int, count: int, size: int) -> Iterator[bytes]:
    """Chunks of a stream as they go over the network: events of about that size, all different."""
    chance = random.Random(seed)
    filler = chance.randbytes(max(1, size // 2)).hex()
    for number in range(count):
        at = chance.randrange(len(filler))
        text = f'data: {{"{seed}-{number}":"{filler[at:] + filler[:at]}"}}\n\n'.encode()
        yield b"%x\r\n%b\r\n" % (len(text), text)


class Engine:
    """What all connections share."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.name = options.alias or options.model
        self.book = options.book
        self.gathered: dict[str, int] = {}
        self.news: dict[str, asyncio.Event] = {}
        self.last: dict[str, object] = {}
        self.streamed = 0

    def write(self, line: str) -> None:
        if self.book:
            with open(self.book, "a", encoding="utf-8") as book:  # noqa: PTH123
                book.write(line + "\n")

    def read(self) -> list[str]:
        if not self.book or not os.path.exists(self.book):  # noqa: PTH110
            return []
        with open(self.book, encoding="utf-8") as book:  # noqa: PTH123
            return book.read().splitlines()

    def event(self, name: str) -> asyncio.Event:
        return self.news.setdefault(name, asyncio.Event())


class Connection:
    """One client, request after request."""

    def __init__(
        self, engine: Engine, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.engine = engine
        self.reader = reader
        self.writer = writer

    async def run(self) -> None:
        try:
            while await self.answer_one():
                pass
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self.writer.close()

    async def answer_one(self) -> bool:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        line, *rest = head[:-4].split("\r\n")
        method, target, _ = line.split(" ")
        pairs = [(field.partition(":")[0], field.partition(":")[2].strip()) for field in rest]
        fields = {name.lower(): value for name, value in pairs}
        body = await self.reader.readexactly(int(fields.get("content-length", 0)))
        url = urlsplit(target)
        if url.path.startswith("/fake/"):
            return await self.control(url.path, parse_qs(url.query))
        if method == "GET":
            return await self.say({"status": "ok", "data": [{"id": self.engine.name}]})
        self.engine.last = {"target": target, "headers": pairs, "body": body.decode("latin-1")}
        told: dict[str, object] = {}
        try:
            given = json.loads(body)
            if isinstance(given, dict) and isinstance(given.get("fake"), dict):
                told = given["fake"]
        except ValueError:
            pass
        return await self.obey(told, url.path, body)

    async def control(self, path: str, query: dict[str, list[str]]) -> bool:
        name = query.get("name", [""])[0]
        if path == "/fake/go":
            self.engine.event(name).set()
        elif path == "/fake/last":
            return await self.say(self.engine.last)
        return await self.say({"pid": os.getpid(), "streamed": self.engine.streamed})

    async def say(self, value: object) -> bool:
        data = json.dumps(value).encode()
        self.writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
            % len(data)
        )
        self.writer.write(data)
        await self.writer.drain()
        return True

    async def obey(self, told: dict[str, object], path: str, body: bytes) -> bool:
        note = str(told.get("note", ""))
        if note:
            self.engine.write(f"asked {note}")
        steps = told.get("steps")
        asks = told.get("asks")
        if isinstance(asks, list):
            turn = self.engine.read().count(f"asked {note}")
            steps = asks[min(turn, len(asks)) - 1]
        if not isinstance(steps, list):
            digest = hashlib.sha256(body).hexdigest()
            usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
            return await self.say({"path": path, "sha256": digest, "usage": usage})
        for step in steps:
            if not await self.take(step, note):
                return False
        return True

    async def take(self, step: list[object], note: str) -> bool:
        """One step; whether the connection goes on."""
        match step:
            case ["send", str(text)]:
                self.writer.write(text.encode("latin-1"))
                await self.writer.drain()
                await asyncio.sleep(0)
            case ["stream", int(seed), int(count), int(size), int() | float() as seconds]:
                for piece in stream_pieces(seed, count, size):
                    self.writer.write(piece)
                    self.engine.streamed += len(piece)
                    await self.writer.drain()
                    await asyncio.sleep(seconds)
            case ["gather", str(name), int(many)]:
                come = self.engine.gathered[name] = self.engine.gathered.get(name, 0) + 1
                if come >= many:
                    self.engine.event(name).set()
                await self.engine.event(name).wait()
            case ["pause", str(name)]:
                await self.engine.event(name).wait()
            case ["close"]:
                return False
            case ["reset"]:
                handle = self.writer.get_extra_info("socket")
                handle.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.writer.transport.abort()
                return False
            case ["die"]:
                os.kill(os.getpid(), signal.SIGKILL)
            case ["stay"]:
                try:
                    while await self.reader.read(65536):
                        pass
                except OSError:
                    pass
                self.engine.write(f"left {note}")
                return False
            case _:
                raise AssertionError(f"no such step: {step}")
        return True


async def serve(options: argparse.Namespace) -> None:
    engine = Engine(options)

    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await Connection(engine, reader, writer).run()

    server = await asyncio.start_server(
        accepted, options.host, options.port, limit=1 << 20, backlog=2048
    )
    async with server:
        await server.serve_forever()


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser("told_engine", allow_abbrev=False)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("-m", "--model", default="fake.gguf")
    parser.add_argument("--alias", default="")
    parser.add_argument("--book", default="")
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    asyncio.run(serve(parser.parse_args(argv)))


if __name__ == "__main__":
    main(sys.argv[1:])
