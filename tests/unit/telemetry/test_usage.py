from __future__ import annotations

import json
import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lemonade.core.inference import Usage
from lemonade.telemetry import UsageTap
from lemonade.telemetry.usage import STREAM_TAIL


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def read(*blocks: bytes, stream: bool = True) -> Usage:
    tap = UsageTap(stream=stream, started=0.0, clock=lambda: 0.0)
    for block in blocks:
        tap.feed(block)
    return tap.finish()


def event(body: object) -> bytes:
    return b"data: " + json.dumps(body).encode() + b"\n\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


TOKEN = event({"choices": [{"delta": {"content": "x"}, "finish_reason": None}], "usage": None})
FINISH = event({"choices": [{"delta": {}, "finish_reason": "stop"}]})
USAGE = {
    "prompt_tokens": 12,
    "completion_tokens": 34,
    "prompt_tokens_details": {"cached_tokens": 5},
}
TIMINGS = {
    "cache_n": 4,
    "prompt_n": 8,
    "prompt_ms": 250.0,
    "predicted_n": 33,
    "predicted_ms": 1000,
    "predicted_per_second": 33.5,
}
DONE = b"data: [DONE]\n\n"


def test_usage_and_the_reason_are_read_from_the_last_events() -> None:
    usage = read(TOKEN, TOKEN, FINISH, event({"choices": [], "usage": USAGE}), DONE)
    assert usage.prompt_tokens == 12
    assert usage.cache_tokens == 5
    assert usage.input_tokens == 7
    assert usage.output_tokens == 34
    assert usage.finish_reason == "stop"


def test_timings_of_the_engine_win() -> None:
    usage = read(event({"choices": [], "usage": USAGE, "timings": TIMINGS}), DONE)
    assert usage == Usage(
        input_tokens=8,
        output_tokens=33,
        prompt_tokens=12,
        cache_tokens=4,
        time_to_first_token=0.25,
        tokens_per_second=33.5,
    )


def test_timings_alone_are_enough() -> None:
    usage = read(json.dumps({"timings": TIMINGS}).encode(), stream=False)
    assert (usage.prompt_tokens, usage.input_tokens, usage.output_tokens) == (12, 8, 33)


def test_other_names_are_understood() -> None:
    usage = read(
        event(
            {
                "type": "response.completed",
                "response": {
                    "usage": {
                        "input_tokens": 9,
                        "output_tokens": 3,
                        "input_tokens_details": {"cached_tokens": 1},
                        "prefill_duration_ttft": 0.5,
                        "decoding_speed_tps": 20,
                    }
                },
            }
        )
    )
    assert usage == Usage(
        input_tokens=8,
        output_tokens=3,
        prompt_tokens=9,
        cache_tokens=1,
        time_to_first_token=0.5,
        tokens_per_second=20.0,
    )


def test_what_the_engine_does_not_say_is_measured() -> None:
    clock = Clock()
    firsts: list[int] = []
    tap = UsageTap(stream=True, started=99.0, clock=clock, on_first=lambda: firsts.append(1))
    clock.now = 100.5
    tap.feed(TOKEN)
    assert firsts == [1]
    clock.now = 102.5
    tap.feed(event({"usage": {"prompt_tokens": 1, "completion_tokens": 10}}))
    usage = tap.finish()
    assert firsts == [1]
    assert usage.time_to_first_token == 1.5
    assert usage.tokens_per_second == 5.0


def test_an_answer_in_one_piece_has_no_first_token() -> None:
    usage = read(json.dumps({"usage": {"prompt_tokens": 3}}).encode(), stream=False)
    assert usage == Usage(input_tokens=3, prompt_tokens=3)


@given(st.lists(st.integers(1, 5000), max_size=10), st.integers(20, 60))
def test_neither_chunks_nor_cuts_change_what_is_read(places: list[int], size: int) -> None:
    text = TOKEN * 10 + FINISH + event({"choices": [], "usage": USAGE, "timings": TIMINGS}) + DONE
    raw = b"".join(chunk(text[at : at + size]) for at in range(0, len(text), size))
    raw += b"0\r\n\r\n"
    marks = sorted({0, len(raw), *(place % len(raw) for place in places)})
    usage = read(*(raw[a:b] for a, b in pairwise(marks)))
    assert (usage.input_tokens, usage.output_tokens, usage.cache_tokens) == (8, 33, 4)


@pytest.mark.parametrize("stream", [False, True])
def test_the_end_of_a_long_answer_is_enough(*, stream: bool) -> None:
    body = {"data": ["x" * 100] * 5000, "usage": {"prompt_tokens": 77}}
    raw = json.dumps(body).encode()
    blocks = [raw[at : at + 1000] for at in range(0, len(raw), 1000)]
    assert read(*blocks, stream=stream).prompt_tokens == 77
    assert read(raw, stream=stream).prompt_tokens == 77


def test_little_is_kept_of_a_long_stream() -> None:
    tap = UsageTap(stream=True)
    for _ in range(10_000):
        tap.feed(TOKEN)
    assert sum(map(len, tap.blocks)) < 10_000


def test_blocks_that_others_put_there_are_kept_and_forgotten_like_its_own() -> None:
    chance = random.Random(5)
    for _ in range(200):
        tap, said = UsageTap(stream=True), b""
        for _ in range(3):
            tap.feed(TOKEN)
            said += TOKEN
        room = 0
        for number in range(chance.randrange(120)):
            block = b"data: %d %b\n\n" % (number, b"x" * chance.randrange(60, 900))
            said += block
            if chance.random() < 0.1:
                tap.feed(block)
                room = 0
            else:
                assert not tap.looking
                tap.blocks.append(block)
                room -= len(block)
                if room < 0:
                    room = tap.trim()
            kept = b"".join(tap.blocks)
            assert said.endswith(kept)
            assert len(kept) >= min(len(said), STREAM_TAIL)
            assert len(kept) <= 2 * STREAM_TAIL + 3 * 1000


def test_what_a_model_says_is_not_taken_for_usage() -> None:
    words = '"usage": {"prompt_tokens": 999}, "finish_reason": "tool_calls", "timings": {}'
    body = {"usage": {"prompt_tokens": 1}, "choices": [{"message": {"content": words}}]}
    usage = read(json.dumps(body).encode(), stream=False)
    assert usage.prompt_tokens == 1
    assert usage.finish_reason is None


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{}",
        b"not json",
        b'{"usage": null}',
        b'{"usage": [1]}',
        b'{"usage": "x"}',
        b'{"usage": {"prompt_tokens": "12"}}',
        b'{"usage": {"prompt_tokens": true}}',
        b'{"usage": {"prompt_tokens": -1}}',
        b'{"usage": {"prompt_tokens": 1e99}}',
        b'{"usage": {"prompt_tokens": ',
        b'{"usage": {"prompt_tokens_details": 5}}',
        b'{"usage": {' + b'"a": {' * 2000,
        b'"usage"',
        b'"usage":',
        b'{"timings": {"prompt_ms": "fast"}}',
        b"\xff\xfe" * 100 + b'{"usage": {"x": "\xff"}}',
    ],
)
def test_nonsense_counts_as_nothing_said(raw: bytes) -> None:
    assert read(raw, stream=False) == Usage()


@given(st.binary(max_size=300), st.booleans())
def test_no_bytes_make_it_fail(raw: bytes, stream: bool) -> None:
    read(raw, b'"usage":{' + raw + b'"timings":{' + raw, stream=stream)


@pytest.mark.parametrize("frame", [bytes, chunk])
def test_a_client_may_hang_up_on_the_streams_last_word(frame) -> None:
    tap = UsageTap(stream=True, started=0.0, clock=lambda: 0.0)
    tap.feed(frame(TOKEN))
    assert not tap.saw_end
    tap.feed(frame(DONE))
    assert tap.saw_end
    tap.feed(b"0\r\n\r\n")
    assert tap.saw_end


def test_only_the_last_word_is_the_end() -> None:
    for blocks, stream in (((DONE, TOKEN, TOKEN), True), ((DONE,), False), ((), True)):
        tap = UsageTap(stream=stream, started=0.0, clock=lambda: 0.0)
        for block in blocks:
            tap.feed(block)
        assert not tap.saw_end


def timed(*events: tuple[float, bytes], end: float, started: float = 0.0) -> Usage:
    """Usage of a stream whose events come at these times."""
    clock = Clock()
    tap = UsageTap(stream=True, started=started, clock=clock)
    for at, block in events:
        clock.now = at
        tap.feed(block)
    clock.now = end
    return tap.finish()


ROLE = event({"choices": [{"delta": {"role": "assistant", "content": ""}}]})
COST = event({"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 10}})
NAMED = b'event: response.%b\r\ndata: {"response":{"tools":[{"name":"x"}]}}\r\n\r\n'


@pytest.mark.parametrize(
    "delta",
    [
        {"content": "x"},
        {"reasoning_content": "x"},
        {"reasoning": "x"},
        {"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": ""}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": "{"}}]},
        {"refusal": "x"},
    ],
)
def test_the_first_token_is_the_first_piece_of_anything(delta: object) -> None:
    first = event({"choices": [{"delta": delta, "finish_reason": None}]})
    usage = timed((1.0, b": ping\n\n"), (2.0, ROLE), (3.0, first), (4.0, COST), end=7.0)
    assert usage.time_to_first_token == 3.0
    assert usage.tokens_per_second == 2.0


def test_the_first_token_of_a_completion() -> None:
    text = event({"choices": [{"text": "x"}]})
    usage = timed((1.0, b": ping\n\n"), (2.0, text), (3.0, COST), end=7.0)
    assert (usage.time_to_first_token, usage.tokens_per_second) == (2.0, 2.0)


def test_the_first_token_of_a_response() -> None:
    done = b'event: response.completed\ndata: {"usage":{"output_tokens":10}}\n\n'
    usage = timed(
        (1.0, NAMED % b"created" + NAMED % b"in_progress"),
        (2.0, NAMED % b"output_item.added"),
        (3.0, NAMED % b"output_text.delta"),
        (6.0, done),
        end=7.0,
    )
    assert (usage.time_to_first_token, usage.tokens_per_second) == (3.0, 2.0)


def test_a_token_that_is_kept_back_does_not_make_an_engine_fast() -> None:
    call = event({"choices": [{"delta": {"tool_calls": [{"function": {"name": "f"}}]}}]})
    usage = timed((2.0, ROLE), (6.9, call), (7.0, COST), end=7.0)
    assert (usage.time_to_first_token, usage.tokens_per_second) == (6.9, 2.0)


def test_what_comes_at_once_tells_nothing_of_speed() -> None:
    usage = timed((4.0, ROLE + TOKEN + COST + DONE), end=5.0)
    assert (usage.time_to_first_token, usage.tokens_per_second) == (4.0, 2.0)
    one = event({"usage": {"completion_tokens": 1}})
    usage = timed((4.0, ROLE + TOKEN), (5.0, one + DONE), end=5.0)
    assert usage.tokens_per_second == 0.2


def test_an_answer_without_a_word_is_timed_by_its_first_event() -> None:
    usage = timed((2.0, ROLE), (3.0, FINISH), (4.0, COST), end=4.0)
    assert (usage.time_to_first_token, usage.tokens_per_second) == (2.0, 2.5)


def test_the_first_token_is_found_in_pieces_and_chunks() -> None:
    raw = b"".join(chunk(one) for one in (ROLE, TOKEN, COST))
    end = len(chunk(ROLE)) + len(chunk(TOKEN)) - 3
    usage = timed(*((float(at), raw[at : at + 1]) for at in range(len(raw))), end=9999.0)
    assert usage.time_to_first_token == end


def test_a_long_beginning_is_not_kept() -> None:
    blocks = [(float(at), b"x" * 10_000) for at in range(20)]
    usage = timed(*blocks, (20.0, b"\n\n" + TOKEN), end=21.0)
    assert usage.time_to_first_token == 20.0


COUNTS = st.one_of(st.none(), st.integers(-1, 10**6))
ANSWERS = st.fixed_dictionaries(
    {
        "usage": st.fixed_dictionaries(
            {"prompt_tokens": COUNTS},
            optional={
                "completion_tokens": COUNTS,
                "prompt_tokens_details": st.one_of(
                    st.none(), st.fixed_dictionaries({}, optional={"cached_tokens": COUNTS})
                ),
            },
        )
    },
    optional={
        "choices": st.lists(
            st.fixed_dictionaries(
                {"message": st.fixed_dictionaries({"content": st.text(max_size=20)})},
                optional={"finish_reason": st.sampled_from([None, "stop", "length"])},
            ),
            max_size=2,
        ),
        "timings": st.fixed_dictionaries(
            {}, optional={key: st.integers(0, 999) for key in TIMINGS}
        ),
    },
)


@given(ANSWERS, st.sampled_from([1, 2]))
def test_an_answer_read_as_a_whole_says_what_its_end_says(body: object, pieces: int) -> None:
    whole = json.dumps(body).encode()
    middle = len(whole) // pieces
    in_pieces = read(*(one for one in (whole[:middle], whole[middle:], b" ") if one), stream=False)
    assert read(whole, stream=False) == in_pieces


@given(ANSWERS, st.booleans())
def test_the_last_event_read_as_a_whole_says_what_its_bytes_say(
    body: object, reason_before: bool
) -> None:
    events = [TOKEN, *([FINISH] if reason_before else []), event(body), DONE]
    whole = b"".join(chunk(one) for one in events)
    # Without the blank it is as valid, and not read as a whole.
    unusual = b"".join(chunk(one.replace(b"data: {", b"data:{")) for one in events)
    assert read(whole) == read(unusual)
