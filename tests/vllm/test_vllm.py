"""Genuine vLLM answers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import psutil
import pytest
import requests

from tests.metrics_page import families_of
from tests.serving import Serving
from tests.vllm.loading import family_of, phases_of_a_load

pytestmark = [pytest.mark.vllm, pytest.mark.slow, pytest.mark.timeout(2400)]

HELLO = "Hello! How can I help you today?"
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}


@pytest.fixture(scope="module")
def phases(server: Serving) -> list[str]:
    return phases_of_a_load(server)


@pytest.fixture(scope="module")
def family(server: Serving, phases: list[str]) -> list[int]:
    assert phases
    return family_of(server)


@pytest.fixture
def client(server: Serving, family: list[int]) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=server.api, api_key="any", timeout=120) as one:
        yield one


def asked(text: str) -> Any:
    return [{"role": "user", "content": text}]


def test_what_it_is_started_with(server: Serving, family: list[int]) -> None:
    words = server.loaded()["tiny"]["launch_command"]
    given = words[words.index("--model") :]
    model = Path(given[1])
    assert model.parent == server.home / "hub" / "models--o--tiny" / "snapshots"
    port = given[given.index("--port") + 1]
    assert given == [
        *("--model", str(model), "--port", port, "--host", "127.0.0.1"),
        *("--served-model-name", "tiny", "--enforce-eager", "--max-model-len", "1024"),
        "--enable-prefix-caching",
        *("--max-num-seqs", "4", "--enable-auto-tool-choice", "--tool-call-parser", "hermes"),
    ]
    environ = psutil.Process(family[0]).environ()
    assert environ["PYTHONNOUSERSITE"] == environ["HF_HUB_OFFLINE"] == "1"
    assert environ["VLLM_CPU_KVCACHE_SPACE"] == "1"
    assert environ["VLLM_API_KEY"] not in server.log() + " ".join(words)
    assert environ.pop("LEMONADE_CHILD"), "the id of this run, by which it is found again"
    assert not [name for name in environ if name.startswith(("LEMONADE_", "LD_", "PYTHONPATH"))]


def test_its_start_is_told_as_it_goes(phases: list[str]) -> None:
    assert [phase for phase in phases if phase in ("engine", "weights", "cache", "server")] == [
        *("engine", "weights", "cache", "server")
    ]


def test_it_answers(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(
        model="tiny", messages=asked("What is the capital of Japan?"), temperature=0
    )
    assert reply.choices[0].message.content == "The capital of Japan is Tokyo."
    assert reply.model == "tiny"
    assert reply.usage is not None
    assert reply.usage.completion_tokens == 8


def test_it_streams(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model="tiny",
        messages=asked("Hello"),
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    text = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(text) == HELLO
    assert len(list(filter(None, text))) > 3
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 10


def test_a_stream_is_counted_and_its_client_sees_nothing_of_it(
    server: Serving, client: openai.OpenAI
) -> None:
    stream = client.chat.completions.create(
        model="tiny:latest", messages=asked("Hello"), temperature=0, stream=True
    )
    chunks = list(stream)
    assert all(chunk.choices and chunk.usage is None for chunk in chunks)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == HELLO
    stats = server.get("stats").json()
    assert stats["output_tokens"] == 10
    assert stats["prompt_tokens"] > 1
    assert stats["tokens_per_second"] > 0
    assert stats["time_to_first_token"] > 0


def test_a_limit_beyond_the_context_is_lowered(client: openai.OpenAI) -> None:
    for limit in ({"max_tokens": 100_000}, {"max_completion_tokens": 1024}):
        reply = client.chat.completions.create(
            model="tiny", messages=asked("Hello"), temperature=0, **limit
        )
        assert reply.choices[0].message.content == HELLO
    text = client.completions.create(model="tiny", prompt="Hello", max_tokens=100_000)
    assert text.usage is not None
    assert text.usage.total_tokens <= 1024
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model="tiny", messages=asked("Hello " * 2000))
    assert refused.value.code == "context_length_exceeded"


def test_its_metrics_are_on_our_page(server: Serving, family: list[int]) -> None:
    text = requests.get(f"{server.url}/metrics", timeout=30).text
    families = families_of(text)
    (running,) = families["vllm:num_requests_running"].samples
    assert running.labels["model"] == running.labels["model_name"] == "tiny"
    assert running.labels["backend"] == "vllm:cpu"
    assert families["vllm:generation_tokens_total"].samples[0].value > 0


def test_it_calls_a_tool(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(
        model="tiny",
        messages=asked("What is the weather in Paris?"),
        tools=[WEATHER],
        temperature=0,
    )
    (call,) = reply.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert call.function.name == "get_weather"
    assert '"Paris"' in call.function.arguments


def test_completions_and_responses(client: openai.OpenAI) -> None:
    text = client.completions.create(model="tiny", prompt="Hello", max_tokens=4).choices[0].text
    assert isinstance(text, str)
    answer = client.responses.create(model="tiny", input="Hello", temperature=0)
    assert answer.output_text == HELLO


@pytest.mark.parametrize(
    "args", ["--port 1", "--max_model_len 9", "--no-enable-prefix-caching", "--api-key x"]
)
def test_what_is_ours_is_refused_and_nobody_is_disturbed(
    server: Serving, family: list[int], args: str
) -> None:
    reply = server.post("load", {"model_name": "tiny", "vllm_args": args})
    assert reply.status_code == 400, reply.text
    assert server.loaded()["tiny"]["pid"] == family[0]
