"""A thousand streams at a time, byte for byte, while ten of their readers stall.

Every stream is told to wait in its middle until all of them are there, so they are a thousand at
the same moment however slow the machine is.
"""

from __future__ import annotations

import asyncio
import resource
import socket
from pathlib import Path

import pytest
import requests

from tests.front.telling import CHUNKED, STREAM_HEAD, Told, body, post, told
from tests.programs.told_engine import stream_pieces
from tests.serving import PATIENCE, eventually

STREAMS = 1000
STALLED = 10
MIB = 1 << 20
MOST_GROWTH = 96 * MIB
"""What the server may need for all of them; what is kept back for those that stall is more."""

LAST = b"0\r\n\r\n"
PIECES = 5000
SIZE = 4096


def resident_size(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(one for one in status.splitlines() if one.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024


def sockets(pid: int) -> int:
    count = 0
    for one in Path(f"/proc/{pid}/fd").iterdir():
        try:
            count += str(one.readlink()).startswith("socket:")
        except OSError:
            continue
    return count


async def ask(port: int, asked: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Send a request; returns when the head of its answer has come."""
    handle = socket.socket()
    handle.setblocking(False)
    handle.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
    await asyncio.get_running_loop().sock_connect(handle, ("127.0.0.1", port))
    reader, writer = await asyncio.open_connection(sock=handle, limit=8192)
    writer.write(asked)
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 "), head
    return reader, writer


async def expect(reader: asyncio.StreamReader, seed: int, count: int, size: int) -> None:
    for piece in stream_pieces(seed, count, size):
        assert await reader.readexactly(len(piece)) == piece, seed


async def leave(writer: asyncio.StreamWriter) -> None:
    writer.close()
    await writer.wait_closed()


async def ordinary(port: int, seed: int) -> None:
    """A slow stream, read as it comes; then the connection takes another request."""
    steps = [
        ["send", STREAM_HEAD + CHUNKED],
        ["stream", seed, 3, 200, 0.01],
        ["gather", "all", STREAMS],
        ["stream", seed + 1, 8, 200, 0.25],
        ["send", LAST.decode()],
    ]
    reader, writer = await ask(port, post(body("m", stream=True, steps=steps)))
    await expect(reader, seed, 3, 200)
    await expect(reader, seed + 1, 8, 200)
    assert await reader.readexactly(len(LAST)) == LAST
    writer.write(b"GET /live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert (await reader.read(-1)).endswith(b'{"status": "ok"}')
    await leave(writer)


async def stalling(port: int, seed: int, go_on: asyncio.Event) -> None:
    """A fast and long stream whose reader waits after the head."""
    steps = [
        ["send", STREAM_HEAD + CHUNKED],
        ["stream", seed + 1, 1, 10, 0],
        ["gather", "all", STREAMS],
        ["stream", seed, PIECES, SIZE, 0],
        ["send", LAST.decode()],
    ]
    reader, writer = await ask(port, post(body("m", stream=True, steps=steps)))
    await expect(reader, seed + 1, 1, 10)
    await go_on.wait()
    await expect(reader, seed, PIECES, SIZE)
    assert await reader.readexactly(len(LAST)) == LAST
    await leave(writer)


async def standstill(one: Told) -> int:
    """Wait until the engine gets nothing off its hands any more; how much it got off before."""
    url, before = f"{one.engine('m')}/fake/status", -1
    while True:
        reply = await asyncio.to_thread(requests.get, url, timeout=PATIENCE)
        streamed: int = reply.json()["streamed"]
        if streamed == before:
            return streamed
        before = streamed
        await asyncio.sleep(0.5)


async def all_at_once(one: Told) -> tuple[int, int]:
    """When nobody but those that stall is left: how much the server has grown, what was sent."""
    port = int(one.server.url.rpartition(":")[2])
    pid = one.server.process.pid
    before = resident_size(pid)
    go_on = asyncio.Event()
    async with asyncio.TaskGroup() as late:
        for number in range(STALLED):
            late.create_task(stalling(port, 10_000_000 + 2 * number, go_on))
        async with asyncio.TaskGroup() as group:
            for number in range(STREAMS - STALLED):
                group.create_task(ordinary(port, 2 * number))
        sent = await standstill(one)
        growth = resident_size(pid) - before
        go_on.set()
    return growth, sent


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_thousand_streams_are_served_while_ten_readers_stall(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 3 * STREAMS:
        pytest.skip("this machine allows too few open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 3 * STREAMS), hard))
    # No comments of the server's own, however long it takes until all have begun.
    with told(tmp_path, "m", heartbeat_after_s=0) as one:
        assert one.server.post("load", {"model_name": "m"}).status_code == 200
        server, engine = one.server.process.pid, one.server.loaded()["m"]["pid"]
        open_before = sockets(server), sockets(engine)
        growth, sent = asyncio.run(all_at_once(one))
        assert growth < MOST_GROWTH
        # The kernel holds some megabytes for each connection; beyond that the engine waits too.
        assert sent < STALLED * PIECES * SIZE * 0.75
        one.idle("m")
        assert one.server.get("stats").json()["request_count_total"] == STREAMS
        eventually(
            lambda: sockets(server) <= open_before[0] + 1 and sockets(engine) <= open_before[1],
            "no connection is left",
        )
