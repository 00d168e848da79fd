from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lemonade.dialects import UsageSieve


def event(body: object, end: str = "\n\n") -> bytes:
    return f"data: {json.dumps(body)}{end}".encode()


COST = {"prompt_tokens": 3, "completion_tokens": 5}
TOKEN = event({"choices": [{"delta": {"content": 'a "usage" \n\n b'}}]})
CALL = event(
    {"choices": [{"delta": {"tool_calls": [{"function": {"arguments": '{"usage": 1}'}}]}}]}
)
RUNNING = event({"choices": [{"delta": {"content": "x"}}], "usage": COST})
NULL = event({"choices": [], "usage": None})
USAGE = event({"id": "x", "choices": [], "usage": COST, "metrics": {"usage": {}}})
DONE = b"data: [DONE]\n\n"
ODD = (
    b": usage\n\n",
    b'event: x\ndata: {"choices": [], "usage": {}}\n\n',
    b'data: {"choices": [], "usage": {}\ndata: }\n\n',
    b'data: {"choices": [], "usage": {}, }\n\n',
    b'data: {"choices": {}, "usage": {}}\n\n',
    b'data: {"usage": {}}\n\n',
    b'data: {"choices": [], "usage": 3}\n\n',
    b'data: "usage"\n\n',
)


def sieved(*blocks: bytes) -> bytes:
    sieve = UsageSieve()
    return b"".join(sieve.feed(block) for block in blocks) + sieve.rest()


def test_the_one_event_goes_and_all_others_stay() -> None:
    kept = TOKEN + CALL + RUNNING + NULL
    assert sieved(kept + USAGE + DONE) == kept + DONE
    assert sieved(*(TOKEN, RUNNING, USAGE, DONE)) == TOKEN + RUNNING + DONE


@pytest.mark.parametrize("odd", ODD)
def test_what_only_looks_like_it_stays(odd: bytes) -> None:
    assert sieved(TOKEN + odd + DONE) == TOKEN + odd + DONE


@pytest.mark.parametrize("end", ["\n\n", "\r\n\r\n", "\r\r"])
def test_cut_at_every_byte(end: str) -> None:
    kept = [event({"choices": [{"text": "a"}]}, end), event("done", end)]
    text = kept[0] + event({"choices": [], "usage": COST}, end) + kept[1]
    for place in range(len(text) + 1):
        assert sieved(text[:place], text[place:]) == b"".join(kept)
    assert sieved(*(text[at : at + 1] for at in range(len(text)))) == b"".join(kept)


@given(
    st.lists(st.sampled_from([TOKEN, CALL, RUNNING, USAGE, NULL, DONE, *ODD]), max_size=8),
    st.lists(st.integers(0, 10**6), max_size=12),
    st.binary(max_size=10),
)
def test_cut_anywhere(events: list[bytes], places: list[int], left: bytes) -> None:
    text = b"".join(events) + left
    marks = sorted({0, len(text), *(place % (len(text) + 1) for place in places)})
    kept = b"".join(one for one in events if one is not USAGE) + left
    assert sieved(*(text[a:b] for a, b in pairwise(marks))) == kept


def test_a_whole_event_does_not_wait() -> None:
    sieve = UsageSieve()
    assert sieve.feed(TOKEN) == TOKEN
    assert sieve.feed(TOKEN + RUNNING[:30]) == TOKEN
    assert sieve.feed(RUNNING[30:]) == RUNNING


def test_little_is_held() -> None:
    sieve = UsageSieve()
    block = b"x" * 10_000
    assert sum(len(sieve.feed(block)) for _ in range(100)) >= 1_000_000 - 70_000
    assert len(sieve.rest()) <= 70_000
