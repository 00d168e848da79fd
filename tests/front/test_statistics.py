"""What a relayed request cost is noted as that of one which took aiohttp's way."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from tests.front.telling import CHUNKED, STREAM_HEAD, Told, body, event, post, told
from tests.serving import PATIENCE

pytestmark = pytest.mark.slow

USAGE = {
    "prompt_tokens": 11,
    "completion_tokens": 5,
    "total_tokens": 16,
    "prompt_tokens_details": {"cached_tokens": 4},
}
TIMINGS = {
    "prompt_n": 7,
    "cache_n": 4,
    "prompt_ms": 12.5,
    "predicted_n": 5,
    "predicted_per_second": 80.0,
}
CHOICES = {"choices": [{"finish_reason": "stop", "message": {"content": "x"}}]}
HEAD = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


def plain(**more: object) -> str:
    text = json.dumps({**CHOICES, **more})
    return f"{HEAD}Content-Length: {len(text)}\r\n\r\n{text}"


def torn(**more: object) -> str:
    """In chunks of three bytes."""
    text = json.dumps({**CHOICES, **more})
    parts = [text[at : at + 3] for at in range(0, len(text), 3)]
    return HEAD + CHUNKED + "".join(f"{len(p):x}\r\n{p}\r\n" for p in parts) + "0\r\n\r\n"


def stream(*, done: bool = True, **more: object) -> str:
    words = [{"choices": [{"delta": {"content": f"word {n}"}}]} for n in range(5)]
    last = {"choices": [{"delta": {}, "finish_reason": "length"}], **more}
    events = "".join(event(json.dumps(one)) for one in (*words, last))
    return STREAM_HEAD + CHUNKED + events + (event("[DONE]") if done else "") + "0\r\n\r\n"


ANSWERS = {
    "usage": (plain(usage=USAGE), False),
    "usage and times": (plain(usage=USAGE, timings=TIMINGS), False),
    "nothing": (plain(), False),
    "usage in chunks": (torn(usage=USAGE), False),
    "a stream with usage": (stream(usage=USAGE), True),
    "a stream with usage and times": (stream(usage=USAGE, timings=TIMINGS), True),
    "a stream with nothing": (stream(), True),
    "a stream without its last word": (stream(usage=USAGE, done=False), True),
    "an error": ("HTTP/1.1 429 No\r\nContent-Length: 2\r\n\r\n{}", False),
}


@pytest.fixture(scope="module", params=[0, 2], ids=["one process", "workers"])
def server(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Told]:
    with told(tmp_path_factory.mktemp("statistics"), "m", workers=request.param) as one:
        assert one.server.post("load", {"model_name": "m"}).status_code == 200
        yield one


def counters(one: Told) -> dict[str, float]:
    """What the page for the operator counts."""
    page = requests.get(f"{one.server.url}/metrics", timeout=PATIENCE).text
    lines = (line.rpartition(" ") for line in page.splitlines() if line.startswith("lemonade_"))
    return {
        name: float(value)
        for name, _, value in lines
        if name.partition("{")[0].endswith("_total")
        if "seconds" not in name
        if not name.startswith("lemonade_worker")  # which of them relayed it
    }


def cost(one: Told, text: str, way: str, *, is_stream: bool) -> dict[str, Any]:
    """What one request adds, and how it is described."""
    asked = post(body("m", stream=is_stream, steps=[["send", text]]), way=way)
    earlier, counted = one.server.get("stats").json(), counters(one)
    with one.wire() as wire:
        wire.say(asked)
        assert wire.hear().whole
    one.idle("m")  # so it is counted
    later, now = one.server.get("stats").json(), counters(one)
    totals = {name: later[name] - earlier[name] for name in later if name.endswith("_total")}
    added = {name: value - counted.get(name, 0) for name, value in now.items()}
    return {**later, **totals, "counters": added}


@pytest.mark.parametrize(("text", "is_stream"), ANSWERS.values(), ids=ANSWERS.keys())
def test_what_is_relayed_costs_the_same(server: Told, text: str, *, is_stream: bool) -> None:
    fast = cost(server, text, "fast", is_stream=is_stream)
    slow = cost(server, text, "slow", is_stream=is_stream)
    for name, told_by_engine in (("time_to_first_token", 0.0125), ("tokens_per_second", 80.0)):
        times = fast.pop(name), slow.pop(name)
        if "timings" in text:
            assert times == (told_by_engine, told_by_engine)
        elif "429" not in text:  # then it is that of an earlier one
            assert (times[0] > 0) == (times[1] > 0), name
    assert fast == slow
    good = "429" not in text
    assert fast["request_count_total"] == good
    assert fast["counters"]["lemonade_requests_total"] == good
    if "usage" in text:
        assert (fast["input_tokens"], fast["output_tokens"], fast["cache_tokens"]) == (7, 5, 4)
        assert fast["output_tokens_total"] == 5


def test_a_stream_says_when_it_began(server: Told) -> None:
    for way in ("fast", "slow"):
        said = cost(server, ANSWERS["a stream with usage"][0], way, is_stream=True)
        assert said["time_to_first_token"] > 0
        assert said["tokens_per_second"] > 0
