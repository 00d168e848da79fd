"""What the child serves: llama.cpp's own server, with its defaults."""

from __future__ import annotations

import json

import pytest

from tests.engine.children import Child, running

pytestmark = pytest.mark.engine

HELLO = {"messages": [{"role": "user", "content": "Hello"}], "temperature": 0}


def test_chat(chat_child: Child) -> None:
    answer = chat_child.post("/v1/chat/completions", HELLO).json()
    assert answer["choices"][0]["message"]["content"] == "Hello! How can I help you today?"


def test_stream(chat_child: Child) -> None:
    reply = chat_child.post("/v1/chat/completions", {**HELLO, "stream": True})
    events = [line[6:] for line in reply.text.splitlines() if line.startswith("data: ")]
    assert events[-1] == "[DONE]"
    deltas = [json.loads(event)["choices"][0]["delta"] for event in events[:-1]]
    text = "".join(delta.get("content") or "" for delta in deltas)
    assert text == "Hello! How can I help you today?"


def test_tool_call(chat_child: Child) -> None:
    tool = {
        "type": "function",
        "function": {
            "name": "get_weather",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}},
                "required": ["city"],
            },
        },
    }
    question = [{"role": "user", "content": "What is the weather in Paris?"}]
    body = {"messages": question, "tools": [tool], "temperature": 0}
    choice = chat_child.post("/v1/chat/completions", body).json()["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    call = choice["message"]["tool_calls"][0]["function"]
    assert (call["name"], json.loads(call["arguments"])) == ("get_weather", {"city": "Paris"})


def test_four_slots_share_the_context(chat_child: Child) -> None:
    slots = chat_child.get("/slots").json()
    assert [slot["n_ctx"] for slot in slots] == [4096] * 4


def test_aliases_and_metrics(chat_child: Child) -> None:
    listed = json.dumps(chat_child.get("/v1/models").json())
    assert "lemon" in listed
    assert "limette" in listed
    assert chat_child.get("/metrics").status_code == 200


def test_slots_divide_the_context(engine: tuple[str, ...]) -> None:
    with running(engine, "tiny-lemon-Q8_0.gguf", "-c", "2048", "-np", "2") as child:
        assert [slot["n_ctx"] for slot in child.get("/slots").json()] == [1024, 1024]
        assert child.get("/metrics").status_code == 501


def test_key_from_the_environment(engine: tuple[str, ...]) -> None:
    env = {"LLAMA_API_KEY": "secret"}
    with running(engine, "tiny-lemon-Q8_0.gguf", env=env) as child:
        assert child.get("/health").status_code == 200
        assert child.get("/slots").status_code == 401
        headers = {"Authorization": "Bearer secret"}
        assert child.get("/slots", headers=headers).status_code == 200
        assert child.post("/v1/chat/completions", HELLO).status_code == 401


def test_embeddings(engine: tuple[str, ...]) -> None:
    with running(engine, "tiny-embed-F16.gguf", "--embeddings") as child:
        texts = ["hello there", "hello", "the capital of France"]
        data = child.post("/v1/embeddings", {"input": texts}).json()["data"]
    first, near, far = (entry["embedding"] for entry in data)
    assert len(first) == 64
    assert _dot(first, near) > _dot(first, far)


def test_reranking(engine: tuple[str, ...]) -> None:
    with running(engine, "tiny-rerank-F16.gguf", "--reranking") as child:
        body = {"query": "lemons", "documents": ["a fruit", "a car", "a lemon tree"]}
        results = child.post("/v1/rerank", body).json()["results"]
    assert sorted(result["index"] for result in results) == [0, 1, 2]
    assert len({result["relevance_score"] for result in results}) == 3


def test_thoughts_are_parted_from_the_answer(engine: tuple[str, ...]) -> None:
    with running(engine, "tiny-lemon-think-Q8_0.gguf") as child:
        message = child.post("/v1/chat/completions", HELLO).json()["choices"][0]["message"]
    assert message["reasoning_content"].startswith("The user said: Hello")
    assert message["content"] == "Hello! How can I help you today?"


def test_thinking_can_be_off_from_the_start(engine: tuple[str, ...]) -> None:
    switched = ("--chat-template-kwargs", '{"enable_thinking": false}')
    with running(engine, "tiny-lemon-think-Q8_0.gguf", *switched) as child:
        message = child.post("/v1/chat/completions", HELLO).json()["choices"][0]["message"]
    assert not message.get("reasoning_content")
    assert message["content"] == "Hello! How can I help you today?"


def test_sampling_defaults_hold(engine: tuple[str, ...]) -> None:
    with running(engine, "tiny-lemon-Q8_0.gguf", "--temp", "0.25", "--top-k", "7") as child:
        params = child.get("/props").json()["default_generation_settings"]["params"]
    assert (params["temperature"], params["top_k"]) == (0.25, 7)


def _dot(left: list[float], right: list[float]) -> float:
    return sum(a * b for a, b in zip(left, right, strict=True))
