"""What the server around ONNX Runtime GenAI answers, spoken to directly."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.engine.children import PATIENCE, Child, model, running
from tests.serving import eventually

pytestmark = pytest.mark.engine

MODEL = "tiny-lemon-oga-int4"
GREETING = "Hello! How can I help you today?"
WEATHER = {
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


def asked(text: str, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], "temperature": 0, **more}


def chat(child: Child, text: str, **more: Any) -> dict[str, Any]:
    reply = child.post("/v1/chat/completions", asked(text, **more))
    assert reply.status_code == 200, reply.text
    answer: dict[str, Any] = reply.json()
    return answer


def events(child: Child, path: str, body: dict[str, Any]) -> list[Any]:
    reply = child.post(path, {**body, "stream": True})
    assert reply.status_code == 200, reply.text
    assert reply.headers["Content-Type"].startswith("text/event-stream")
    lines = [line[6:] for line in reply.text.splitlines() if line.startswith("data: ")]
    if path != "/v1/responses":
        assert lines.pop() == "[DONE]"
    return [json.loads(line) for line in lines]


def count(child: Child, name: str) -> float:
    lines = child.get("/metrics").text.splitlines()
    return float(next(line for line in lines if line.startswith(name)).split()[-1])


def test_models_and_health(genai_child: Child) -> None:
    assert genai_child.get("/health").json() == {"status": "ok"}
    (row,) = genai_child.get("/v1/models").json()["data"]
    assert (row["id"], row["max_model_len"]) == (MODEL, 1024)


def test_chat(genai_child: Child) -> None:
    answer = chat(genai_child, "Hello", model="whatever")
    (choice,) = answer["choices"]
    assert choice["message"] == {"role": "assistant", "content": GREETING}
    assert choice["finish_reason"] == "stop"
    assert answer["model"] == "whatever"
    usage = answer["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert usage["prompt_tokens"] == 9


def test_stream(genai_child: Child) -> None:
    options = {"stream_options": {"include_usage": True}}
    *chunks, last = events(genai_child, "/v1/chat/completions", asked("Hello", **options))
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas[0] == {"role": "assistant", "content": ""}
    assert "".join(delta.get("content", "") for delta in deltas) == GREETING
    assert len(deltas) > 5
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
    assert (last["choices"], last["usage"]["prompt_tokens"]) == ([], 9)
    assert len({chunk["id"] for chunk in chunks}) == 1


def test_parts_of_a_message_and_a_system_turn(genai_child: Child) -> None:
    parts = [{"type": "text", "text": "Hello"}]
    body = {"messages": [{"role": "user", "content": parts}], "temperature": 0}
    answer = genai_child.post("/v1/chat/completions", body).json()
    assert answer["choices"][0]["message"]["content"] == GREETING
    turns = [{"role": "system", "content": "Be kind."}, *asked("Hello")["messages"]]
    longer = genai_child.post("/v1/chat/completions", {"messages": turns}).json()
    assert longer["usage"]["prompt_tokens"] > answer["usage"]["prompt_tokens"]


def test_a_tool_and_its_result(genai_child: Child) -> None:
    question = "What is the weather in Paris?"
    (choice,) = chat(genai_child, question, tools=[WEATHER])["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None
    (call,) = choice["message"]["tool_calls"]
    assert json.loads(call["function"]["arguments"]) == {"city": "Paris"}
    result = {
        "role": "tool",
        "tool_call_id": call["id"],
        "content": '{"city": "Paris", "temp_c": 21}',
    }
    turns = [*asked(question)["messages"], choice["message"], result]
    body = {"messages": turns, "tools": [WEATHER], "temperature": 0}
    answer = genai_child.post("/v1/chat/completions", body).json()
    assert answer["choices"][0]["message"]["content"] == "It is 21 degrees in Paris."


def test_a_tool_in_a_stream(genai_child: Child) -> None:
    body = asked("What is the weather in Paris?", tools=[WEATHER])
    chunks = events(genai_child, "/v1/chat/completions", body)
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    (call,) = [call for delta in deltas for call in delta.get("tool_calls", [])]
    assert (call["index"], call["function"]["name"]) == (0, "get_weather")
    assert "".join(delta.get("content") or "" for delta in deltas) == ""
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_no_tool_when_none_is_wanted(genai_child: Child) -> None:
    answer = chat(
        genai_child, "What is the weather in Paris?", tools=[WEATHER], tool_choice="none"
    )
    assert "tool_calls" not in answer["choices"][0]["message"]


@pytest.mark.parametrize("stop", ["can I", ["zzz", "n I he"], "!"])
def test_stop_strings_across_tokens(genai_child: Child, stop: Any) -> None:
    first = stop if isinstance(stop, str) else stop[-1]
    (choice,) = chat(genai_child, "Hello", stop=stop)["choices"]
    assert choice["message"]["content"] == GREETING.partition(first)[0]
    assert choice["finish_reason"] == "stop"


@pytest.mark.parametrize("limit", ["max_tokens", "max_completion_tokens"])
def test_limits(genai_child: Child, limit: str) -> None:
    answer = chat(genai_child, "Tell me a story about a fox", **{limit: 5})
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 5


def test_a_seed_repeats_itself(genai_child: Child) -> None:
    def told(seed: int) -> str:
        body = asked("Tell me a story about a fox", seed=seed, max_tokens=40)
        answer = genai_child.post("/v1/chat/completions", {**body, "temperature": 2.0}).json()
        text: str = answer["choices"][0]["message"]["content"]
        return text

    assert told(1) == told(1)
    assert len({told(seed) for seed in range(4)}) > 1


def test_characters_are_whole(genai: tuple[str, ...]) -> None:
    # This tokenizer has a token for each byte of them.
    program, overlay = Path(__file__).with_name("try_text.py"), Path(genai[-1]).parent
    done = subprocess.run(
        [genai[0], "-I", str(program), str(overlay), model(MODEL), "a🍋bé"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    pieces = json.loads(done.stdout)
    assert [piece for piece in pieces if piece] == ["a", "🍋", "b", "é"]
    assert len(pieces) > 6


def test_noise_is_text_too(genai_child: Child) -> None:
    body = {"prompt": "a", "max_tokens": 200, "temperature": 10, "top_k": 0, "seed": 5,
            "ignore_eos": True}  # fmt: skip
    whole = genai_child.post("/v1/completions", body).json()["choices"][0]["text"]
    chunks = events(genai_child, "/v1/completions", body)
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == whole
    assert any(ord(letter) > 127 for letter in whole)


def test_an_answer_that_follows_a_schema(genai_child: Child) -> None:
    schema = {
        "type": "object",
        "properties": {"n": {"enum": [1, 2]}},
        "required": ["n"],
        "additionalProperties": False,
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    answer = chat(genai_child, "Hello", response_format=wanted)
    assert json.loads(answer["choices"][0]["message"]["content"])["n"] in (1, 2)


def test_settings_of_the_template(genai_child: Child) -> None:
    thinking = {"thinks": True, "enable_thinking": True}
    answer = chat(genai_child, "Hello", chat_template_kwargs=thinking, max_tokens=200)
    message = answer["choices"][0]["message"]
    assert "reasoning_content" in message
    assert "<think>" not in message["reasoning_content"] + (message["content"] or "")


def test_text(genai_child: Child) -> None:
    answer = genai_child.post("/v1/completions", {"prompt": "Once upon", "max_tokens": 4}).json()
    (choice,) = answer["choices"]
    assert choice["text"].startswith(" a time")
    assert choice["finish_reason"] == "length"
    chunks = events(genai_child, "/v1/completions", {"prompt": "Once upon", "max_tokens": 4})
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == choice["text"]


def test_a_response(genai_child: Child) -> None:
    answer = genai_child.post("/v1/responses", {"input": "Hello", "temperature": 0}).json()
    assert answer["output"][0]["content"][0]["text"] == GREETING
    said = events(genai_child, "/v1/responses", {"input": "Hello", "temperature": 0})
    assert [event["sequence_number"] for event in said] == list(range(len(said)))
    assert said[-1]["type"] == "response.completed"
    assert said[-1]["response"]["output"][0]["content"][0]["text"] == GREETING
    deltas = [e["delta"] for e in said if e["type"] == "response.output_text.delta"]
    assert "".join(deltas) == GREETING


def test_a_prompt_that_is_too_long(genai_child: Child) -> None:
    for stream in (False, True):
        body = asked("hello there " * 900, stream=stream)
        reply = genai_child.post("/v1/chat/completions", body)
        error = reply.json()["error"]
        assert (reply.status_code, error["code"]) == (400, "context_length_exceeded")
        assert "1024" in error["message"]
        assert "18" in error["message"]


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/v1/chat/completions", b"{", 400),
        ("POST", "/v1/chat/completions", b"[]", 400),
        ("POST", "/v1/chat/completions", b'{"messages": [{"role": "user"}], "n": 3}', 400),
        ("POST", "/v1/completions", b"{}", 400),
        ("GET", "/v1/completions", b"", 405),
        ("GET", "/v1/embeddings", b"", 404),
    ],
)
def test_errors_have_one_shape(
    genai_child: Child, method: str, path: str, body: bytes, status: int
) -> None:
    with raw(genai_child) as wire:
        head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        wire.sendall(head.encode() + body)
        answer = received(wire)
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    error = json.loads(answer.partition(b"\r\n\r\n")[2])["error"]
    assert set(error) == {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"POST /v1/completions HTTP/1.1\r\nContent-Length: x\r\n\r\n", 400),
        (b"POST /v1/completions HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n", 413),
        (b"POST /v1/completions HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"GET / HTTP/1.1\r\nx: " + b"y" * 70_000 + b"\r\n\r\n", 431),
    ],
)
def test_what_is_no_request(genai_child: Child, sent: bytes, status: int) -> None:
    with raw(genai_child) as wire:
        wire.sendall(sent)
        assert received(wire).startswith(f"HTTP/1.1 {status} ".encode())
    assert genai_child.get("/health").status_code == 200


def test_a_body_in_chunks_and_a_connection_used_again(genai_child: Child) -> None:
    body = json.dumps(asked("Hello")).encode()
    chunks = b"%x\r\n%b\r\n%x\r\n%b\r\n0\r\n\r\n" % (10, body[:10], len(body) - 10, body[10:])
    head = b"POST /v1/chat/completions HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    with raw(genai_child) as wire:
        for _ in range(3):
            wire.sendall(head + chunks)
            answer = received(wire)
            assert GREETING in answer.decode()


def test_who_hangs_up_is_not_computed_for(genai_child: Child) -> None:
    endless = asked("Hello", ignore_eos=True)
    for stream in (True, False):
        before = count(genai_child, "oga:tokens_predicted_total")
        with raw(genai_child) as wire:
            body = json.dumps({**endless, "stream": stream}).encode()
            head = f"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n"
            wire.sendall(head.encode() + body)
            eventually(
                lambda before=before: count(genai_child, "oga:tokens_predicted_total") > before,
                "it has begun",
            )
        eventually(lambda: count(genai_child, "oga:requests_processing") == 0, "it does not go on")
        # All of its context would have been a thousand.
        assert count(genai_child, "oga:tokens_predicted_total") - before < 1000


def test_metrics(genai_child: Child) -> None:
    before = count(genai_child, "oga:prompt_tokens_total")
    chat(genai_child, "Hello")
    assert count(genai_child, "oga:prompt_tokens_total") == before + 9
    assert 'path="/v1/chat/completions",status="200"' in genai_child.get("/metrics").text


def test_an_alias_and_a_key(genai: tuple[str, ...]) -> None:
    env = {"OGA_API_KEY": "a secret"}
    with running(genai, MODEL, "--alias", "limette", env=env) as child:
        assert child.get("/health").status_code == 200
        for headers in ({}, {"Authorization": "Bearer another"}, {"Authorization": "a secret"}):
            for path in ("/v1/models", "/metrics"):
                reply = child.get(path, headers=headers)
                assert reply.status_code == 401
                assert reply.json()["error"]["type"] == "authentication_error"
        headers = {"Authorization": "Bearer a secret"}
        assert child.get("/v1/models", headers=headers).json()["data"][0]["id"] == "limette"
        body = asked("Hello", model="other")
        answer = child.post("/v1/chat/completions", body, headers=headers).json()
        assert answer["model"] == "limette"


@contextmanager
def raw(child: Child) -> Iterator[socket.socket]:
    address = urlsplit(child.url)
    assert address.hostname
    assert address.port
    with socket.create_connection((address.hostname, address.port), PATIENCE) as wire:
        yield wire


def received(wire: socket.socket) -> bytes:
    """A reply with a length."""
    data = b""
    while b"\r\n\r\n" not in data:
        block = wire.recv(65536)
        assert block, data
        data += block
    head, _, body = data.partition(b"\r\n\r\n")
    length = next(
        int(line.split(b":")[1])
        for line in head.split(b"\r\n")
        if line.lower().startswith(b"content-length")
    )
    while len(body) < length:
        body += wire.recv(65536)
    return head + b"\r\n\r\n" + body
