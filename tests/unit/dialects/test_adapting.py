from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lemonade.core.errors import MalformedRequest
from lemonade.core.inference import Operation
from lemonade.dialects import (
    adapt_request,
    counting_request,
    lower_limit,
    read_context,
    read_count,
    rename_model,
)

BODY = b' {  "model":"m" , "messages" : [ {"content":"\\u2603"} ] }'


def adapted(body: object, **wishes: bool) -> tuple[Any, int | None, bool]:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    found = adapt_request(Operation.CHAT, raw, **wishes)
    return json.loads(found.body), found.limit, found.hide_usage


def test_nothing_is_touched_unless_told_to() -> None:
    for body in (BODY, b'{"max_completion_tokens": 5, "stream_options": null}'):
        assert adapt_request(Operation.CHAT, body).body is body
    for operation in set(Operation) - {Operation.CHAT, Operation.COMPLETION}:
        assert adapt_request(operation, BODY, old_limit=True, ask_usage=True).body is BODY


def test_what_is_missing_is_put_in_front_and_the_rest_keeps_its_bytes() -> None:
    found = adapt_request(Operation.CHAT, BODY, ask_usage=True)
    assert found.hide_usage
    assert found.body == b' {"stream_options":{"include_usage":true},' + BODY[2:]
    body = BODY[:-1] + b',"max_completion_tokens":7}'
    found = adapt_request(Operation.CHAT, body, old_limit=True)
    assert (found.body, found.limit) == (b' {"max_tokens":7,' + body[2:], 7)


@pytest.mark.parametrize(
    ("given", "sent", "hidden"),
    [
        (None, {"include_usage": True}, True),
        ({}, {"include_usage": True}, True),
        ({"include_usage": None}, {"include_usage": True}, True),
        ({"include_usage": False, "x": [1]}, {"include_usage": True, "x": [1]}, True),
        (
            {"continuous_usage_stats": True},
            {"include_usage": True, "continuous_usage_stats": False},
            True,
        ),
        ({"include_usage": True}, {"include_usage": True}, False),
        (
            {"include_usage": True, "continuous_usage_stats": True},
            {"include_usage": True, "continuous_usage_stats": True},
            False,
        ),
        ({"include_usage": "yes"}, {"include_usage": "yes"}, False),
        (["x"], ["x"], False),
        ("x", "x", False),
    ],
)
def test_usage_is_asked_for_unless_the_client_did(
    given: object,
    sent: object,
    hidden: bool,
) -> None:
    body = {"model": "m", "stream_options": given, "prompt": "x"}
    found, _, hide = adapted(body, ask_usage=True)
    assert found == {**body, "stream_options": sent}
    assert hide is hidden


@pytest.mark.parametrize(
    ("given", "limit", "old"),
    [
        ({"max_completion_tokens": 7, "max_tokens": None}, 7, 7),
        ({"max_completion_tokens": 7, "max_tokens": 9}, 7, 9),
        ({"max_completion_tokens": None, "max_tokens": 9}, 9, 9),
        ({"max_completion_tokens": "7"}, None, None),
        ({"max_completion_tokens": 7.5}, None, None),
        ({"max_completion_tokens": True}, None, None),
        ({"max_completion_tokens": -1}, None, None),
        ({"max_completion_tokens": 0}, None, None),
        ({"max_completion_tokens": 10**40}, None, None),
        ({}, None, None),
    ],
)
def test_the_limit_is_said_twice(given: dict[str, Any], limit: int | None, old: object) -> None:
    found, said, _ = adapted({"model": "m", **given}, old_limit=True)
    assert said == limit
    assert found.get("max_tokens") == old
    assert found.get("max_completion_tokens") == given.get("max_completion_tokens")


@given(st.dictionaries(st.text(), st.text() | st.integers() | st.none(), min_size=1))
def test_other_fields_stay_what_they_are(fields: dict[str, Any]) -> None:
    fields.pop("max_tokens", None)
    fields["max_completion_tokens"] = 3
    found, _, _ = adapted(fields, old_limit=True)
    assert found == {**fields, "max_tokens": 3}


def test_limits_come_down_and_never_up() -> None:
    body = b'{"x": 1.50, "max_completion_tokens": 500, "max_tokens": 20}'
    assert json.loads(lower_limit(body, 100)) == {
        "x": 1.5,
        "max_completion_tokens": 100,
        "max_tokens": 20,
    }
    assert b"1.50" in lower_limit(body, 100)


def test_a_response_has_a_limit_of_its_own() -> None:
    body = b'{"input": "x", "max_output_tokens": 500}'
    found = adapt_request(Operation.RESPONSES, body, old_limit=True, ask_usage=True)
    assert (found.body, found.limit, found.hide_usage) == (body, 500, False)
    assert json.loads(lower_limit(body, 100))["max_output_tokens"] == 100


def test_another_name() -> None:
    assert json.loads(rename_model(b'{"model": "builtin.m", "x": [1]}', "m")) == {
        "model": "m",
        "x": [1],
    }


def test_what_is_not_text_is_refused_where_it_has_to_be_written() -> None:
    for body in (b'{"\xff": 1, "model": "m"}', b'{"\xff": 1, "stream_options": {}}'):
        with pytest.raises(MalformedRequest, match="UTF-8"):
            rename_model(body, "m")


def counting(operation: Operation, body: object) -> Any:
    raw = counting_request(operation, json.dumps(body).encode())
    return None if raw is None else json.loads(raw)


def test_a_chat_is_counted_with_all_its_template_sees() -> None:
    kept = {
        "model": "m",
        "messages": [{"role": "user", "content": "x"}],
        "tools": [{"type": "function"}],
        "chat_template": "t",
        "add_generation_prompt": True,
        "mm_processor_kwargs": {"a": 1},
    }
    ignored = {"stream": True, "max_tokens": 9, "temperature": 1, "media_io_kwargs": None}
    assert counting(Operation.CHAT, {**kept, **ignored}) == kept


@pytest.mark.parametrize(
    ("given", "arguments"),
    [
        ({"reasoning_effort": "none"}, {"reasoning_effort": "none", "enable_thinking": False}),
        ({"reasoning_effort": "low"}, {"reasoning_effort": "low", "enable_thinking": True}),
        (
            {"reasoning_effort": "low", "chat_template_kwargs": {"enable_thinking": False}},
            {"reasoning_effort": "low", "enable_thinking": False},
        ),
        (
            {"documents": [{"text": "d"}], "chat_template_kwargs": {"x": 1}},
            {"documents": [{"text": "d"}], "x": 1},
        ),
        ({"reasoning_effort": None, "chat_template_kwargs": None}, None),
    ],
)
def test_what_templates_see_under_other_names(given: dict[str, Any], arguments: object) -> None:
    asked = counting(Operation.CHAT, {"messages": [], **given})
    assert asked.pop("chat_template_kwargs", None) == arguments
    assert asked == {"messages": []}


def test_a_completion_is_counted_if_it_is_one_text() -> None:
    asked = counting(Operation.COMPLETION, {"model": "m", "prompt": "x", "max_tokens": 5})
    assert asked == {"model": "m", "prompt": "x"}
    for prompt in (["x", "y"], [1, 2], None):
        assert counting(Operation.COMPLETION, {"model": "m", "prompt": prompt}) is None
    assert counting(Operation.CHAT, {"model": "m"}) is None
    assert counting(Operation.CHAT, {"messages": [], "chat_template_kwargs": "x"}) is None
    assert counting(Operation.RESPONSES, {"input": "x"}) is None


@pytest.mark.parametrize(
    ("answer", "count"),
    [
        (b'{"count": 5, "max_model_len": 64, "tokens": [1, 2]}', 5),
        (b'{"token_count": 6}', 6),
        (b'{"tokens": [1, {"id": 2}, 3]}', 3),
        (b'{"token_ids": []}', 0),
        (b'{"count": "5"}', None),
        (b'{"tokens": 5}', None),
        (b"[]", None),
        (b"", None),
        (b'{"tokens": [1,', None),
    ],
)
def test_counts(answer: bytes, count: int | None) -> None:
    assert read_count(answer) == count


@pytest.mark.parametrize(
    ("rows", "context"),
    [
        ([{"id": "m", "max_model_len": 64}], 64),
        ([{"id": "a", "max_model_len": 1}, {"id": "m", "max_model_len": 64}], 64),
        ([{"id": "x", "meta": {"n_ctx": 512}}], 512),
        ([{"id": "m", "max_model_len": None, "meta": None}], None),
        ([{"id": "m", "max_model_len": True}], None),
        (["m"], None),
        ([], None),
        (None, None),
    ],
)
def test_contexts(rows: object, context: int | None) -> None:
    assert read_context(json.dumps({"data": rows}).encode(), "m") == context
    assert read_context(b"<html>", "m") is None
    assert read_context(b"[1]", "m") is None
