"""Which process has a connection, and connections that a given kind of process has.

The kernel deals connections out, so a test that wants one at a worker opens some until it has it.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.serving import Serving, eventually, gone

HELLO = [{"role": "user", "content": "Hello"}]


def chat_body(model: str, **more: Any) -> bytes:
    return json.dumps({"model": model, "messages": HELLO, **more}).encode()


def children(pid: int, word: str) -> list[int]:
    """Processes below, alive, with a word in their command line."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            try:
                words = Path(f"/proc/{child}/cmdline").read_bytes()
            except OSError:
                continue
            if word.encode() in words and not gone(child):
                found.append(child)
    return found


def workers(server: Serving) -> list[int]:
    """The worker processes of a server."""
    return children(server.process.pid, "lemonade.relay.worker")


def when_ready(server: Serving, number: int) -> list[int]:
    """Wait until so many workers accept; their numbers."""

    def ready() -> bool:
        said: int = server.get("health").json()["workers"]["ready"]
        return said == number

    eventually(ready, f"{number} workers are ready")
    return workers(server)


def inode_at_the_server(connection: http.client.HTTPConnection) -> str:
    """Of the other end of a connection, as the kernel names it."""
    assert connection.sock is not None
    us, them = connection.sock.getsockname()[1], connection.sock.getpeername()[1]
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        words = line.split()
        local, remote = (int(words[at].rpartition(":")[2], 16) for at in (1, 2))
        if (local, remote) == (them, us):
            return words[9]
    return ""


def is_held_by(connection: http.client.HTTPConnection, pid: int) -> bool:
    """Whether a process has the other end."""
    wanted = f"socket:[{inode_at_the_server(connection)}]"
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            if str(entry.readlink()) == wanted:
                return True
        except OSError:
            continue
    return False


@contextmanager
def connection(
    server: Serving, model: str, *, at_worker: bool, attempts: int = 200
) -> Iterator[http.client.HTTPConnection]:
    """A connection that one of the workers has, or the server; the model is warm."""
    where = urlsplit(server.url)
    for _ in range(attempts):
        one = http.client.HTTPConnection("127.0.0.1", where.port, timeout=30)
        try:
            ask(one, model, max_tokens=1)
            found = any(is_held_by(one, pid) for pid in workers(server))
            if found is at_worker:
                yield one
                return
        finally:
            one.close()
    raise AssertionError(f"no connection was {'a worker' if at_worker else 'the server'}'s")


def ask(
    one: http.client.HTTPConnection, model: str, **more: Any
) -> tuple[int, dict[str, str], bytes]:
    """One chat; status, headers and body."""
    begin(one, model, **more)
    return read(one.getresponse())


def begin(one: http.client.HTTPConnection, model: str, **more: Any) -> None:
    """Send a chat."""
    headers = {"Content-Type": "application/json"}
    one.request("POST", "/v1/chat/completions", chat_body(model, **more), headers)


def read(response: http.client.HTTPResponse) -> tuple[int, dict[str, str], bytes]:
    """All of an answer."""
    return response.status, {k.lower(): v for k, v in response.headers.items()}, response.read()
