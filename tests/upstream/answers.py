"""Answers an engine can be told to give."""

from __future__ import annotations

import asyncio

from lemonade.gateway.streaming import RelayOutcome
from tests.upstream.peers import Engine, Front, Peer

STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nServer: secret/1\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


EVENT = b'data: {"choices":[{"delta":{"content":"a"},"finish_reason":null}]}\n\n'
LAST = b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":5}}\n\n'
DONE = b"data: [DONE]\n\n"
END = b"0\r\n\r\n"


def says(engine: Engine, *blocks: bytes) -> None:
    """Answer each request with these blocks, each sent on its own."""

    async def script(peer: Peer) -> None:
        while True:
            await engine.hear(peer)
            for block in blocks:
                await peer.send(block)
                await asyncio.sleep(0)

    engine.script = script


def breaks(engine: Engine, *blocks: bytes, reset: bool = False) -> None:
    """Answer with these blocks, then end the connection."""

    async def script(peer: Peer) -> None:
        await engine.hear(peer)
        for block in blocks:
            await peer.send(block)
        if reset:
            peer.reset()

    engine.script = script


def outcome(front: Front) -> RelayOutcome:
    last = front.outcomes[-1]
    assert isinstance(last, RelayOutcome)
    return last
