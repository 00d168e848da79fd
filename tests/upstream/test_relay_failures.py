"""What a client sees when the engine does not keep its word."""

from __future__ import annotations

import asyncio
import json

import pytest

from lemonade.core.errors import ConnectionLost, UpstreamRefused, UpstreamTimeout
from lemonade.gateway.streaming import BufferedError
from tests.upstream.answers import (
    CHUNKED,
    DONE,
    END,
    EVENT,
    STREAM_HEAD,
    breaks,
    chunk,
    outcome,
    says,
)
from tests.upstream.peers import WAIT, Engine, Front, Peer


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize(
    "blocks",
    [
        (STREAM_HEAD + CHUNKED, chunk(EVENT)),
        (STREAM_HEAD + CHUNKED, chunk(EVENT), b"a"),
        (STREAM_HEAD + CHUNKED, chunk(EVENT), chunk(EVENT)[:-1]),
        (STREAM_HEAD + CHUNKED, chunk(b"data: x\r\n\r\n"), chunk(EVENT)[:20]),
        (STREAM_HEAD + CHUNKED, chunk(EVENT), b"0\r\n"),
    ],
)
async def test_a_broken_stream_ends_with_an_error_event(
    engine: Engine, front: Front, blocks: tuple[bytes, ...], *, reset: bool
) -> None:
    breaks(engine, *blocks, reset=reset)
    async with asyncio.timeout(WAIT), await front.client() as client:
        await client.post()
        answer = await client.answer()
        *events, error = [
            part for part in answer.raw.split(b"\r\n") if part.startswith(b"data: {")
        ]
        assert len(events) == b"".join(blocks).count(chunk(EVENT))
        said = json.loads(error[6:])["error"]
        assert said["type"] == "backend_error"
        assert said["code"] == "connection_lost"
        assert said["message"]
        assert b"[DONE]" not in answer.raw
        assert not outcome(front).complete
        # The framing is whole, so the connection can be used again.
        engine.script = engine.echo
        await client.post(b"again")
        assert (await client.answer()).raw == b"again"


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("begins", [b"", chunk(EVENT)[:-3]])
async def test_a_stream_of_which_nothing_came_may_be_asked_for_again(
    engine: Engine, front: Front, begins: bytes, *, reset: bool
) -> None:
    breaks(engine, STREAM_HEAD + CHUNKED, begins, reset=reset)
    async with asyncio.timeout(WAIT), await front.client() as client:
        await client.post()
        assert (await client.answer()).raw == b'{"error": "connection-lost"}'
    assert isinstance(front.outcomes[-1], ConnectionLost)


async def test_a_stream_that_is_garbled_later_on_ends_with_an_error_event(
    engine: Engine, front: Front
) -> None:
    heard = asyncio.Event()

    async def script(peer: Peer) -> None:
        await engine.hear(peer)
        await peer.send(STREAM_HEAD + CHUNKED + chunk(EVENT))
        await heard.wait()
        await peer.send(b"zz\r\n")
        await peer.gone()

    engine.script = script
    async with asyncio.timeout(WAIT), await front.client() as client:
        await client.post()
        await client.head()
        assert await client.reader.readexactly(len(chunk(EVENT))) == chunk(EVENT)
        heard.set()
        await client.reader.readline()
        error = json.loads((await client.reader.readline())[6:])["error"]
        assert error["code"] == "garbled_answer"
        assert await client.reader.readexactly(8) == b"\n\r\n" + END


async def test_an_old_client_is_not_spoken_to_in_the_middle_of_an_event(
    engine: Engine, front: Front
) -> None:
    breaks(engine, STREAM_HEAD + CHUNKED, chunk(EVENT), b"5\r\nda")
    async with asyncio.timeout(WAIT), await front.client() as client:
        await client.post(version="1.0")
        with pytest.raises(ConnectionResetError):
            await client.reader.read(-1)
    assert not outcome(front).complete


async def test_an_old_client_gets_the_event_at_the_end_of_another(
    engine: Engine, front: Front
) -> None:
    breaks(engine, STREAM_HEAD + CHUNKED, chunk(EVENT))
    async with asyncio.timeout(WAIT), await front.client() as client:
        await client.post(version="1.0")
        await client.head()
        rest = await client.reader.read(-1)
    assert rest.startswith(EVENT + b'data: {"error"')


@pytest.mark.parametrize(
    "blocks",
    [
        (STREAM_HEAD + CHUNKED, chunk(EVENT[:10])),
        (STREAM_HEAD + CHUNKED, b"20000\r\n" + b"x" * 0x1FFFF),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n", b"half"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n" + CHUNKED, chunk(b"half")),
        (STREAM_HEAD + b"Content-Length: 1000\r\n\r\n", EVENT),
    ],
)
async def test_what_cannot_be_mended_is_broken_off(
    engine: Engine, front: Front, blocks: tuple[bytes, ...]
) -> None:
    breaks(engine, *blocks)
    async with asyncio.timeout(WAIT), await front.client() as client:
        await client.post()
        got = b""
        try:
            while block := await client.reader.read(65536):
                got += block
        except ConnectionError:
            pass
    assert not got.endswith(END)
    assert b"backend_error" not in got
    assert not outcome(front).complete


async def test_an_old_client_notices_a_body_that_broke_off(engine: Engine, front: Front) -> None:
    """Its only sign of the end is the end of the connection, so it must not end well."""

    async def script(peer: Peer) -> None:
        await engine.hear(peer)
        await peer.send(b"HTTP/1.1 200 OK\r\n" + CHUNKED + chunk(b"half"))
        await engine.until(lambda: engine.script is not script)

    engine.script = script
    async with asyncio.timeout(WAIT), await front.client() as client:
        await client.post(version="1.0")
        await client.head()
        assert await client.reader.readexactly(4) == b"half"
        engine.script = engine.echo
        await engine._tell()
        with pytest.raises(ConnectionResetError):
            await client.reader.read(-1)


async def test_a_large_chunk_of_a_stream_passes_in_pieces(engine: Engine, front: Front) -> None:
    large = chunk(b"data: " + b"x" * 1_000_000 + b"\n\n")
    says(engine, STREAM_HEAD + CHUNKED, large[:70_000], large[70_000:], chunk(DONE) + END)
    async with asyncio.timeout(WAIT), await front.client() as client:
        for _ in range(2):
            await client.post()
            raw = large + chunk(DONE) + END
            assert (await client.answer(len(raw))).raw == raw


async def test_no_answer_becomes_an_error_of_ours(engine: Engine, front: Front) -> None:
    breaks(engine, b"HTTP/1.1 200 OK\r\n")
    async with asyncio.timeout(WAIT), await front.client() as client:
        await client.post()
        assert (await client.answer()).raw == b'{"error": "connection-lost"}'
        assert isinstance(front.outcomes[-1], ConnectionLost)
        await engine.stop()
        await client.post()
        assert (await client.answer()).raw == b'{"error": "upstream-refused"}'
        assert isinstance(front.outcomes[-1], UpstreamRefused)


async def test_a_body_garbled_from_its_first_byte_becomes_an_error_of_ours(
    engine: Engine, front: Front
) -> None:
    breaks(engine, STREAM_HEAD + CHUNKED + b"zz\r\n")
    async with asyncio.timeout(WAIT), await front.client() as client:
        await client.post()
        assert (await client.answer()).raw == b'{"error": "garbled-answer"}'


async def test_a_silent_engine_becomes_an_error_of_ours(engine: Engine, front: Front) -> None:
    async def silent(peer: Peer) -> None:
        await engine.hear(peer)
        await peer.gone()

    engine.script = silent
    front.patience = 0.05
    async with asyncio.timeout(WAIT), await front.client() as client:
        await client.post()
        assert (await client.answer()).raw == b'{"error": "upstream-timeout"}'
        await engine.peers[0].left.wait()
    assert isinstance(front.outcomes[-1], UpstreamTimeout)


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
async def test_errors_of_the_engine_can_be_had_instead_of_relayed(
    engine: Engine, front: Front, framing: str
) -> None:
    body = b'{"error":{"message":"too long"}}'
    head = b"HTTP/1.1 400 Bad\r\nContent-Type: application/json\r\n"
    if framing == "length":
        says(engine, head + b"Content-Length: %d\r\n\r\n" % len(body), body)
    elif framing == "chunked":
        says(engine, head + CHUNKED + chunk(body[:5]), chunk(body[5:]) + END)
    else:
        breaks(engine, head + b"\r\n", body)
    front.buffer_errors = True
    async with asyncio.timeout(WAIT), await front.client() as client:
        for _ in range(2):
            await client.post()
            answer = await client.answer()
            assert (answer.status, answer.raw) == (400, b"wrapped " + body)
    assert front.outcomes[-1] == BufferedError(400, "application/json", body)
    assert len(engine.peers) == (2 if framing == "close" else 1)


async def test_a_very_long_error_is_cut(engine: Engine, front: Front) -> None:
    says(engine, b"HTTP/1.1 500 Oh\r\nContent-Length: 9000000\r\n\r\n", b"x" * 9_000_000)
    front.buffer_errors = True
    async with asyncio.timeout(WAIT), await front.client() as client:
        await client.post()
        answer = await client.answer()
    assert answer.status == 500
    assert 64 * 1024 <= len(answer.raw) < 1_000_000


async def test_errors_pass_untouched_otherwise(engine: Engine, front: Front) -> None:
    says(engine, b"HTTP/1.1 418 Teapot\r\nContent-Length: 5\r\n\r\nshort")
    async with asyncio.timeout(WAIT), await front.client() as client:
        await client.post()
        answer = await client.answer()
    assert (answer.status, answer.raw) == (418, b"short")
