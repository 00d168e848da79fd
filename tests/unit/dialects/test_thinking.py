"""Thinking on or off: what the engine is told, and what stays as it was."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lemonade.core.errors import MalformedRequest
from lemonade.core.inference import Operation
from lemonade.dialects import read_inference

USER = {"role": "user", "content": "hi"}


def told(operation: Operation = Operation.CHAT, **fields: Any) -> dict[str, Any]:
    body = {"model": "m", "messages": [USER]} | fields
    read = read_inference(operation, json.dumps(body).encode())
    answer: dict[str, Any] = json.loads(read.body)
    return answer


OFF = {
    "model": "m",
    "messages": [{"role": "user", "content": "/no_think\nhi"}],
    "reasoning_effort": "none",
    "chat_template_kwargs": {"enable_thinking": False},
}
AS_IT_WAS = {"model": "m", "messages": [USER]}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"enable_thinking": False}, OFF),
        ({"thinking": False}, OFF),
        ({"thinking": {"type": "disabled"}}, OFF),
        ({"thinking": {"type": "disabled", "budget_tokens": 1}}, OFF),
        ({"enable_thinking": True}, AS_IT_WAS),
        ({"thinking": True}, AS_IT_WAS),
        ({"thinking": {"type": "enabled"}}, AS_IT_WAS),
        ({"enable_thinking": False, "thinking": True}, OFF),
        ({"enable_thinking": True, "thinking": False}, AS_IT_WAS),
        ({"enable_thinking": None, "thinking": False}, OFF),
        ({"enable_thinking": None, "thinking": None}, AS_IT_WAS),
    ],
)
def test_the_engine_is_told(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    assert told(**fields) == expected


def test_what_the_client_said_to_the_engine_is_kept_where_it_does_not_contradict() -> None:
    answer = told(
        enable_thinking=False,
        reasoning_effort="high",
        chat_template_kwargs={"enable_thinking": True, "name": "x"},
        temperature=0.5,
    )
    assert answer["reasoning_effort"] == "none"
    assert answer["chat_template_kwargs"] == {"enable_thinking": False, "name": "x"}
    assert answer["temperature"] == 0.5


def test_null_template_arguments_are_none() -> None:
    answer = told(enable_thinking=False, chat_template_kwargs=None)
    assert answer["chat_template_kwargs"] == {"enable_thinking": False}


def test_the_switch_stands_before_the_last_plain_words_of_the_user() -> None:
    picture = {"role": "user", "content": [{"type": "text", "text": "look"}]}
    reply = {"role": "assistant", "content": "yes"}
    first, last = {"role": "user", "content": "one"}, {"role": "user", "content": "two"}
    answer = told(enable_thinking=False, messages=[first, last, reply, picture])
    assert answer["messages"] == [
        first,
        {"role": "user", "content": "/no_think\ntwo"},
        reply,
        picture,
    ]


@pytest.mark.parametrize(
    "messages",
    [[], "hi", None, 3, [1], [{"role": "user"}], [{"role": 1, "content": "x"}], [None]],
)
def test_odd_messages_are_left_for_the_engine_to_judge(messages: object) -> None:
    assert told(enable_thinking=False, messages=messages)["messages"] == messages


def test_without_messages_there_are_none_afterwards() -> None:
    body = b'{"model":"m","enable_thinking":false}'
    assert "messages" not in json.loads(read_inference(Operation.CHAT, body).body)


def test_what_does_not_change_keeps_its_bytes() -> None:
    odd = b'[1.0,  1e2, 12345678901234567890123, "\\u00e9"]'
    old = b'{"role": "user" , "content":"a\\/b"}'
    body = (
        b'{"odd": ' + odd + b', "messages": [' + old + b', {"role":"user","content":"x"}],'
        b' "model": "m", "thinking": false}'
    )
    sent = read_inference(Operation.CHAT, body).body
    assert odd in sent
    assert old in sent
    assert b'"/no_think\\nx"' in sent
    assert b'"thinking"' not in sent


def test_text_outside_ascii_survives() -> None:
    answer = told(enable_thinking=False, messages=[{"role": "user", "content": "日本 🍋 \n"}])
    assert answer["messages"][0]["content"] == "/no_think\n日本 🍋 \n"


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"enable_thinking": "no"}, "enable_thinking"),
        ({"enable_thinking": 0}, "enable_thinking"),
        ({"thinking": "disabled"}, "thinking"),
        ({"thinking": {"type": "sometimes"}}, "thinking"),
        ({"thinking": {}}, "thinking"),
        ({"thinking": []}, "thinking"),
        ({"enable_thinking": False, "chat_template_kwargs": [1]}, "chat_template_kwargs"),
    ],
)
def test_a_field_that_says_neither_yes_nor_no_is_named(fields: dict[str, Any], name: str) -> None:
    with pytest.raises(MalformedRequest, match=f"'{name}'") as caught:
        told(**fields)
    assert caught.value.facts == {"field": name}


@pytest.mark.parametrize("operation", [Operation.COMPLETION, Operation.RESPONSES])
def test_only_chats_are_rewritten(operation: Operation) -> None:
    body = b'{"model": "m", "thinking": "whatever"}'
    assert read_inference(operation, body).body is body


def test_a_field_further_down_is_none_of_ours() -> None:
    body = b'{"model": "m", "chat_template_kwargs": {"enable_thinking": false}}'
    assert read_inference(Operation.CHAT, body).body is body
