"""Requests read: what the model is given, and what is refused by which name."""

from __future__ import annotations

import json
from types import ModuleType
from typing import Any

import pytest

HELLO = [{"role": "user", "content": "Hello"}]
TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}


@pytest.mark.parametrize(
    ("message", "read"),
    [
        ({"role": "developer", "content": "x"}, {"role": "system", "content": "x"}),
        ({"role": "assistant", "content": None}, {"role": "assistant", "content": ""}),
        (
            {"role": "user", "content": [{"type": "text", "text": one} for one in "ab"]},
            {"role": "user", "content": "a\nb"},
        ),
        (
            {"role": "tool", "content": "7", "tool_call_id": "c"},
            {"role": "tool", "content": "7", "tool_call_id": "c"},
        ),
        (
            {"role": "assistant",
             "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": '{"a": 1}'}}]},
            {"role": "assistant", "content": "", "tool_calls": [
                {"id": "c", "type": "function",
                 "function": {"name": "f", "arguments": {"a": 1}}}]},
        ),
        ({"role": "user", "content": "a\0b\ud800"}, {"role": "user", "content": "ab?"}),
    ],
)  # fmt: skip
def test_messages(wishes: ModuleType, message: Any, read: Any) -> None:
    assert json.loads(wishes.read_chat({"messages": [message]}).messages) == [read]


@pytest.mark.parametrize(
    ("body", "search"),
    [
        ({}, {}),
        ({"temperature": 0}, {"do_sample": False}),
        ({"temperature": 0.5}, {"do_sample": True, "temperature": 0.5}),
        ({"top_p": 0.9}, {"do_sample": True, "temperature": 1.0, "top_p": 0.9}),
        ({"temperature": 1, "top_k": -1}, {"do_sample": True, "temperature": 1.0, "top_k": 0}),
        ({"top_k": 1}, {"do_sample": False}),
        ({"top_p": 0}, {"do_sample": False}),
        ({"seed": 7}, {"random_seed": 7}),
        ({"repeat_penalty": 1.2}, {"repetition_penalty": 1.2}),
        ({"n": 1, "logprobs": False, "frequency_penalty": 0, "presence_penalty": 0.0}, {}),
    ],
)
def test_search(wishes: ModuleType, body: Any, search: Any) -> None:
    assert wishes.read_chat({"messages": HELLO, **body}).search == search


def test_the_rest(wishes: ModuleType) -> None:
    wish = wishes.read_chat(
        {
            "model": "m",
            "messages": HELLO,
            "max_tokens": 5,
            "max_completion_tokens": 9,
            "stop": ["x", ""],
            "stream": True,
            "stream_options": {"include_usage": True},
            "tools": [TOOL],
            "response_format": {"type": "json_schema", "json_schema": {"schema": {"a": 1}}},
            "chat_template_kwargs": {"enable_thinking": False},
            "user": "somebody",
        }
    )
    assert (wish.model, wish.max_tokens, wish.stop) == ("m", 9, ("x",))
    assert (wish.stream, wish.usage_wanted) == (True, True)
    assert json.loads(wish.tools) == [TOOL]
    assert json.loads(wish.schema)["a"] == 1
    assert wish.template_settings == {"enable_thinking": False}
    assert not wishes.read_chat({"messages": HELLO, "tools": [TOOL], "tool_choice": "none"}).tools
    assert wishes.read_completion({"prompt": ["Once"], "stop": "."}).stop == (".",)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": "Hello"}, "messages"),
        ({"messages": ["Hello"]}, "messages[0]"),
        ({"messages": [{"role": "king", "content": ""}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 7}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
         "messages[0].content"),
        ({"messages": [{"role": "assistant", "tool_calls": [{}]}]}, "messages[0].tool_calls"),
        ({"n": 2}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"logit_bias": {"5": 1}}, "logit_bias"),
        ({"frequency_penalty": 0.5}, "frequency_penalty"),
        ({"presence_penalty": -1}, "presence_penalty"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": -1}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"top_p": 2}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"seed": "x"}, "seed"),
        ({"stop": [1]}, "stop"),
        ({"stop": ["x"] * 17}, "stop"),
        ({"stream": "yes"}, "stream"),
        ({"tools": [{}]}, "tools"),
        ({"tools": [TOOL], "tool_choice": "required"}, "tool_choice"),
        ({"response_format": {"type": "grammar"}}, "response_format"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"chat_template_kwargs": {"a b": 1}}, "chat_template_kwargs"),
        ({"chat_template_kwargs": {"a": []}}, "chat_template_kwargs"),
    ],
)  # fmt: skip
def test_refused(wishes: ModuleType, body: Any, param: str) -> None:
    with pytest.raises(wishes.Refused) as refused:
        wishes.read_chat({"messages": HELLO, **body})
    error = refused.value.body()["error"]
    assert (error["param"], error["type"]) == (param, "invalid_request_error")


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000])
def test_no_json(wishes: ModuleType, body: bytes) -> None:
    with pytest.raises(wishes.Refused):
        wishes.read_json(body)


@pytest.mark.parametrize("prompt", [None, "", 7, ["a", "b"], [1, 2]])
def test_no_prompt(wishes: ModuleType, prompt: Any) -> None:
    with pytest.raises(wishes.Refused):
        wishes.read_completion({"prompt": prompt})


def test_responses_are_chats(modules: dict[str, ModuleType]) -> None:
    wish = modules["responses"].read_response(
        {
            "instructions": "Be short.",
            "input": [
                {"role": "user", "content": [{"type": "input_text", "text": "Weather?"}]},
                {"type": "reasoning", "summary": []},
                {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "c", "output": "wet"},
            ],
            "tools": [{"type": "function", "name": "f", "parameters": {}}],
            "max_output_tokens": 5,
        }
    )
    roles = [message["role"] for message in json.loads(wish.messages)]
    assert roles == ["system", "user", "assistant", "tool"]
    assert json.loads(wish.tools)[0]["function"]["name"] == "f"
    assert wish.max_tokens == 5
    for body in ({}, {"input": [{"type": "image"}]}, {"input": "x", "previous_response_id": "y"}):
        with pytest.raises(modules["wishes"].Refused):
            modules["responses"].read_response(body)
