"""The relay where one event is taken out of a stream on its way."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.upstream.answers import (
    CHUNKED,
    DONE,
    END,
    EVENT,
    LAST,
    STREAM_HEAD,
    breaks,
    chunk,
    outcome,
    says,
)
from tests.upstream.peers import WAIT, Engine, Front, Peer

WHOLE = EVENT + EVENT + LAST + DONE
KEPT = EVENT + EVENT + DONE


def said(raw: bytes) -> bytes:
    """What chunks say."""
    text = b""
    while raw:
        size, _, raw = raw.partition(b"\r\n")
        length = int(size, 16)
        text, raw = text + raw[:length], raw[length + 2 :]
    return text


@pytest.mark.parametrize("size", [1, 3, 50, 100, 10_000])
@pytest.mark.parametrize("torn", [1, 7, 10_000])
async def test_usage_goes_and_nothing_else(
    engine: Engine, front: Front, size: int, torn: int
) -> None:
    body = b"".join(chunk(WHOLE[at : at + size]) for at in range(0, len(WHOLE), size)) + END
    raw = STREAM_HEAD + CHUNKED + body
    says(engine, *(raw[at : at + torn] for at in range(0, len(raw), torn)))
    front.sieves = True
    async with asyncio.timeout(WAIT), await front.client() as client:
        for _ in range(2):
            await client.post()
            answer = await client.answer()
            assert said(answer.raw) == KEPT
    assert len(engine.peers) == 1
    assert outcome(front).complete
    usage = front.taps[-1].finish()
    assert (usage.prompt_tokens, usage.output_tokens) == (3, 5)


async def test_an_event_does_not_wait_for_the_next(engine: Engine, front: Front) -> None:
    heard = asyncio.Event()

    async def script(peer: Peer) -> None:
        await engine.hear(peer)
        await peer.send(STREAM_HEAD + CHUNKED + chunk(EVENT))
        await heard.wait()
        await peer.send(chunk(LAST) + chunk(DONE) + END)

    engine.script = script
    front.sieves = True
    async with asyncio.timeout(WAIT), await front.client() as client:
        await client.post()
        await client.head()
        assert await client.reader.readexactly(len(chunk(EVENT))) == chunk(EVENT)
        heard.set()
        assert await client.reader.readexactly(len(chunk(DONE) + END)) == chunk(DONE) + END


@pytest.mark.parametrize("framing", [CHUNKED, b"\r\n"])
@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("left", [b"", b"data: unfinished"])
async def test_every_framing(
    engine: Engine, front: Front, framing: bytes, version: str, left: bytes
) -> None:
    text = WHOLE + left
    if framing is CHUNKED:
        says(engine, STREAM_HEAD + framing + chunk(text) + END)
    else:
        breaks(engine, STREAM_HEAD + framing + text)
    front.sieves = True
    async with asyncio.timeout(WAIT), await front.client() as client:
        await client.post(version=version)
        answer = await client.answer()
    assert (said(answer.raw) if version == "1.1" else answer.raw) == KEPT + left


@pytest.mark.parametrize("left", [b"", b"data: {"])
async def test_what_breaks_off_is_said_at_the_end_of_an_event(
    engine: Engine, front: Front, left: bytes
) -> None:
    breaks(engine, STREAM_HEAD + CHUNKED + chunk(EVENT + left))
    front.sieves = True
    async with asyncio.timeout(WAIT), await front.client() as client:
        await client.post()
        answer = await client.answer()
    events = said(answer.raw).split(b"\n\n")
    assert events[0] + b"\n\n" == EVENT
    assert json.loads(events[1][6:])["error"]["code"] == "connection_lost"
    assert not outcome(front).complete


async def test_what_is_no_stream_is_left_alone(engine: Engine, front: Front) -> None:
    says(engine, b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(LAST) + LAST)
    front.sieves = True
    async with asyncio.timeout(WAIT), await front.client() as client:
        await client.post()
        assert (await client.answer()).raw == LAST
