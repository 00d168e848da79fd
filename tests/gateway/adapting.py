"""The fake engine with adapters, in both ways that engines have, and adapters to put upon it."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import requests

from tests.serving import PROGRAMS, Serving, fake_catalog, fake_model

BY_SCALES = """
[rules]
launch = ["adapters-at-start"]

[adapters]
format = "gguf"
enable = ["--lora-init-without-apply"]
each = ["--lora", "{path}"]
excludes = ["--lora"]
unwritable = ","
chosen_by = "scales"
field = "lora"
operations = ["chat", "completion"]
"""

BY_NAME = """
[rules]
launch = ["adapters-at-start"]

[adapters]
format = "peft"
enable = ["--enable-lora", "--max-lora-rank", "{rank}"]
rank_flag = "--max-lora-rank"
ranks = [16, 32, 64]
environment = { FAKE_TELLABLE = "yes" }
load = "/v1/load_lora_adapter"
load_body = { lora_name = "{name}", lora_path = "{path}" }
unload = "/v1/unload_lora_adapter"
unload_body = { lora_name = "{name}" }
chosen_by = "name"
operations = ["chat", "completion"]
"""


def adapting_catalog(home: Path, how: str, *, args: str = "") -> Path:
    """A catalogue whose engine takes adapters that way, with the model `one`."""
    catalog = fake_catalog(home, program=PROGRAMS / "fake_adapters.py")
    recipe = catalog / "recipes" / "fake.toml"
    text = recipe.read_text()
    text = text.replace("reserved = [", 'repeatable = ["--lora"]\nreserved = [')
    recipe.write_text(text + how)
    fake_model(catalog, "one", args=args)
    return catalog


def gguf_adapter(file: Path, *, architecture: str = "llama") -> Path:
    """A GGUF that says it is one."""
    texts = {
        "general.architecture": architecture,
        "general.type": "adapter",
        "adapter.type": "lora",
    }
    raw = b"GGUF" + struct.pack("<IQQ", 3, 0, len(texts))
    for key, value in texts.items():
        raw += struct.pack("<Q", len(key)) + key.encode() + struct.pack("<IQ", 8, len(value))
        raw += value.encode()
    file.write_bytes(raw)
    return file


def peft_adapter(folder: Path, *, rank: int = 4, refuse: bool = False) -> Path:
    """A folder that says it is one."""
    folder.mkdir()
    config = {"peft_type": "LORA", "r": rank, "base_model_name_or_path": "acme/one"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    (folder / "adapter_model.safetensors").write_bytes(bytes(16))
    if refuse:
        (folder / "refuse").touch()
    return folder


def change(server: Serving, name: str, path: Path | None = None, **body: object) -> dict[str, Any]:
    """Change an adapter of the model `one`; it must succeed."""
    reply = ask(server, name, path, **body)
    assert reply.status_code == 200, reply.text
    answer: dict[str, Any] = reply.json()
    return answer


def ask(
    server: Serving, name: str, path: Path | None = None, model: str = "one", **body: object
) -> requests.Response:
    """The same, whatever comes of it."""
    place = {} if path is None else {"path": str(path)}
    return server.post(f"models/{model}/adapters", {"name": name, **place, **body})


def said(reply: requests.Response) -> str:
    """The text of an answer."""
    assert reply.status_code == 200, reply.text
    text: str = reply.json()["choices"][0]["message"]["content"]
    return text


def streamed(reply: requests.Response) -> str:
    """The text of the rest of a stream, which must come to its end."""
    text, ended = "", False
    for line in reply.iter_lines():
        if line == b"data: [DONE]":
            ended = True
        elif line.startswith(b"data: "):
            part = json.loads(line.removeprefix(b"data: "))
            assert "error" not in part, part
            text += part["choices"][0]["delta"].get("content") or ""
    assert ended
    return text


def last(server: Serving) -> dict[str, Any]:
    """The body of the engine's last request."""
    url = server.loaded()["one"]["backend_url"].removesuffix("/v1")
    body: dict[str, Any] = json.loads(requests.get(f"{url}/fake/last", timeout=30).json()["body"])
    return body
