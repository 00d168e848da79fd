"""What was pulled is used and deleted: with the real engine."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.checkpoints.hub_fixture import (
    downloads_of,
    gguf,
    set_faults,
    write_repository,
)
from tests.gateway.pulling import (
    BIG,
    HELLO,
    LEMON,
    Events,
    Hub,
    definition,
    files_of,
    known,
    left_of,
    pull,
    wait_for_bytes,
)
from tests.serving import ROOT, Serving

pytestmark = pytest.mark.engine


EMBED = (ROOT / "models" / "tiny-embed-F16.gguf").read_bytes()


# ---- use


def test_the_first_chat_continues_what_was_interrupted(server: Serving, hub: Hub) -> None:
    hub.offer("o/auto-GGUF", **{"auto-Q8_0_gguf": LEMON})
    set_faults(hub.url, {"path": "o/auto-GGUF/*", "kind": "stall", "after": 300_000, "times": 1})
    events = Events(server, definition("auto", "o/auto-GGUF:Q8_0"))
    wait_for_bytes(server, "o/auto-GGUF", 300_000)
    events.reply.close()
    hub.wait_until_left("o/auto-GGUF")
    with ThreadPoolExecutor(3) as threads:
        replies = list(threads.map(lambda _: server.chat("auto"), range(3)))
    for reply in replies:
        assert reply.status_code == 200, reply.text
        assert reply.json()["choices"][0]["message"]["content"] == HELLO
    row = server.get("models/auto").json()
    assert row["downloaded"] is True
    assert row["size"] == pytest.approx(len(LEMON) / 1e9)
    continued = [a["range"] for a in downloads_of(hub.url) if "/o/auto-GGUF/" in a["path"]]
    assert continued == ["", "bytes=300000-"]


def test_a_builtin_model_is_fetched_by_its_first_request(server: Serving, hub: Hub) -> None:
    registry = json.loads((ROOT / "server_models.json").read_text())
    name, entry = next(
        (name, entry)
        for name, entry in sorted(registry.items(), key=lambda item: item[1].get("size", 0))
        if entry["recipe"] == "llamacpp"
        and "embeddings" in entry["labels"]
        and entry.get("source", "huggingface") == "huggingface"
    )
    repository, _, variant = entry["checkpoint"].partition(":")
    file = variant if variant.endswith(".gguf") else f"e-{variant}.gguf"
    lost = server.post("embeddings", {"model": name, "input": "hello"})
    assert lost.status_code == 500
    error = lost.json()["error"]
    assert error["code"] == "model_load_error"
    assert error["requested_model"] == name
    assert repository in error["message"]
    write_repository(hub.root, repository, {file: EMBED})
    reply = server.post("embeddings", {"model": name, "input": "hello"})
    assert reply.status_code == 200, reply.text
    assert len(reply.json()["data"][0]["embedding"]) == 64
    assert server.post("delete", {"model": name}).status_code == 200
    assert files_of(server, repository) == set()
    assert known(server, name), "a built-in model can be pulled again"
    assert server.get(f"models/{name}").json()["downloaded"] is False


# ---- deletion


def test_a_deleted_model_is_unloaded_and_its_files_go(server: Serving, hub: Hub) -> None:
    hub.offer("o/gone-GGUF", **{"gone-Q8_0_gguf": LEMON, "config_json": b"{}"})
    pull(server, "gone", "o/gone-GGUF:Q8_0")
    saved = {"model_name": "gone", "ctx_size": 512, "save_options": True}
    assert server.post("load", saved).status_code == 200
    pid = server.loaded()["gone"]["pid"]
    reply = server.post("delete", {"model_name": "user.gone"})
    assert reply.status_code == 200
    assert reply.json()["status"] == "success"
    assert "user.gone" in reply.json()["message"]
    assert "gone" not in server.loaded()
    assert not Path(f"/proc/{pid}").exists()
    assert not (server.home / "hub" / "models--o--gone-GGUF").exists()
    assert not known(server, "gone")
    assert server.post("delete", {"model": "user.gone"}).status_code == 422
    assert pull(server, "gone", "o/gone-GGUF:Q8_0")["recipe_options"] == {}


def test_files_that_another_model_uses_stay(server: Serving, hub: Hub) -> None:
    files = {"s-Q8_0_gguf": LEMON, "s-Q4_0_gguf": gguf(900), "mmproj-F16_gguf": gguf(700)}
    hub.offer("o/both-GGUF", **files)
    pull(server, "one", "o/both-GGUF:Q8_0", mmproj="mmproj-F16.gguf")
    pull(server, "other", "o/both-GGUF:Q4_0", mmproj="mmproj-F16.gguf")
    pull(server, "same", "o/both-GGUF:Q4_0")
    assert server.post("delete", {"model": "user.one"}).status_code == 200
    assert files_of(server, "o/both-GGUF") == {"s-Q4_0.gguf", "mmproj-F16.gguf"}
    assert server.get("models/other").json()["downloaded"] is True
    assert server.post("delete", {"model": "user.other"}).status_code == 200
    assert files_of(server, "o/both-GGUF") == {"s-Q4_0.gguf"}
    assert server.get("models/same").json()["downloaded"] is True
    assert server.post("delete", {"model": "user.same"}).status_code == 200
    assert files_of(server, "o/both-GGUF") == set()


def test_what_is_part_of_lemonade_stays_as_it_is(server: Serving) -> None:
    assert server.chat("Tiny-Lemon-GGUF").status_code == 200
    pid = server.loaded()["Tiny-Lemon-GGUF"]["pid"]
    reply = server.post("delete", {"model": "Tiny-Lemon-GGUF"})
    assert reply.status_code == 400
    assert "part of Lemonade" in reply.json()["error"]
    assert server.loaded()["Tiny-Lemon-GGUF"]["pid"] == pid
    unknown = server.post("delete", {"model": "Tiny-Lemon-GUFF"})
    assert unknown.status_code == 422
    assert "Tiny-Lemon-GGUF" in unknown.json()["error"]


def test_deleting_what_is_being_fetched(server: Serving, hub: Hub) -> None:
    hub.offer("o/midway-GGUF", **{"midway-Q8_0_gguf": gguf(BIG, 12)})
    set_faults(hub.url, {"path": "o/midway-GGUF/*", "kind": "hold", "after": BIG // 3})
    events = Events(server, definition("midway", "o/midway-GGUF:Q8_0"))
    wait_for_bytes(server, "o/midway-GGUF", BIG // 3)
    assert server.post("delete", {"model": "user.midway"}).status_code == 200
    *_, (name, data) = events
    assert name == "error"
    assert "cancelled" in data["error"]
    assert not known(server, "midway")
    assert left_of(server, "o/midway-GGUF") == []
