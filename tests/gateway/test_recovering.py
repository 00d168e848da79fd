"""What a client is told of an engine that died under its request, and when it is told nothing."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.gateway.vllm_like import vllm_like_catalog
from tests.serving import Serving, fake_catalog, fake_model, serving

PROBLEMS = """
[[problem]]
pattern = "no kernel image"
cause = "The GPU has faulted."
fix = "Let it rest."
severe = true
"""


@pytest.fixture
def server(home: Path) -> Iterator[Serving]:
    catalog = fake_catalog(home)
    fake_model(catalog, "once", args=f"--crash-after-head {home / 'crashed'}")
    fake_model(catalog, "steady", args="--chunks 500 --slow-chunks 0.05")
    fake_model(catalog, "poison", args="--answers crash")
    with serving(home, env={"LEMONADE_CATALOG": str(catalog)}) as one:
        yield one


def incidents(server: Serving, model: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = server.get(f"incidents?model={model}").json()["incidents"]
    return found


def test_an_engine_that_dies_between_head_and_first_byte_is_not_felt(server: Serving) -> None:
    with server.chat("once", stream=True) as reply:
        lines = [line for line in reply.iter_lines() if line]
    assert reply.status_code == 200
    assert lines[-1] == b"data: [DONE]"
    assert not any(b'"error"' in line for line in lines)
    (one,) = incidents(server, "once")
    assert (one["kind"], one["how"]) == ("crashed", "signal")
    assert "SIGSEGV" in one["ended"]


def test_an_engine_that_dies_after_comments_is_not_felt(home: Path) -> None:
    catalog = vllm_like_catalog(home, {"once": f"--pings-and-dies {home / 'crashed'}"})
    with (
        serving(home, env={"LEMONADE_CATALOG": str(catalog)}) as server,
        server.chat("once", stream=True, max_tokens=3) as reply,
    ):
        lines = [line for line in reply.iter_lines() if line]
        assert lines[-1] == b"data: [DONE]"
        assert not any(b'"error"' in line for line in lines)
        assert incidents(server, "once")[0]["how"] == "signal"


def test_the_openai_client_sees_that_a_stream_broke_off_and_why(server: Serving) -> None:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        stream = client.chat.completions.create(
            model="steady", messages=[{"role": "user", "content": "Hello"}], stream=True
        )
        chunks = iter(stream)
        assert next(chunks).choices[0].delta.content
        os.kill(server.loaded()["steady"]["pid"], signal.SIGKILL)
        with pytest.raises(openai.APIError) as caught:
            list(chunks)
    assert "ended by SIGKILL" in caught.value.message
    body = caught.value.body
    assert isinstance(body, dict)
    assert body["how"] == "signal"
    assert body["incident"] == incidents(server, "steady")[0]["id"]


def test_an_answer_that_never_began_says_how_the_engine_ended(server: Serving) -> None:
    reply = server.chat("poison")
    assert reply.status_code == 502
    error = reply.json()["error"]
    assert "ended by SIGABRT" in error["message"]
    assert error["facts"]["how"] == "signal"


def test_a_fault_of_the_device_opens_the_circuit_at_once_and_force_closes_it(home: Path) -> None:
    catalog = fake_catalog(home)
    recipe = catalog / "recipes" / "fake.toml"
    recipe.write_text(recipe.read_text() + PROBLEMS)
    fake_model(catalog, "poison", args="--answers crash")
    with serving(home, env={"LEMONADE_CATALOG": str(catalog)}) as server:
        assert server.post("load", {"model_name": "poison"}).status_code == 200
        refused = server.chat("poison")
        assert refused.status_code == 503
        assert int(refused.headers["Retry-After"]) > 0
        error = refused.json()["error"]
        assert "The GPU has faulted." in error["message"]
        assert "no kernel image" in json.dumps(error["facts"]["last_lines"])
        started = server.log().count("poison: starting")
        assert server.chat("poison").status_code == 503
        assert server.log().count("poison: starting") == started
        assert incidents(server, "poison")[0]["how"] == "device-fault"
        forced = server.post("load", {"model_name": "poison", "force": True})
        assert forced.status_code == 200
