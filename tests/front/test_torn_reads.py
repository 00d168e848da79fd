"""A conversation that comes in other blocks than it was sent in is the same conversation.

And one that does not come at all ends: heads, bodies and silence have their time.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
from pathlib import Path

import pytest

from lemonade.relay.client import BODY_SECONDS, HEAD_SECONDS, IDLE_SECONDS, Phase
from lemonade.relay.reading import HEAD_LIMIT
from tests.front.house import Call, TestHouse, get, house, post
from tests.front.telling import CHUNKED, STREAM_HEAD, body, event, told
from tests.front.telling import post as asked

CHAT = b'{"model":"m","text":"\\u00e9 \xe2\x98\x83"}'
STREAM = b'{"model":"m","n":3}'
ELSEWHERE = b'{"model":"elsewhere"}'
LAST = get(b"/live", b"Connection: close")

SHORT = {
    "relayed": post(CHAT) + LAST,
    "relayed and closed": post(CHAT, b"Connection: close"),
    "a line end too many": post(CHAT) + b"\r\n" + get() + b"\r\n\r\n\r\n" + LAST,
    "lent": get() + LAST,
    "lent with a body": post(CHAT, path=b"/v1/upload") + post(CHAT) + LAST,
    "lent after all": post(ELSEWHERE) + post(CHAT) + LAST,
    "an older client": post(CHAT) + post(CHAT, version=b"1.0"),
    "refused": post(CHAT) + post(CHAT, b"Content-Length: 3") + LAST,
    "two lengths at once": post(CHAT, b"Transfer-Encoding: chunked") + LAST,
    "no request": post(CHAT) + b"<xml>" + LAST,
    "another protocol": b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + LAST,
    "a method without an end": b"A" * 40 + LAST,
    "given for good": post(STREAM)
    + b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    + b"5\r\nabcde\r\n0\r\n\r\n"
    + post(CHAT)
    + LAST,
}

LONG = b"".join(
    (
        post(CHAT), post(STREAM), get(), post(b'{"model":"m","pad":"%b"}' % (b"x" * 3000)),
        get(b"/stream"), post(CHAT, path=b"/v1/refused"), post(ELSEWHERE), post(STREAM),
        get(method=b"HEAD"), post(b"x" * 5000, path=b"/v1/upload"), post(CHAT), b"\r\n",
        post(b"[]", b"Expect: 100-continue"), post(STREAM), get(b"/nothing"), post(CHAT), LAST,
    )
)  # fmt: skip


async def converse(one: TestHouse, blocks: list[bytes], turns: int) -> bytes:
    """What is answered when a conversation comes in these blocks, so many turns apart."""
    call = await one.call()
    for block in blocks:
        call.say(block)
        for _ in range(turns):
            await asyncio.sleep(0)
    return await call.rest()


@pytest.mark.slow
@pytest.mark.parametrize("whole", SHORT.values(), ids=SHORT.keys())
async def test_a_conversation_may_be_cut_anywhere(whole: bytes) -> None:
    async with house() as one:
        expected = await converse(one, [whole], 0)
        assert expected.startswith(b"HTTP/1.")
        for cut in range(1, len(whole)):
            turns = (0, 1, 25)[cut % 3]
            blocks = [whole[:cut], whole[cut:]]
            assert await converse(one, blocks, turns) == expected, (cut, turns)
        single = [whole[at : at + 1] for at in range(len(whole))]
        assert await converse(one, single, 0) == expected
        assert await converse(one, single, 1) == expected


@pytest.mark.slow
async def test_a_long_conversation_may_be_cut_in_many_places() -> None:
    chance = random.Random(6)
    async with house() as one:
        expected = await converse(one, [LONG], 0)
        statuses = " ".join(word.decode() for word in re.findall(rb"HTTP/1.1 (\d+)", expected))
        assert statuses == "200 " * 5 + "404 " + "200 " * 5 + "100 200 200 404 200 200"
        for _ in range(400):
            cuts = sorted(chance.sample(range(1, len(LONG)), chance.choice((1, 2, 5, 40))))
            blocks = [LONG[a:b] for a, b in zip([0, *cuts], [*cuts, len(LONG)], strict=True)]
            turns = chance.choice((0, 1, 3, 30))
            assert await converse(one, blocks, turns) == expected, (cuts, turns)


def on_the_wire() -> bytes:
    """Requests of all kinds to a whole server; the last closes the connection."""
    word = event('{"choices":[{"delta":{"content":"x"}}]}')
    steps = [["send", STREAM_HEAD + CHUNKED + word], ["send", word * 3 + "0\r\n\r\n"]]
    named = [b"X-Request-Id: r1"]
    plain, stream = body("m", text="é☃"), body("m", stream=True, steps=steps)
    error = body("m", steps=[["send", "HTTP/1.1 429 No\r\nContent-Length: 2\r\n\r\n{}"]])
    return b"".join(
        (
            asked(plain, *named), asked(stream, *named), get(b"/live", *named), b"\r\n",
            asked(plain, *named, way="slow"), asked(error, *named), asked(stream, *named),
            asked(body("nobody"), *named), asked(b"[]", *named), get(b"/v1/nothing", *named),
            asked(stream, *named, way="slow"), asked(plain, b"Expect: 100-continue", *named),
            asked(plain, *named), get(b"/live", b"Connection: close", *named),
        )
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_a_conversation_with_a_whole_server_may_be_cut_anywhere(
    tmp_path: Path, workers: int
) -> None:
    chance = random.Random(7)
    whole = on_the_wire()
    with told(tmp_path, "m", workers=workers) as server, server.wire() as barrier:
        assert server.server.post("load", {"model_name": "m"}).status_code == 200
        expected = b""
        for _ in range(60):
            many = chance.choice((1, 2, 5)) if expected else 0
            cuts = sorted(chance.sample(range(1, len(whole)), many))
            with server.wire() as wire:
                for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True):
                    wire.say(whole[a:b])
                    # Whoever answers this has read what was said, if it is the same process.
                    barrier.say(get())
                    assert barrier.hear().status == 200
                said = re.sub(rb"Date: [^\r]*\r\n", b"", wire.rest())
            expected = expected or said
            assert said == expected, cuts
        assert len(re.findall(rb"HTTP/1.1 200 ", expected)) == 9


async def ended(call: Call, one: TestHouse, status: int) -> None:
    """The connection is overdue: it is told so and closed."""
    assert one.loop.now > call.client.deadline
    call.client.overdue()
    said = await call.rest()
    assert said.startswith(b"HTTP/1.1 %d " % status)
    assert b"Connection: close" in said
    assert json.loads(said.partition(b"\r\n\r\n")[2])["error"]["message"]
    assert not one.clients


async def test_a_slow_head_has_its_time_from_the_first_byte() -> None:
    async with house() as one:
        call = await one.call()
        head, _, _ = post(CHAT).partition(b"\r\n\r\n")
        call.say(head[:1])
        deadline = call.client.deadline
        assert deadline == one.loop.now + HEAD_SECONDS
        for at in range(1, len(head)):
            one.loop.now += 1
            call.say(head[at : at + 1])
            assert call.client.deadline == deadline
        await ended(call, one, 408)


async def test_a_slow_head_of_a_later_request_has_the_same_time() -> None:
    async with house() as one:
        call = await one.call()
        call.say(post(CHAT) + b"GET /")
        assert (await call.hear())[0] == 200
        assert call.client.deadline == one.loop.now + HEAD_SECONDS
        one.loop.now += HEAD_SECONDS + 1
        await ended(call, one, 408)


async def test_a_silent_body_has_its_time_from_the_last_byte() -> None:
    async with house() as one:
        call = await one.call()
        whole = post(CHAT)
        for block in (whole[:-20], whole[-20:-10], whole[-10:-1]):
            one.loop.now += BODY_SECONDS - 1
            call.say(block)
            assert call.client.deadline == one.loop.now + BODY_SECONDS
        one.loop.now += BODY_SECONDS + 1
        await ended(call, one, 408)


async def test_an_idle_connection_is_closed_without_a_word() -> None:
    async with house() as one:
        for said in (b"", b"\r\n", post(CHAT), get()):
            call = await one.call()
            call.say(said)
            if len(said) > 2:
                assert (await call.hear())[0] == 200
                await settled(call)
            assert call.client.deadline == one.loop.now + IDLE_SECONDS
            call.client.overdue()
            assert await call.rest() == b""


async def settled(call: Call) -> None:
    """Until the connection waits for the next request."""
    while call.client.phase is not Phase.READING:
        await asyncio.sleep(0)


async def test_an_answer_may_take_its_time() -> None:
    async with house() as one:
        call = await one.call()
        call.say(post(b'{"model":"silent"}'))
        assert call.client.phase is Phase.RELAYING
        assert call.client.deadline == float("inf")
        call.hang_up()
        async with asyncio.timeout(20):
            while not one.answers[0].abandoned:
                await asyncio.sleep(0)


async def test_a_head_without_an_end_is_not_kept() -> None:
    async with house() as one:
        call = await one.call()
        call.say(b"GET / HTTP/1.1\r\n")
        while call.client.phase is Phase.READING:
            call.say(b"X-A: " + b"a" * 1000 + b"\r\n")
        said = await call.rest()
        assert said.startswith(b"HTTP/1.1 431 ")


async def test_what_is_sent_ahead_is_not_kept_without_a_limit() -> None:
    async with house() as one:
        call = await one.call()
        silent = post(b'{"model":"silent"}')
        call.say(silent)
        sent = 0
        many = post(CHAT) * 1000
        while call.client.transport.is_reading():
            call.say(many[sent : sent + 4096])
            sent += 4096
        assert sent <= HEAD_LIMIT + 4096
        one.answers[0].answer(0)  # now it is answered, and reading goes on
        async with asyncio.timeout(20):
            while not call.client.transport.is_reading():
                await asyncio.sleep(0)
        for _ in range(sent // len(post(CHAT)) + 1):
            assert (await call.hear())[0] == 200
