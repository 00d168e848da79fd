"""A server with an engine that does as each request says, and a client that sees raw bytes."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

from tests.serving import (
    PATIENCE,
    PROGRAMS,
    Serving,
    eventually,
    fake_catalog,
    fake_model,
    serving,
    survivors,
)

CHAT = b"/v1/chat/completions"
_LABELS = {"vectors": "embeddings", "order": "reranking"}
"""Models of these names are for something else than chatting."""

STREAM_HEAD = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
CHUNKED = "Transfer-Encoding: chunked\r\n\r\n"


@dataclass
class Told:
    """A running server, and the book its engines write."""

    server: Serving
    book: Path

    def lines(self) -> list[str]:
        return self.book.read_text().splitlines() if self.book.exists() else []

    def asked(self, note: str) -> int:
        return self.lines().count(f"asked {note}")

    def left(self, note: str) -> None:
        """Wait until an engine has seen that nobody waits for its answer."""
        eventually(lambda: f"left {note}" in self.lines(), f"the engine is left alone: {note}")

    def engine(self, model: str) -> str:
        url: str = self.server.loaded()[model]["backend_url"]
        return url.removesuffix("/v1")

    def go(self, model: str, name: str) -> None:
        url = f"{self.engine(model)}/fake/go?name={name}"
        assert requests.post(url, timeout=PATIENCE).status_code == 200

    def idle(self, model: str) -> None:
        """Wait until nobody uses it."""
        eventually(
            lambda: (
                self.server.loaded().get(model, {"active_requests": 0})["active_requests"] == 0
            ),
            f"{model} is idle",
        )

    @contextmanager
    def wire(self, *, small: bool = False) -> Iterator[Wire]:
        with wire(int(self.server.url.rpartition(":")[2]), small=small) as one:
            yield one


@contextmanager
def told(home: Path, *models: str, workers: int = 0, **config: object) -> Iterator[Told]:
    """A server with these models, none of them loaded; at the end nothing of it is alive."""
    catalog = fake_catalog(home, program=PROGRAMS / "told_engine.py")
    recipe = catalog / "recipes" / "fake.toml"
    operations = "[upstream.operations]\n"
    more = 'responses = "/v1/responses"\nrerank = "/v1/rerank"\n'
    text = recipe.read_text().replace(operations, operations + more)
    recipe.write_text(text.replace('"embeddings"]', '"embeddings", "reranking"]'))
    book = home / "book"
    for model in models:
        label = _LABELS.get(model, "chat")
        fake_model(catalog, model, label=label, args=f"--book {book}")
    args = ("--workers", str(workers)) if workers else ()
    with serving(home, *args, env={"LEMONADE_CATALOG": str(catalog)}, config=config) as one:
        yield Told(one, book)
        eventually(
            lambda: not any(row["active_requests"] for row in one.loaded().values()),
            "nobody is served any more",
        )
    assert "Traceback" not in one.log()
    assert not survivors(home)


@dataclass
class Heard:
    """An answer as it came."""

    status: int
    head: bytes
    fields: dict[str, str]
    raw: bytes
    body: bytes
    """Without chunks."""

    chunks: list[bytes] = field(default_factory=list)
    whole: bool = True

    def json(self) -> Any:
        return json.loads(self.body)

    def events(self) -> list[bytes]:
        return [event for event in self.body.split(b"\n\n") if event.startswith(b"data:")]


class Ended(Exception):
    """The other side closed the connection, or broke it."""


class Wire:
    """A connection, byte by byte."""

    def __init__(self, raw: socket.socket) -> None:
        self._raw = raw
        self._buffer = b""

    def say(self, data: bytes) -> None:
        self._raw.sendall(data)

    def close(self) -> None:
        self._raw.close()

    def ended(self) -> bool:
        """Whether nothing more comes and the connection is closed."""
        try:
            self._more()
        except Ended:
            return not self._buffer
        return False

    def begun(self) -> None:
        """Wait for the beginning of an answer."""
        if not self._buffer:
            self._more()

    def rest(self) -> bytes:
        """Everything until the connection ends."""
        try:
            while True:
                self._more()
        except Ended:
            return self._buffer

    def line(self) -> bytes:
        while b"\r\n" not in self._buffer:
            self._more()
        line, _, self._buffer = self._buffer.partition(b"\r\n")
        return line

    def take(self, size: int) -> bytes:
        parts = [self._buffer]
        come = len(self._buffer)
        while come < size:
            self._buffer = b""
            self._more()
            parts.append(self._buffer)
            come += len(self._buffer)
        whole = b"".join(parts)
        self._buffer = whole[size:]
        return whole[:size]

    def hear(self, *, interim: bool = False) -> Heard:
        """The next answer; `whole` is false if it broke off after its head."""
        while b"\r\n\r\n" not in self._buffer:
            self._more()
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        line, *rest = head.decode("latin-1").split("\r\n")
        fields = {one.partition(":")[0].lower(): one.partition(":")[2].strip() for one in rest}
        status = int(line.split(" ")[1])
        if status < 200 and not interim:
            return self.hear()
        heard = Heard(status, head, fields, b"", b"")
        try:
            self._hear_body(heard)
        except Ended:
            heard.whole = False
        heard.body = b"".join(heard.chunks)
        return heard

    def _hear_body(self, heard: Heard) -> None:
        if heard.status < 200 or heard.status in (204, 304):
            return
        if heard.fields.get("transfer-encoding") == "chunked":
            while size := self._chunk(heard):
                assert size
            while line := self.line():
                heard.raw += line + b"\r\n"
            heard.raw += b"\r\n"
        elif "content-length" in heard.fields:
            heard.raw = self.take(int(heard.fields["content-length"]))
            heard.chunks.append(heard.raw)
        else:
            try:
                while True:
                    self._more()
            except Ended as end:
                heard.raw, self._buffer = self._buffer, b""
                heard.chunks.append(heard.raw)
                heard.whole = not end.args

    def _chunk(self, heard: Heard) -> int:
        line = self.line()
        size = int(line.split(b";")[0], 16)
        if size:
            data = self.take(size + 2)
            assert data.endswith(b"\r\n")
            heard.raw += line + b"\r\n" + data
            heard.chunks.append(data[:-2])
        else:
            heard.raw += line + b"\r\n"
        return size

    def _more(self) -> None:
        try:
            data = self._raw.recv(1 << 18)
        except ConnectionError as error:
            raise Ended("broken") from error
        if not data:
            raise Ended
        self._buffer += data


@contextmanager
def wire(port: int, *, small: bool = False) -> Iterator[Wire]:
    with socket.socket() as raw:
        raw.settimeout(PATIENCE)
        if small:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        raw.connect(("127.0.0.1", port))
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield Wire(raw)


def body(model: str, *, stream: bool = False, **fake: object) -> bytes:
    """A chat that tells the engine what to do."""
    messages = [{"role": "user", "content": "x"}]
    asked = {"model": model, "messages": messages, "stream": stream, "fake": fake}
    return json.dumps(asked).encode()


def post(what: bytes, *fields: bytes, path: bytes = CHAT, way: str = "fast") -> bytes:
    """A request with that body, on one of the ways through the server.

    A query, chunks and an older version leave the relay of the front out: nothing else does.
    """
    version = b"1.0" if way == "old" else b"1.1"
    if way == "slow":
        path += b"?x=1"
    sized = b"Content-Length: %d" % len(what)
    if way == "chunks":
        sized = b"Transfer-Encoding: chunked"
        what = b"%x\r\n%b\r\n0\r\n\r\n" % (len(what), what)
    lines = (b"POST %b HTTP/%b" % (path, version), b"Host: x", sized, *fields)
    return b"\r\n".join((*lines, b"", what))


def event(text: str) -> str:
    """A chunk with one event."""
    said = f"data: {text}\n\n"
    return f"{len(said.encode()):x}\r\n{said}\r\n"
