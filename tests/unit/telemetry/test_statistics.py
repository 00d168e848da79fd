from __future__ import annotations

from msgspec.structs import replace

from lemonade.core.bus import Bus
from lemonade.core.events import RequestFinished
from lemonade.core.inference import Operation, Usage
from lemonade.telemetry import Statistics

FIRST = Usage(
    input_tokens=7,
    output_tokens=34,
    prompt_tokens=12,
    cache_tokens=5,
    time_to_first_token=0.25,
    tokens_per_second=33.5,
)
SECOND = Usage(input_tokens=3, prompt_tokens=3)


def finished(model: str, usage: Usage, status: int = 200) -> RequestFinished:
    return RequestFinished(model, Operation.CHAT, status, True, 1.0, True, usage)


def test_before_any_request_everything_is_zero() -> None:
    document = Statistics(Bus()).as_json()
    assert set(document.values()) == {0}
    assert list(document) == [
        "time_to_first_token",
        "tokens_per_second",
        "input_tokens",
        "output_tokens",
        "prompt_tokens",
        "cache_tokens",
        "request_count_total",
        "input_tokens_total",
        "output_tokens_total",
        "prompt_tokens_total",
        "cache_tokens_total",
        "routing_decisions_total",
        "routing_switches_total",
    ]


def test_the_last_request_and_totals() -> None:
    bus = Bus()
    statistics = Statistics(bus)
    bus.publish(finished("a", FIRST))
    bus.publish(finished("b", SECOND))
    bus.publish(finished("a", FIRST, status=500))
    document = statistics.as_json()
    assert document["request_count_total"] == 2
    assert document["input_tokens_total"] == 10
    assert document["prompt_tokens_total"] == 15
    assert document["input_tokens"] == 3
    assert document["output_tokens"] is None
    assert document["cache_tokens"] is None
    assert statistics.of_model("a").last == FIRST
    assert statistics.of_model("b").requests == 1
    assert statistics.of_model("c").requests == 0


def test_an_answer_that_broke_off_is_no_request_to_speak_of() -> None:
    bus = Bus()
    statistics = Statistics(bus)
    bus.publish(finished("m", Usage(output_tokens=5)))
    bus.publish(replace(finished("m", Usage()), complete=False))
    assert statistics.as_json()["output_tokens"] == 5
    assert statistics.as_json()["request_count_total"] == 1
