"""Genuine vLLM takes and forgets adapters while it answers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.serving import ROOT, Serving
from tests.vllm.loading import READY_WITHIN, load

pytestmark = [pytest.mark.vllm, pytest.mark.slow, pytest.mark.timeout(2400)]

PIRATE = ROOT / "models" / "tiny-lemon-pirate-peft"
PLAIN = "Hello! How can I help you today?"
ARR = f"ARR!\n{PLAIN}"
TOKENS = 700


def change(server: Serving, name: str, **body: object) -> requests.Response:
    return server.post("models/tiny/adapters", {"name": name, **body}, timeout=READY_WITHIN)


def effect(reply: requests.Response) -> str:
    assert reply.status_code == 200, reply.text
    word: str = reply.json()["effect"]
    return word


def said(server: Serving, model: str) -> str:
    reply = server.chat(model)
    assert reply.status_code == 200, reply.text
    text: str = reply.json()["choices"][0]["message"]["content"]
    return text


def begun(server: Serving, model: str) -> requests.Response:
    """A stream of many tokens, whose head is here."""
    return server.chat(
        model, "Tell me a story about a fox", stream=True, max_tokens=TOKENS, ignore_eos=True
    )


def ended(stream: requests.Response) -> dict[str, Any]:
    """The last event of a stream that ends as it should."""
    events = [line[6:] for line in stream.iter_lines() if line.startswith(b"data: ")]
    assert events[-1] == b"[DONE]", events[-3:]
    parts = [json.loads(event) for event in events[:-1]]
    assert not [part for part in parts if "error" in part]
    (finish,) = [c["finish_reason"] for p in parts for c in p["choices"] if c["finish_reason"]]
    assert finish == "length"
    last: dict[str, Any] = parts[-1]
    return last


def test_adapters_come_and_go_while_it_answers(server: Serving, tmp_path: Path) -> None:
    load(server)
    assert said(server, "tiny") == PLAIN
    assert effect(change(server, "pirate", path=str(PIRATE))) == "reload", "started without"
    words = server.loaded()["tiny"]["launch_command"]
    assert words[words.index("--enable-lora") :][:3] == ["--enable-lora", "--max-lora-rank", "16"]
    pid = server.loaded()["tiny"]["pid"]
    for model, text in (("tiny", PLAIN), ("tiny:pirate", ARR), ("user.tiny:pirate", ARR)):
        assert said(server, model) == text

    second = shutil.copytree(PIRATE, tmp_path / "second")
    with begun(server, "tiny") as plain, begun(server, "tiny:pirate") as adapted:
        assert effect(change(server, "second", path=str(second))) == "hot"
        assert said(server, "tiny:second") == ARR
        assert effect(change(server, "pirate", action="unload")) == "hot"
        assert server.chat("tiny:pirate").status_code == 404
        assert said(server, "tiny") == PLAIN
        assert ended(plain)["model"] == "tiny"
        assert ended(adapted)["model"] == "tiny:pirate"
    assert server.loaded()["tiny"]["pid"] == pid
    assert server.loaded()["tiny"]["adapters"] == ["second"]

    bad = shutil.copytree(PIRATE, tmp_path / "bad")
    weights = bad / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    reply = change(server, "bad", path=str(bad))
    assert (reply.status_code, reply.json()["error"]["code"]) == (502, "adapter-refused")
    assert "bad" in reply.json()["error"]["message"]
    assert change(server, "second", action="scale", scale=2).json()["effect"] == "unsupported"
    assert said(server, "tiny:second") == ARR
    assert said(server, "tiny") == PLAIN
    assert server.loaded()["tiny"]["pid"] == pid

    assert server.post("unload", {"model_name": "tiny"}).status_code == 200
    assert server.loaded() == {}
