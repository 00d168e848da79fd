"""A small inference engine that answers like one and misbehaves when told to.

Speaks enough of the OpenAI protocol to be probed, proxied and measured; every bad habit of a real
engine is a switch. It uses the standard library only and is run as a program of its own:

    python fake_engine.py --port 8123 --spawn-engine --ignore-term

A flag it does not know ends it with status 2. `GET /fake/active` counts requests that are being
answered, `GET /fake/last` shows the last inference request as it came, and `POST /fake/crash`,
`/fake/spawn`, `/fake/say?line=`, `/fake/noise?switch=`, `/fake/hang` and `/fake/heal` change its
mind while it runs. A client that leaves is noticed at once, also between two chunks and while a
plain answer is being prepared.
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import json
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn
from urllib.parse import parse_qs, urlsplit

PR_SET_NAME = 15
FOREVER = 3600.0
SHOWN_BODY = 64 * 1024
ANSWERS = ("good", "garbage", "empty", "error", "crash", "never")


class Gone(Exception):
    """The client has left."""


def options_from(argv: list[str]) -> argparse.Namespace:
    """Its switches."""
    parser = argparse.ArgumentParser("fake_engine", allow_abbrev=False)
    add = parser.add_argument
    add("--host", default="127.0.0.1")
    add("--port", type=int, default=8080)
    add("-m", "--model", default="fake.gguf")
    add("--alias", default="")
    add("-c", "--ctx-size", type=int, default=2048, help="shown as meta.n_ctx in /v1/models")
    add("--api-key", default=os.environ.get("LLAMA_API_KEY", ""))
    add("--version", action="version", version="fake-engine 1")
    # its start
    add("--room-for", type=int, default=None, metavar="TOKENS", help="ends with a longer context")
    add("--ready-after", type=float, default=0.0, metavar="SECONDS")
    add("--never-ready", action="store_true")
    add("--prints", default="", metavar="TEXT", help="while starting; \\r and \\n are meant so")
    add("--prints-every", type=float, default=0.0, metavar="SECONDS", help="again and again")
    add("--computes", action="store_true", help="while starting, in a process of its own")
    add("--grows", action="store_true", help="while starting, by 2 MiB a time")
    add("--bind-after", type=float, default=0.0, metavar="SECONDS")
    add("--exit-at-start", type=int, default=None, metavar="CODE")
    add("--signal-at-start", type=int, default=None, metavar="NUMBER")
    add("--exit-after", type=float, default=None, metavar="SECONDS")
    add("--code", type=int, default=0, help="status for --exit-after")
    # its processes
    add("--ignore-term", action="store_true")
    add("--spawn-engine", action="store_true", help="a child renamed VLLM::EngineCore")
    add("--engine-escapes", action="store_true", help="which starts a session of its own")
    add("--engine-ignores-term", action="store_true")
    add("--engine-is-silent", action="store_true", help="which closes its output")
    add("--engine-has-worker", action="store_true", help="which has a child as well")
    add("--double-fork", action="store_true", help="whose parent ends at once")
    # its answers
    add("--chunks", type=int, default=3)
    add("--slow-chunks", type=float, default=0.0, metavar="SECONDS", help="before each chunk")
    add("--drop-mid-stream", type=int, default=None, metavar="CHUNKS")
    add("--crash-after-head", default="", metavar="FILE", help="once: unless the file is there")
    add("--answers", choices=ANSWERS, default="good")
    add("--hang-health", action="store_true")
    add("--embedding-size", type=int, default=4)
    # its output
    add("--print-secrets", action="store_true")
    add("--flood-log", type=int, default=0, metavar="LINES")
    add("--big-lines", type=int, default=0, metavar="BYTES")
    add("--binary-log", action="store_true")
    return parser.parse_args(argv)


def say(text: str) -> None:
    """One line on stderr, whole, whoever else writes."""
    os.write(2, text.encode() + b"\n")


class Engine:
    """What is shared by all connections."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.name = options.alias or options.model
        self.born = time.monotonic()
        self.hanging = options.hang_health
        self.lock = threading.Lock()
        self.counts = {"active": 0, "served": 0, "aborted": 0, "connections": 0}
        self.last: dict[str, object] = {}

    def count(self, **changes: int) -> None:
        """Change the counts of what is going on."""
        with self.lock:
            for what, change in changes.items():
                self.counts[what] += change

    @property
    def ready(self) -> bool:
        """Whether it would answer."""
        waited = time.monotonic() - self.born
        return not self.options.never_ready and waited >= self.options.ready_after


class Connection:
    """One client: reads requests and answers them until either side has enough."""

    def __init__(self, engine: Engine, client: socket.socket) -> None:
        self.engine = engine
        self.client = client
        self.reader = client.makefile("rb")
        self.leaving = select.poll()
        self.leaving.register(client, select.POLLRDHUP | select.POLLHUP | select.POLLERR)

    def run(self) -> None:
        """Answer until the connection ends."""
        self.engine.count(connections=1)
        try:
            while self.answer_one():
                pass
        except (Gone, OSError):
            pass
        finally:
            self.engine.count(connections=-1)
            self.reader.close()
            self.client.close()

    def answer_one(self) -> bool:
        """Read and answer one request; whether there may be another."""
        request = self.reader.readline()
        if not request.strip():
            return False
        method, target, _ = request.decode("latin-1").split(" ", 2)
        headers = []
        while (line := self.reader.readline().decode("latin-1").rstrip("\r\n")) != "":
            name, _, value = line.partition(":")
            headers.append((name.lower(), value.strip()))
        fields = dict(headers)
        if fields.get("expect", "").lower() == "100-continue":
            self.client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = self.read_body(fields)
        url = urlsplit(target)
        if url.path.startswith("/fake/"):
            self.control(method, url.path, parse_qs(url.query))
        elif url.path == "/health":
            self.health()
        elif not self.may_enter(fields):
            self.error(401, "Invalid API Key", "authentication_error")
        elif not self.engine.ready:
            self.error(503, "Loading model", "unavailable_error")
        else:
            self.engine.last = {
                "method": method,
                "target": target,
                "headers": headers,
                "sha256": hashlib.sha256(body).hexdigest(),
                "length": len(body),
                "body": body[:SHOWN_BODY].decode("utf-8", "replace"),
            }
            self.serve(method, url.path, body)
        return fields.get("connection", "").lower() != "close"

    def read_body(self, fields: dict[str, str]) -> bytes:
        """The body, however it is framed."""
        if fields.get("transfer-encoding", "").lower() != "chunked":
            return self.reader.read(int(fields.get("content-length") or 0))
        body = bytearray()
        while size := int(self.reader.readline().split(b";")[0], 16):
            body += self.reader.read(size)
            self.reader.readline()
        while self.reader.readline().strip():
            pass
        return bytes(body)

    def may_enter(self, fields: dict[str, str]) -> bool:
        """Whether the key is right, if there is one."""
        key = self.engine.options.api_key
        return not key or fields.get("authorization") == f"Bearer {key}"

    # ---- what it answers

    def health(self) -> None:
        """200 when ready, 503 before, and nothing while it hangs."""
        if self.engine.hanging:
            self.wait(FOREVER)
        if self.engine.ready:
            self.reply(200, {"status": "ok"})
        else:
            self.error(503, "Loading model", "unavailable_error")

    def control(self, method: str, path: str, query: dict[str, list[str]]) -> None:
        """Let somebody change its mind."""
        match method, path:
            case "GET", "/fake/active":
                self.reply(200, {**self.engine.counts, "pid": os.getpid()})
            case "GET", "/fake/last":
                self.reply(200, self.engine.last)
            case "POST", "/fake/crash":
                if "signal" in query:
                    os.kill(os.getpid(), int(query["signal"][0]))
                os._exit(int(query.get("code", ["70"])[0]))
            case "POST", "/fake/spawn":
                spawn_engine_core(self.engine.options)
                self.reply(200, {"spawned": True})
            case "POST", "/fake/say":
                for line in query["line"]:
                    say(line)
                self.reply(200, {"said": len(query["line"])})
            case "POST", "/fake/noise":
                make_noise(options_from(query["switch"]))
                self.reply(200, {"said": len(query["switch"])})
            case "POST", "/fake/hang" | "/fake/heal":
                self.engine.hanging = path == "/fake/hang"
                self.reply(200, {"hanging": self.engine.hanging})
            case _:
                self.error(404, f"There is no {method} {path}", "not_found_error")

    def serve(self, method: str, path: str, body: bytes) -> None:
        """Answer what an engine is asked."""
        if (method, path) == ("GET", "/v1/models"):
            model = {"id": self.engine.name, "object": "model", "owned_by": "fake"}
            meta = {"n_ctx": self.engine.options.ctx_size}
            self.reply(200, {"object": "list", "data": [{**model, "meta": meta}]})
            return
        if method != "POST" or path not in (
            "/v1/chat/completions",
            "/v1/completions",
            "/v1/embeddings",
        ):
            self.error(404, f"There is no {method} {path}", "not_found_error")
            return
        try:
            request = json.loads(body)
            assert isinstance(request, dict)
        except (ValueError, AssertionError):
            self.error(400, "The body is not a JSON object", "invalid_request_error")
            return
        if self.engine.options.answers != "good":
            self.answer_badly(self.engine.options.answers)
            return
        self.engine.count(active=1)
        aborted = 1
        try:
            if path == "/v1/embeddings":
                self.embed(request)
            elif request.get("stream"):
                self.stream(request, chat=path.endswith("chat/completions"))
            else:
                self.complete(request, chat=path.endswith("chat/completions"))
            aborted = 0
        finally:
            self.engine.count(active=-1, served=1 - aborted, aborted=aborted)

    def answer_badly(self, how: str) -> None:
        """Answer in one of the wrong ways."""
        match how:
            case "garbage":
                page = b"<html>It works!</html>"
                self.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(page) + page)
            case "empty":
                message = {"role": "assistant", "content": ""}
                usage = {"completion_tokens": 0}
                self.reply(200, {"choices": [{"message": message}], "usage": usage})
            case "error":
                self.error(500, "no kernel image is available for execution", "server_error")
            case "crash":
                say("error: no kernel image is available for execution")
                signal.raise_signal(signal.SIGABRT)
                self.wait(FOREVER)
            case _:
                self.wait(FOREVER)

    def embed(self, request: dict[str, object]) -> None:
        """Vectors, all the same."""
        wanted = request.get("input", "")
        texts = wanted if isinstance(wanted, list) else [wanted]
        vector = [round(1 / (n + 1), 6) for n in range(self.engine.options.embedding_size)]
        data = [
            {"object": "embedding", "index": n, "embedding": vector} for n in range(len(texts))
        ]
        usage = {"prompt_tokens": len(texts), "total_tokens": len(texts)}
        reply = {"object": "list", "model": self.engine.name, "data": data, "usage": usage}
        self.reply(200, reply)

    def complete(self, request: dict[str, object], *, chat: bool) -> None:
        """The whole answer at once."""
        words = []
        for number in range(self.chunks(request)):
            self.wait(self.engine.options.slow_chunks)
            words.append(self.word(request, number))
        text = "".join(words)
        said: dict[str, object] = (
            {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
        )
        choice = {"index": 0, "finish_reason": "stop", **said}
        self.reply(200, self.part(chat, [choice], usage=len(words)))

    def stream(self, request: dict[str, object], *, chat: bool) -> None:
        """The answer, word by word."""
        self.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            b"Cache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        count = self.chunks(request)
        once = self.engine.options.crash_after_head
        if once and not Path(once).exists():
            Path(once).touch()
            signal.raise_signal(signal.SIGSEGV)  # this thread dies here
        for number in range(count):
            if number == self.engine.options.drop_mid_stream:
                raise Gone
            self.wait(self.engine.options.slow_chunks)
            word = self.word(request, number)
            said: dict[str, object] = {"delta": {"content": word}} if chat else {"text": word}
            self.event(self.part(chat, [{"index": 0, "finish_reason": None, **said}], chunk=True))
        said = {"delta": {}} if chat else {"text": ""}
        self.event(self.part(chat, [{"index": 0, "finish_reason": "stop", **said}], chunk=True))
        wishes = request.get("stream_options")
        if isinstance(wishes, dict) and wishes.get("include_usage"):
            self.event(self.part(chat, [], usage=count, chunk=True))
        self.piece(b"data: [DONE]\n\n")
        self.send(b"0\r\n\r\n")

    def word(self, _request: dict[str, object], number: int) -> str:
        """A word of the answer."""
        return f"word{number} "

    def chunks(self, request: dict[str, object]) -> int:
        """How many words the answer has."""
        limit = request.get("max_tokens") or request.get("max_completion_tokens")
        wanted: int = self.engine.options.chunks
        return min(wanted, limit) if isinstance(limit, int) else wanted

    def part(
        self, chat: bool, choices: list[object], *, usage: int = 0, chunk: bool = False
    ) -> dict[str, object]:
        """An answer, or a chunk of one."""
        kind = "text_completion"
        if chat:
            kind = "chat.completion.chunk" if chunk else "chat.completion"
        part: dict[str, object] = {
            "id": "fake-1",
            "object": kind,
            "created": 1700000000,
            "model": self.engine.name,
            "choices": choices,
        }
        if usage:
            part["usage"] = {
                "prompt_tokens": 7,
                "completion_tokens": usage,
                "total_tokens": 7 + usage,
            }
        return part

    # ---- the wire

    def event(self, value: dict[str, object]) -> None:
        """One event of a stream."""
        self.piece(b"data: " + json.dumps(value).encode() + b"\n\n")

    def piece(self, data: bytes) -> None:
        """One chunk of a chunked body."""
        self.send(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def error(self, status: int, message: str, kind: str) -> None:
        """A refusal."""
        self.reply(status, {"error": {"message": message, "type": kind, "code": status}})

    def reply(self, status: int, value: object) -> None:
        """A whole answer."""
        data = json.dumps(value).encode()
        head = f"HTTP/1.1 {status} Fake\r\nContent-Type: application/json; charset=utf-8\r\n"
        self.send(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)

    def send(self, data: bytes) -> None:
        """Bytes, unless the client has left."""
        self.wait(0.0)
        self.client.sendall(data)

    def wait(self, seconds: float) -> None:
        """Wait; a client that leaves meanwhile ends the request."""
        if self.leaving.poll(seconds * 1000):
            raise Gone


def become_engine_core(options: argparse.Namespace) -> NoReturn:
    """The grandchild: it holds on, as an engine's own process holds on to its memory."""
    os.closerange(3, 1024)  # no socket: nobody shall wait for this one to close it
    if options.engine_escapes:
        os.setsid()
    if options.engine_ignores_term:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(PR_SET_NAME, b"VLLM::EngineCore", 0, 0, 0)
    if options.engine_has_worker and os.fork() == 0:
        ctypes.CDLL(None).prctl(PR_SET_NAME, b"VLLM::Worker", 0, 0, 0)
        say(f"worker {os.getpid()}")
    else:
        say(f"engine-core {os.getpid()}")
    if options.engine_is_silent:
        nowhere = os.open(os.devnull, os.O_RDWR)
        for descriptor in (1, 2):
            os.dup2(nowhere, descriptor)
    while True:
        time.sleep(FOREVER)


def spawn_engine_core(options: argparse.Namespace) -> None:
    """Start the process that computes, as some engines do."""
    child = os.fork()
    if child == 0:
        if options.double_fork and os.fork() != 0:
            os._exit(0)
        become_engine_core(options)
    if options.double_fork:
        os.waitpid(child, 0)


def make_noise(options: argparse.Namespace) -> None:
    """Print what nobody wants to read."""
    if options.print_secrets:
        say(f"argv: {sys.argv!r}")
        say(f"environ: {dict(os.environ)!r}")
    for number in range(options.flood_log):
        say(f"flood {number} error: 0 errors so far")
    if options.big_lines:
        say("x" * options.big_lines)
    if options.binary_log:
        os.write(1, bytes(range(256)) * 4 + b"\n\0\0\0 after the noise \xff\xfe\n")


def work_at_start(engine: Engine) -> None:
    """Show work, of the kinds that were asked for, until it is ready."""
    options = engine.options
    if options.prints:
        text = options.prints.encode().decode("unicode_escape").encode()

        def speak() -> None:
            os.write(2, text)
            while options.prints_every and not engine.ready:
                time.sleep(options.prints_every)
                os.write(2, text)

        threading.Thread(target=speak, daemon=True).start()
    if options.computes and os.fork() == 0:
        while not engine.ready and os.getppid() != 1:
            pass
        os._exit(0)
    if options.grows:

        def grow() -> None:
            held = bytearray()
            while not engine.ready:
                held += b"x" * (2 << 20)
                time.sleep(0.05)

        threading.Thread(target=grow, daemon=True).start()


def main(
    argv: list[str],
    read: Callable[[list[str]], argparse.Namespace] = options_from,
    kind: type[Connection] = Connection,
) -> NoReturn:
    """Be an engine until somebody ends it."""
    options = read(argv)
    if options.ignore_term:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    if options.room_for is not None and options.ctx_size > options.room_for:
        say(f"ValueError: the estimated maximum model length is {options.room_for}. Try less.")
        for number in range(60):
            say(f"  frame {number} of a long traceback")
        sys.exit(1)
    if options.exit_at_start is not None:
        say(f"error: failed to load the model '{options.model}'")
        say("error: giving up")
        sys.exit(options.exit_at_start)
    if options.signal_at_start is not None:
        say(f"error: loading the model '{options.model}'")
        os.kill(os.getpid(), options.signal_at_start)
    if options.spawn_engine:
        spawn_engine_core(options)
    make_noise(options)
    if options.exit_after is not None:
        timer = threading.Timer(options.exit_after, os._exit, [options.code])
        timer.daemon = True
        timer.start()
    time.sleep(options.bind_after)
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((options.host, options.port))
    except OSError as error:
        say(f"error: couldn't bind HTTP server socket, port {options.port}: {error.strerror}")
        sys.exit(1)
    listener.listen(1024)
    engine = Engine(options)
    work_at_start(engine)
    say(f"listening on http://{options.host}:{listener.getsockname()[1]}")
    while True:
        client, _ = listener.accept()
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=kind(engine, client).run, daemon=True).start()


if __name__ == "__main__":
    main(sys.argv[1:])
