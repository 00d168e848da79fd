"""The real OpenAI client, unchanged, against real engines.

Each test runs on the embedded engine, and on a genuine `llama-server` where `LLAMA_SERVER_BIN`
names one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
import requests

from tests.serving import Serving, eventually, serving, survivors

pytestmark = pytest.mark.engine

CHAT, THINK = "Tiny-Lemon-GGUF", "Tiny-Lemon-Think-GGUF"
EMBED, RERANK = "Tiny-Embed-GGUF", "Tiny-Rerank-GGUF"

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}


@pytest.fixture(scope="module", params=["wheel", "system"])
def server(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    engine_bundles: Path,
) -> Iterator[Serving]:
    home = tmp_path_factory.mktemp(request.param)
    env, section = {}, {"backend": request.param}
    if request.param == "system":
        binary = os.environ.get("LLAMA_SERVER_BIN")
        if not binary:
            pytest.skip("LLAMA_SERVER_BIN names no llama-server")
        env["LEMONADE_LLAMACPP_SYSTEM_BIN"] = binary
    config = {"llamacpp": section, "max_loaded_models": 2}
    with serving(home, env=env, config=config, bundles=engine_bundles) as one:
        yield one
    assert not survivors(home)


@pytest.fixture(scope="module")
def client(server: Serving) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as one:
        yield one


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def test_chat(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(
        model=CHAT, messages=user("What is the capital of Japan?"), temperature=0
    )
    assert reply.choices[0].message.content == "The capital of Japan is Tokyo."
    assert reply.choices[0].finish_reason == "stop"
    assert reply.model == CHAT
    assert reply.usage is not None
    assert reply.usage.completion_tokens > 3


def test_streamed_chat(client: openai.OpenAI, server: Serving) -> None:
    chunks = list(
        client.chat.completions.create(
            model=CHAT,
            messages=user("Hello"),
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == "Hello! How can I help you today?"
    assert len(chunks) > 5
    usage = chunks[-1].usage
    assert usage is not None
    stats = server.get("stats").json()
    assert stats["output_tokens"] == usage.completion_tokens
    assert stats["prompt_tokens"] == usage.prompt_tokens


def test_a_tool_call_and_its_result(client: openai.OpenAI) -> None:
    question = user("What is the weather in Paris?")
    first = client.chat.completions.create(
        model=CHAT, messages=question, tools=[WEATHER], temperature=0
    )
    assert first.choices[0].finish_reason == "tool_calls"
    call = first.choices[0].message.tool_calls[0]
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments) == {"city": "Paris"}
    result = {
        "role": "tool",
        "tool_call_id": call.id,
        "content": json.dumps({"city": "Paris", "temp_c": 21}),
    }
    second = client.chat.completions.create(
        model=CHAT,
        messages=[*question, first.choices[0].message, result],
        tools=[WEATHER],
        temperature=0,
    )
    assert second.choices[0].message.content == "It is 21 degrees in Paris."


def test_a_streamed_tool_call(client: openai.OpenAI) -> None:
    name, arguments = "", ""
    for chunk in client.chat.completions.create(
        model=CHAT,
        messages=user("What is the weather in Paris?"),
        tools=[WEATHER],
        temperature=0,
        stream=True,
    ):
        for part in (chunk.choices[0].delta.tool_calls or []) if chunk.choices else []:
            name += part.function.name or ""
            arguments += part.function.arguments or ""
    assert name == "get_weather"
    assert json.loads(arguments) == {"city": "Paris"}


def test_json_schema(client: openai.OpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer"}},
        "required": ["n"],
        "additionalProperties": False,
    }
    reply = client.chat.completions.create(
        model=CHAT,
        messages=user("What is 7 + 5?"),
        temperature=0,
        max_tokens=64,
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": schema, "strict": True},
        },
    )
    assert isinstance(json.loads(reply.choices[0].message.content)["n"], int)


def test_embeddings(client: openai.OpenAI) -> None:
    texts = ["hello there", "hello", "the capital of France"]
    reply = client.embeddings.create(model=EMBED, input=texts, encoding_format="float")
    vectors = [row.embedding for row in reply.data]
    assert {len(vector) for vector in vectors} == {64}

    def near(a: list[float], b: list[float]) -> float:
        return sum(x * y for x, y in zip(a, b, strict=True))

    assert near(vectors[0], vectors[1]) > near(vectors[0], vectors[2])
    # The client's default asks for base64 and decodes it itself.
    assert len(client.embeddings.create(model=EMBED, input="hello").data[0].embedding) == 64


def test_completions_and_responses(client: openai.OpenAI) -> None:
    text = client.completions.create(model=CHAT, prompt="Once upon", max_tokens=8, temperature=0)
    assert text.choices[0].text
    reply = client.responses.create(model=CHAT, input="Hello", temperature=0)
    assert reply.output_text == "Hello! How can I help you today?"
    kinds = [event.type for event in client.responses.create(model=CHAT, input="Hi", stream=True)]
    assert kinds[-1] == "response.completed"


def test_rerank_by_all_its_names(server: Serving) -> None:
    body = {"model": RERANK, "query": "capital", "documents": ["a", "b c", "d e f"]}
    for name in ("rerank", "reranking", "reranker"):
        reply = server.post(name, body)
        assert reply.status_code == 200
        rows = reply.json()["results"]
        assert {row["index"] for row in rows} == {0, 1, 2}
        assert len({row["relevance_score"] for row in rows}) == 3


def test_tokenize(server: Serving) -> None:
    assert server.chat(CHAT).status_code == 200
    assert server.post("tokenize", {"content": "Hello"}).json()["tokens"]


def test_thoughts_can_be_had_and_switched_off(client: openai.OpenAI) -> None:
    thinking = client.chat.completions.create(
        model=THINK, messages=user("Hello"), temperature=0
    ).choices[0]
    assert thinking.message.content == "Hello! How can I help you today?"
    assert "The user said: Hello" in thinking.message.reasoning_content
    silent = client.chat.completions.create(
        model=THINK,
        messages=user("Hello"),
        temperature=0,
        extra_body={"chat_template_kwargs": {"enable_thinking": False}},
    ).choices[0]
    assert silent.message.content == "Hello! How can I help you today?"
    assert not getattr(silent.message, "reasoning_content", None)


def test_errors_are_the_clients_own(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        client.chat.completions.create(model="Tiny-Lemon-GUFF", messages=user("x"))
    assert "Tiny-Lemon-GGUF" in str(unknown.value)
    with pytest.raises(openai.BadRequestError) as wrong:
        client.chat.completions.create(model=EMBED, messages=user("x"))
    assert "embedding" in str(wrong.value)
    with pytest.raises(openai.BadRequestError) as long:
        client.chat.completions.create(model=CHAT, messages=user("lemon " * 9000))
    assert long.value.code == "context_length_exceeded"


def test_names_with_prefix_and_latest_reach_the_model(client: openai.OpenAI) -> None:
    for name in (f"builtin.{CHAT}", f"{CHAT}:latest"):
        reply = client.chat.completions.create(model=name, messages=user("Hello"), temperature=0)
        assert reply.choices[0].message.content == "Hello! How can I help you today?"
    assert client.models.retrieve(CHAT).id == CHAT
    assert CHAT in [model.id for model in client.models.list()]


def test_a_closed_stream_frees_the_engines_slot(client: openai.OpenAI, server: Serving) -> None:
    stream = client.chat.completions.create(
        model=CHAT,
        messages=user("Tell me a story about a fox"),
        stream=True,
        max_tokens=3500,
        extra_body={"ignore_eos": True},
    )
    next(iter(stream))
    stream.close()
    eventually(
        lambda: (
            not any(slot["is_processing"] for slot in server.get(f"slots?model={CHAT}").json())
        ),
        "no slot of the engine works on it any longer",
    )


def test_the_engine_wants_a_key_only_the_server_knows(server: Serving) -> None:
    assert server.chat(CHAT).status_code == 200
    row = server.loaded()[CHAT]
    base = row["backend_url"]
    assert requests.get(f"{base}/models", timeout=10).status_code == 401
    assert not any("key" in word.lower() for word in row["launch_command"])
    assert Path(f"/proc/{row['pid']}").exists()
