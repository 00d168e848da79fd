"""Models as clients see them: lists, single ones, every name, and the operator's own folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import requests

from tests.serving import ROOT, Serving, serving, survivors

pytestmark = pytest.mark.engine

CHAT, THINK = "Tiny-Lemon-GGUF", "Tiny-Lemon-Think-GGUF"
SHIPPED = {CHAT, THINK, "Tiny-Embed-GGUF", "Tiny-Rerank-GGUF", "Tiny-Lemon-CPU"}
HELLO = "Hello! How can I help you today?"
MODELS = ROOT / "models"

ALWAYS = {
    "id": str,
    "object": str,
    "created": int,
    "owned_by": str,
    "checkpoint": str,
    "checkpoints": dict,
    "recipe": str,
    "downloaded": bool,
    "update_available": bool,
    "suggested": bool,
    "source": str,
    "registry_source": str,
    "labels": list,
    "components": list,
    "recipe_options": dict,
}
SOMETIMES = {
    "size": float,
    "max_context_window": int,
    "context_length": int,
    "image_defaults": dict,
    "unavailable_reason": str,
}


@pytest.fixture(scope="module")
def extra(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The operator's folder, as it is when the server starts."""
    folder = tmp_path_factory.mktemp("extra")
    shutil.copy(MODELS / "tiny-lemon-Q8_0.gguf", folder / "Grandma.gguf")
    return folder


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, engine_bundles: Path, extra: Path
) -> Iterator[Serving]:
    home = tmp_path_factory.mktemp("models")
    catalog = home / "catalog"
    catalog.mkdir()
    huge = {"checkpoint": "o/huge:Q8_0", "recipe": "llamacpp", "labels": ["chat"], "size": 1e6}
    (catalog / "server_models.json").write_text(json.dumps({"Huge-GGUF": huge}))
    env = {"LEMONADE_CATALOG": str(catalog)}
    config = {"extra_models_dir": str(extra)}
    with serving(home, env=env, config=config, bundles=engine_bundles) as one:
        yield one
    assert not survivors(home)


def listed(server: Serving, query: str = "") -> dict[str, dict[str, Any]]:
    document = server.get(f"models{query}").json()
    assert document["object"] == "list"
    rows = {row["id"]: row for row in document["data"]}
    assert len(rows) == len(document["data"]), "no name is there twice"
    return rows


def change(server: Serving, **settings: object) -> requests.Response:
    return requests.post(f"{server.url}/internal/set", json=settings, timeout=10)


def answer(server: Serving, model: str) -> str:
    reply = server.chat(model)
    assert reply.status_code == 200, reply.text
    text: str = reply.json()["choices"][0]["message"]["content"]
    return text


def model_error(reply: requests.Response, status: int, code: str, name: str) -> dict[str, Any]:
    assert reply.status_code == status
    error: dict[str, Any] = reply.json()["error"]
    assert error["type"] == error["code"] == code
    assert error["param"] == "model"
    assert error["requested_model"] == name
    return error


def test_what_is_here_is_listed(server: Serving) -> None:
    rows = listed(server)
    assert set(rows) == SHIPPED | {"Grandma"}
    assert all(row["downloaded"] for row in rows.values())


def test_every_builtin_model_is_visible_or_hidden_with_a_reason(server: Serving) -> None:
    builtin = set(json.loads((ROOT / "server_models.json").read_text()))
    visible = listed(server, "?show_all=true")
    everything = listed(server, "?show_all=true&show_unavailable=true")
    hidden = {name: row for name, row in everything.items() if "unavailable_reason" in row}
    assert builtin <= set(everything)
    assert set(visible) | set(hidden) == set(everything)
    assert not set(visible) & set(hidden)
    assert len(builtin) >= 220
    for row in hidden.values():
        assert row["unavailable_reason"].endswith(".")
        assert len(row["unavailable_reason"]) > 20
    assert set(listed(server, "?show_all=1")) == set(listed(server)), "only `true` is true"


def test_a_model_has_the_documented_fields(server: Serving) -> None:
    for row in listed(server, "?show_all=true&show_unavailable=true").values():
        kinds = {**ALWAYS, **{key: SOMETIMES[key] for key in row if key not in ALWAYS}}
        assert {key: type(value) for key, value in row.items()} == kinds
        assert row["object"] == "model"
        assert row["owned_by"] == "lemonade"
        assert row["created"] == 1234567890
        assert row["checkpoint"] == row["checkpoints"].get("main", "")
        assert row.get("context_length", 1) > 0
        assert row.get("size", 1) > 0
    row = listed(server)[CHAT]
    assert row["recipe"] == "llamacpp"
    assert "chat" in row["labels"]
    assert row["max_context_window"] == row["context_length"] == 4096
    assert row["size"] == pytest.approx(0.001012)


@pytest.mark.parametrize(
    "name",
    [CHAT, f"builtin.{CHAT}", f"{CHAT}:latest", f"builtin.{CHAT}:latest", "%54iny-Lemon-GGUF"],
)
def test_a_model_answers_to_all_its_names(server: Serving, name: str) -> None:
    for prefix in ("/api/v0", "/api/v1", "/v0", "/v1"):
        row = requests.get(f"{server.url}{prefix}/models/{name}", timeout=10).json()
        assert row == listed(server)[CHAT]


@pytest.mark.parametrize("name", [f"user.{CHAT}", f"extra.{CHAT}", CHAT.lower(), "", "a/b:c"])
def test_a_name_nobody_has(server: Serving, name: str) -> None:
    wanted = name or "no such thing"
    error = model_error(server.get(f"models/{quote(wanted)}"), 404, "model_not_found", wanted)
    assert wanted in error["message"]
    assert "`lemonade list`" in error["message"]
    if CHAT.lower() in wanted.lower():
        assert CHAT in error["facts"]["near"]
        assert CHAT in error["message"]


def test_a_hidden_model_says_why_wherever_it_is_asked_for(server: Serving) -> None:
    hidden = listed(server, "?show_unavailable=true")
    reason = hidden["kokoro-v1"]["unavailable_reason"]
    assert reason == "Lemonade can install Kokoro but does not run it yet."
    asked = [
        server.get("models/kokoro-v1"),
        server.post("load", {"model_name": "kokoro-v1"}),
    ]
    for reply in asked:
        error = model_error(reply, 404, "model_not_supported", "kokoro-v1")
        assert reason in error["message"]
    pulled = server.post("pull", {"model": "kokoro-v1"})
    assert pulled.status_code == 400
    assert reason in pulled.json()["error"]


def test_what_is_too_large_is_refused_before_it_is_fetched(server: Serving) -> None:
    assert "Huge-GGUF" not in listed(server, "?show_all=true")
    for reply in (server.post("load", {"model_name": "Huge-GGUF"}), server.chat("Huge-GGUF")):
        error = model_error(reply, 404, "model_not_supported", "Huge-GGUF")
        assert "largest memory" in error["message"]
        assert "disable_model_filtering=true" in error["message"]


def test_filtering_can_be_switched_off(server: Serving) -> None:
    assert change(server, disable_model_filtering=True).status_code == 200
    try:
        rows = listed(server, "?show_all=true")
        assert "kokoro-v1" in rows
        assert "unavailable_reason" not in rows["kokoro-v1"]
        assert server.get("models/kokoro-v1").status_code == 200
        refused = server.post("load", {"model_name": "kokoro-v1"})
        error = model_error(refused, 404, "model_not_supported", "kokoro-v1")
        assert "does not run it yet" in error["message"], "no setting makes it run"
    finally:
        assert change(server, disable_model_filtering=False).status_code == 200
    assert "kokoro-v1" not in listed(server, "?show_all=true")


def test_the_context_is_the_one_that_is_loaded(server: Serving) -> None:
    assert change(server, ctx_size=2048).status_code == 200
    try:
        assert server.get(f"models/{CHAT}").json()["context_length"] == 2048
        loaded = server.post("load", {"model_name": CHAT, "ctx_size": 1024})
        assert loaded.status_code == 200
        row = server.get(f"models/{CHAT}").json()
        assert row["context_length"] == listed(server)[CHAT]["context_length"] == 1024
        assert row["max_context_window"] == 4096
    finally:
        assert change(server, ctx_size=-1).status_code == 200
        server.post("unload")
    assert server.get(f"models/{CHAT}").json()["context_length"] == 4096


def test_a_model_of_the_operators_folder(server: Serving, extra: Path) -> None:
    row = server.get("models/extra.Grandma").json()
    assert row == listed(server)["Grandma"]
    assert row["id"] == "Grandma"
    assert row["source"] == "extra_models_dir"
    assert row["labels"] == ["custom", "chat"]
    assert row["checkpoint"] == str(extra / "Grandma.gguf")
    assert answer(server, "Grandma") == HELLO
    refused = server.post("delete", {"model": "extra.Grandma"})
    assert refused.status_code == 400
    assert str(extra / "Grandma.gguf") in refused.json()["error"]
    assert (extra / "Grandma.gguf").exists()
    assert "Grandma" in server.loaded(), "a refused deletion unloads nothing"


def test_another_folder_while_the_server_runs(
    server: Serving, extra: Path, tmp_path: Path
) -> None:
    shutil.copytree(MODELS, tmp_path / "all")
    shutil.copy(MODELS / "tiny-lemon-Q8_0.gguf", tmp_path / "new\nline.gguf")
    (tmp_path / "empty.gguf").touch()
    assert change(server, extra_models_dir=str(tmp_path)).status_code == 200
    try:
        rows = listed(server)
        found = {
            name: Path(row["checkpoint"]).name
            for name, row in rows.items()
            if row["source"] == "extra_models_dir"
        }
        files = {path.stem: path.name for path in MODELS.glob("*.gguf")}
        assert files.pop("tiny-lemon-pirate-lora"), "an adapter is no model"
        assert found == {**files, "new_line": "new\nline.gguf"}
        assert listed(server, "?show_all=true")["empty"]["downloaded"] is False
        assert answer(server, "extra.tiny-lemon-Q8_0") == HELLO
        assert answer(server, "new_line") == HELLO
        # A file that comes later is there for who looks for it.
        shutil.copy(MODELS / "tiny-lemon-Q8_0.gguf", tmp_path / "late.gguf")
        assert "late" in listed(server)
        assert change(server, extra_models_dir=str(tmp_path / "nothing")).status_code == 200
        assert set(listed(server)) == SHIPPED
    finally:
        assert change(server, extra_models_dir=str(extra)).status_code == 200
    assert set(listed(server)) == SHIPPED | {"Grandma"}


def test_a_users_model_takes_the_name_of_a_builtin_one(server: Serving) -> None:
    file = MODELS / "tiny-lemon-think-Q8_0.gguf"
    definition = {
        "model": f"user.{CHAT}",
        "recipe": "llamacpp",
        "source": "local_path",
        "checkpoint": str(file),
        "reasoning": True,
    }
    assert server.post("pull", definition).status_code == 200
    try:
        rows = listed(server)
        assert rows[CHAT]["checkpoint"] == str(file)
        assert rows[CHAT]["labels"] == ["chat", "custom", "reasoning"]
        assert rows[f"builtin.{CHAT}"]["source"] == "shipped"
        assert server.get(f"models/user.{CHAT}").json()["id"] == CHAT
        reply = server.chat(CHAT).json()
        assert reply["model"] == CHAT
        assert reply["choices"][0]["message"]["reasoning_content"], "the user's model thinks"
        reply = server.chat(f"builtin.{CHAT}").json()
        assert reply["model"] == f"builtin.{CHAT}"
        assert "reasoning_content" not in reply["choices"][0]["message"]
    finally:
        assert server.post("delete", {"model": CHAT}).status_code == 200
    assert file.exists(), "a model registered by path loses its registration only"
    rows = listed(server)
    assert set(rows) == SHIPPED | {"Grandma"}
    assert rows[CHAT]["source"] == "shipped"


def test_registrations_are_there_after_a_restart(home: Path) -> None:
    file = MODELS / "tiny-lemon-Q8_0.gguf"
    body = {"recipe": "llamacpp", "source": "local_path", "checkpoint": str(file)}
    with serving(home) as server:
        assert server.post("pull", {"model": "user.kept", **body}).status_code == 200
        row = server.get("models/kept").json()
    with serving(home) as server:
        assert server.get("models/kept").json() == row
