"""Requests and streams of an engine that wants to be asked for usage, and refuses what is long."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
import requests

from tests.gateway.vllm_like import CONTEXT, engine_of, got, vllm_like_catalog, words
from tests.serving import PATIENCE, Serving, serving, survivors

pytestmark = pytest.mark.slow

ASKED = {"include_usage": True}
RUNNING = {"include_usage": True, "continuous_usage_stats": True}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    home = tmp_path_factory.mktemp("adapting")
    catalog = vllm_like_catalog(
        home,
        {
            "words": "--chunks 5",
            "torn": "--chunks 5 --tear 1",
            "thoughts": "--chunks 5 --says thoughts --tear 1",
            "call": "--chunks 5 --says call --tear 1",
            "innumerate": "--cannot-count",
            "dropper": "--chunks 5 --drop-mid-stream 3",
        },
    )
    env, config = {"LEMONADE_CATALOG": str(catalog)}, {"max_loaded_models": 6}
    with serving(home, env=env, config=config) as one:
        yield one
        assert "Traceback" not in one.log()
    assert not survivors(home)


@pytest.fixture(scope="module")
def client(server: Serving) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as one:
        yield one


def load(server: Serving, model: str) -> None:
    assert server.post("load", {"model_name": model}).status_code == 200


def streams(server: Serving, model: str, path: str, body: dict[str, Any]) -> tuple[bytes, bytes]:
    """What a client gets from us, and what from the engine itself for the same request."""
    load(server, model)
    body = {"model": model, "stream": True, **body}
    ours = requests.post(f"{server.url}/v1/{path}", json=body, timeout=PATIENCE)
    seen = got(server, model)
    direct = requests.post(f"{engine_of(server, model)}/v1/{path}", json=body, timeout=PATIENCE)
    assert ours.status_code == direct.status_code == 200
    assert json.loads(seen["body"])["stream_options"]["include_usage"] is True
    return ours.content, direct.content


CHAT = {"messages": [{"role": "user", "content": "x"}]}


@pytest.mark.parametrize("options", [None, {"include_usage": False}, ASKED, RUNNING])
@pytest.mark.parametrize("model", ["words", "torn", "thoughts", "call"])
def test_a_client_sees_usage_only_if_it_asked(
    server: Serving, model: str, options: dict[str, bool] | None
) -> None:
    body = {**CHAT, **({"stream_options": options} if options else {})}
    ours, direct = streams(server, model, "chat/completions", body)
    assert ours == direct
    assert (b'"usage"' in ours) is bool(options and options["include_usage"])
    stats = server.get("stats").json()
    assert (stats["prompt_tokens"], stats["output_tokens"]) == (7, 5)
    assert 0 < stats["time_to_first_token"] < PATIENCE
    assert stats["tokens_per_second"] > 0


def test_running_usage_does_not_begin_because_we_ask(server: Serving) -> None:
    body = {**CHAT, "stream_options": {"continuous_usage_stats": True}}
    ours, direct = streams(server, "words", "chat/completions", body)
    assert ours == direct
    assert b'"usage"' not in ours
    assert server.get("stats").json()["output_tokens"] == 5


def test_completions_and_responses_are_counted_too(server: Serving) -> None:
    before = server.get("stats").json()["output_tokens_total"]
    ours, direct = streams(server, "words", "completions", {"prompt": "x", "max_tokens": 4})
    assert ours == direct
    assert b'"usage"' not in ours
    reply = server.post("responses", {"model": "words", "input": "x", "stream": True})
    assert "response.completed" in reply.text
    assert json.loads(got(server, "words")["body"]) == {
        "model": "words",
        "input": "x",
        "stream": True,
    }
    stats = server.get("stats").json()
    assert stats["output_tokens_total"] == before + 4 + 5
    assert stats["time_to_first_token"] > 0


def test_a_broken_stream_still_says_so(server: Serving) -> None:
    reply = server.chat("dropper", stream=True)
    *_, last = [line for line in reply.iter_lines(decode_unicode=True) if line]
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "connection_lost"


def test_a_call_of_a_tool_in_pieces(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model="call", messages=[{"role": "user", "content": "x"}], stream=True
    )
    name, arguments, reasons = "", "", []
    for chunk in stream:
        assert chunk.choices, "no chunk without a choice"
        for call in chunk.choices[0].delta.tool_calls or []:
            assert call.function is not None
            name += call.function.name or ""
            arguments += call.function.arguments or ""
        reasons.append(chunk.choices[0].finish_reason)
    assert name == "get_weather"
    assert json.loads(arguments) == {"city": 'Paris ☃ "x"'}
    assert reasons[-1] == "tool_calls"


def test_thoughts_in_pieces(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model="thoughts",
        messages=[{"role": "user", "content": "x"}],
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    thoughts = [getattr(delta, "reasoning_content", "") for delta in deltas]
    assert "".join(filter(None, thoughts)) == "thought0 thought1 thought2 thought3 "
    assert "".join(delta.content or "" for delta in deltas) == "word4 "
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 5


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ({"max_tokens": 100_000}, {"max_tokens": 54}),
        ({"max_completion_tokens": 65}, {"max_completion_tokens": 54, "max_tokens": 54}),
        (
            {"max_completion_tokens": 500, "max_tokens": 600},
            {"max_completion_tokens": 54, "max_tokens": 54},
        ),
        ({"max_completion_tokens": 20}, {"max_completion_tokens": 20, "max_tokens": 20}),
        ({"max_tokens": 54}, {"max_tokens": 54}),
        ({"max_tokens": None}, {"max_tokens": None}),
        ({}, {}),
    ],
)
def test_a_limit_is_lowered_to_what_the_context_leaves(
    server: Serving, given: dict[str, int | None], sent: dict[str, int | None]
) -> None:
    reply = server.chat("words", words(10), **given)
    assert reply.status_code == 200, reply.text
    body = json.loads(got(server, "words")["body"])
    assert {name: body[name] for name in body if name.startswith("max_")} == sent


def test_a_completion_is_counted_as_such(server: Serving) -> None:
    reply = server.post("completions", {"model": "words", "prompt": words(30), "max_tokens": 1000})
    assert reply.status_code == 200, reply.text
    assert json.loads(got(server, "words")["body"])["max_tokens"] == CONTEXT - 30


def test_what_cannot_be_counted_is_lowered_to_the_context(server: Serving) -> None:
    body: dict[str, Any] = {"model": "words", "input": "x", "max_output_tokens": 1000}
    assert server.post("responses", body).status_code == 200
    assert json.loads(got(server, "words")["body"])["max_output_tokens"] == CONTEXT
    assert server.post("responses", body | {"max_output_tokens": 5}).status_code == 200
    assert json.loads(got(server, "words")["body"])["max_output_tokens"] == 5


@pytest.mark.parametrize(
    ("model", "text", "limit"),
    [("words", words(CONTEXT + 1), 100), ("words", words(CONTEXT), 60), ("innumerate", "x", 100)],
)
def test_what_cannot_fit_or_be_counted_is_the_engines_to_refuse(
    server: Serving, model: str, text: str, limit: int
) -> None:
    reply = server.chat(model, text, max_tokens=limit)
    assert reply.status_code == 400
    error = reply.json()["error"]
    assert error["code"] == "context_length_exceeded"
    assert error["type"] == "invalid_request_error"
    assert error["message"].startswith("This model's maximum context length is 64 tokens.")
    assert json.loads(got(server, model)["body"])["max_tokens"] == limit


@pytest.mark.parametrize("name", ["builtin.words", "words:latest"])
def test_the_engine_hears_the_one_name_it_knows(server: Serving, name: str) -> None:
    assert server.chat(name).status_code == 200
    assert server.chat(name, stream=True).status_code == 200
    assert json.loads(got(server, "words")["body"])["model"] == "words"


@pytest.mark.parametrize(
    "more", [b'"\xff": 1, "stream_options": {}', b'"\xff": 1, "max_tokens": 9999']
)
def test_a_body_that_has_to_be_written_anew_must_be_text(server: Serving, more: bytes) -> None:
    body = b'{"model": "words", "stream": true, "messages": [], %b}' % more
    reply = requests.post(f"{server.url}/v1/chat/completions", data=body, timeout=PATIENCE)
    assert reply.status_code == 400
    assert "UTF-8" in reply.json()["error"]["message"]
