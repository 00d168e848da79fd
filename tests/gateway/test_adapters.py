"""Adapters over both kinds of engine: what is said is what happens, and nobody is cut off."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.gateway.adapting import (
    BY_NAME,
    BY_SCALES,
    adapting_catalog,
    ask,
    change,
    gguf_adapter,
    last,
    peft_adapter,
    said,
    streamed,
)
from tests.serving import Serving, fake_catalog, fake_model, serving

pytestmark = pytest.mark.slow

WORDS = "word0 word1 word2 "
LONG = "--chunks 30 --slow-chunks 0.05"
ALL_WORDS = "".join(f"word{number} " for number in range(30))


@pytest.fixture
def scales(home: Path) -> Iterator[Serving]:
    catalog = adapting_catalog(home, BY_SCALES)
    with serving(home, env={"LEMONADE_CATALOG": str(catalog)}) as server:
        yield server


@pytest.fixture
def names(home: Path) -> Iterator[Serving]:
    catalog = adapting_catalog(home, BY_NAME)
    with serving(home, env={"LEMONADE_CATALOG": str(catalog)}) as server:
        yield server


def pid(server: Serving) -> int:
    rows = server.get("health").json()["all_models_loaded"]
    (number,) = [row["pid"] for row in rows if row["status"] != "evicting"]
    return int(number)


def begun(server: Serving, model: str = "one") -> requests.Response:
    """A slow stream that has begun."""
    reply = server.chat(model, stream=True)
    assert reply.status_code == 200, reply.text
    return reply


def test_of_a_model_that_is_not_loaded(scales: Serving, home: Path) -> None:
    done = change(scales, "a", gguf_adapter(home / "a.gguf"))
    assert (done["effect"], done["loaded"]) == ("reload", False)
    assert done["adapter"]["id"] == "one:a"
    assert scales.loaded() == {}
    assert said(scales.chat("one:a")) == f"a.gguf*1 {WORDS}"
    assert said(scales.chat("one")) == WORDS
    assert "one:a chat: 200" in scales.log()


def test_requests_go_on_while_an_engine_with_it_takes_over(home: Path) -> None:
    catalog = adapting_catalog(home, BY_SCALES, args=LONG)
    with serving(home, env={"LEMONADE_CATALOG": str(catalog)}) as server:
        with begun(server) as stream:
            before = pid(server)
            done = change(server, "a", gguf_adapter(home / "a.gguf"), scale=0.5)
            assert (done["effect"], done["loaded"]) == ("reload", True)
            assert streamed(stream) == ALL_WORDS
        assert pid(server) != before
        with begun(server, "one:a") as stream:
            now = pid(server)
            assert change(server, "a", action="scale", scale=2)["effect"] == "scale-only"
            assert change(server, "a", action="unload")["effect"] == "scale-only"
            assert streamed(stream) == f"a.gguf*0.5 {ALL_WORDS}"
        assert pid(server) == now


def test_scales_are_of_each_request(scales: Serving, home: Path) -> None:
    change(scales, "a", gguf_adapter(home / "a.gguf"))
    change(scales, "b", gguf_adapter(home / "b.gguf"), scale=0.25)
    assert said(scales.chat("one:b")) == f"b.gguf*0.25 {WORDS}"
    assert last(scales)["lora"] == [{"id": 1, "scale": 0.25}]
    assert said(scales.chat("one")) == WORDS
    assert last(scales)["lora"] == [{"id": 0, "scale": 0.0}, {"id": 1, "scale": 0.0}]
    own = [{"id": 0, "scale": 3}]
    assert said(scales.chat("one", lora=own)) == f"a.gguf*3 {WORDS}", "who chooses is left alone"
    words = scales.loaded()["one"]["launch_command"]
    assert words.count("--lora") == 2
    assert words.count("--lora-init-without-apply") == 1
    before = pid(scales)
    assert change(scales, "a", gguf_adapter(home / "a.gguf"))["effect"] == "reload", "new weights"
    assert change(scales, "a", home / "a.gguf")["effect"] == "scale-only"
    assert pid(scales) != before


def test_the_engine_is_told_while_it_answers(home: Path) -> None:
    catalog = adapting_catalog(home, BY_NAME, args=LONG)
    with serving(home, env={"LEMONADE_CATALOG": str(catalog)}) as server:
        assert server.post("load", {"model_name": "one"}).status_code == 200
        first = change(server, "a", peft_adapter(home / "a"))
        assert (first["effect"], first["loaded"]) == ("reload", True), "it was started without"
        now = pid(server)
        with begun(server) as base, begun(server, "one:a") as adapted:
            assert change(server, "b", peft_adapter(home / "b"))["effect"] == "hot"
            assert change(server, "a", action="unload")["effect"] == "hot"
            assert streamed(adapted) == f"a {ALL_WORDS}"
            assert streamed(base) == ALL_WORDS
        assert pid(server) == now
        assert server.chat("one:a").status_code == 404
        with begun(server, "builtin.one:b") as stream:
            assert streamed(stream) == f"b {ALL_WORDS}"
        assert last(server)["model"] == "one:b"


def test_a_larger_rank_than_it_was_started_for(names: Serving, home: Path) -> None:
    names.post("load", {"model_name": "one"})
    change(names, "small", peft_adapter(home / "small"))
    assert change(names, "large", peft_adapter(home / "large", rank=33))["effect"] == "reload"
    words = names.loaded()["one"]["launch_command"]
    assert words[words.index("--max-lora-rank") + 1] == "64"
    assert change(names, "as-large", peft_adapter(home / "as-large", rank=64))["effect"] == "hot"
    assert names.loaded()["one"]["adapters"] == ["small", "large", "as-large"]
    refused = ask(names, "huge", peft_adapter(home / "huge", rank=65))
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "bad-adapter")


def test_what_the_engine_refuses_never_was(names: Serving, home: Path) -> None:
    names.post("load", {"model_name": "one"})
    before = pid(names)
    for _ in range(2):  # first an engine that would have to be started for it, then a running one
        reply = ask(names, "bad", peft_adapter(home / f"bad{before}", refuse=True))
        assert reply.status_code == 502, reply.text
        error = reply.json()["error"]
        assert error["code"] == "adapter-refused"
        assert "LoRA rank 64 is greater than max_lora_rank" in error["message"]
        assert pid(names) == before
        assert names.chat("one:bad").status_code == 404
        assert said(names.chat("one")) == WORDS
        change(names, "good", peft_adapter(home / f"good{before}"))
        before = pid(names)


def test_the_same_twice_at_once(names: Serving, home: Path) -> None:
    names.post("load", {"model_name": "one"})
    change(names, "other", peft_adapter(home / "other"))
    folder = peft_adapter(home / "a")
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda _: change(names, "a", folder), range(4)))
    assert [one["effect"] for one in done] == ["hot"] * 4
    log = names.get("logs", params={"model": "one"}).text
    assert log.count("took one:a") == 1
    assert said(names.chat("one:a")) == f"a {WORDS}"


def test_another_in_its_place(names: Serving, home: Path) -> None:
    names.post("load", {"model_name": "one"})
    change(names, "a", peft_adapter(home / "first"))
    assert change(names, "a", peft_adapter(home / "second"))["effect"] == "hot"
    assert said(names.chat("one:a")) == f"second {WORDS}"
    log = names.get("logs", params={"model": "one"}).text
    assert log.index("took one:a.2") < log.index("forgot one:a\n")
    assert change(names, "a", action="unload")["loaded"] is False
    assert change(names, "a", home / "first")["effect"] == "hot"
    assert said(names.chat("one:a")) == f"first {WORDS}"


def test_they_outlive_the_server_and_their_files_may_not(home: Path) -> None:
    catalog = adapting_catalog(home, BY_NAME)
    with serving(home, env={"LEMONADE_CATALOG": str(catalog)}) as server:
        change(server, "kept", peft_adapter(home / "kept"))
        change(server, "lost", peft_adapter(home / "lost"))
        change(server, "bad", peft_adapter(home / "bad", refuse=True))
    (home / "lost" / "adapter_model.safetensors").unlink()
    (home / "lost" / "adapter_config.json").unlink()
    (home / "lost").rmdir()
    with serving(home, env={"LEMONADE_CATALOG": str(catalog)}) as server:
        assert said(server.chat("one:kept")) == f"kept {WORDS}"
        assert said(server.chat("one")) == WORDS
        for name, word in (("lost", "nothing could be read"), ("bad", "max_lora_rank")):
            reply = server.chat(f"one:{name}")
            assert reply.status_code == 404
            assert word in reply.json()["error"]["message"]
        rows = {row["name"]: row for row in server.get("models/one/adapters").json()["data"]}
        assert {name: row["loaded"] for name, row in rows.items()} == {
            "kept": True, "lost": False, "bad": False
        }  # fmt: skip
        assert "max_lora_rank" in rows["bad"]["problem"]
        before = pid(server)
        assert server.post("load", {"model_name": "one"}).status_code == 200
        assert pid(server) == before, "what is missing is no reason to start it again"


def test_what_each_engine_can(scales: Serving, home: Path) -> None:
    assert scales.get("models/one/adapters").json() == {
        "object": "list",
        "model": "one",
        "effects": {"load": "reload", "scale": "scale-only", "unload": "scale-only"},
        "data": [],
    }


def test_what_none_can(names: Serving, home: Path) -> None:
    change(names, "a", peft_adapter(home / "a"))
    for reply in (
        ask(names, "a", action="scale", scale=0.5),
        ask(names, "b", home / "a", scale=0.5),
    ):
        assert (reply.status_code, reply.json()["effect"]) == (400, "unsupported")
        assert reply.json()["error"]["code"] == "adapter-unsupported"
    assert change(names, "a", action="scale", scale=1)["effect"] == "scale-only"
    effects = names.get("models/one/adapters").json()["effects"]
    assert effects == {"load": "reload", "scale": "unsupported", "unload": "reload"}
    assert said(names.chat("one:a")) == f"a {WORDS}"
    effects = names.get("models/one/adapters").json()["effects"]
    assert effects == {"load": "hot", "scale": "unsupported", "unload": "hot"}


def test_a_recipe_without_adapters(home: Path) -> None:
    catalog = fake_catalog(home)
    fake_model(catalog, "one")
    with serving(home, env={"LEMONADE_CATALOG": str(catalog)}) as server:
        reply = ask(server, "a", gguf_adapter(home / "a.gguf"))
        assert (reply.status_code, reply.json()["effect"]) == (400, "unsupported")
        assert "Fake engine" in reply.json()["error"]["message"]
        effects = server.get("models/one/adapters").json()["effects"]
        assert set(effects.values()) == {"unsupported"}


BAD: list[tuple[dict[str, Any], str]] = [
    ({"name": "x", "path": "relative.gguf"}, "invalid_request"),
    ({"name": "x"}, "invalid_request"),
    ({"path": "/x.gguf"}, "invalid_request"),
    ({"name": "a/b", "path": "/x.gguf"}, "invalid_request"),
    ({"name": "latest", "path": "/x.gguf"}, "invalid_request"),
    ({"name": "x", "path": "/x.gguf", "scale": "much"}, "invalid_request"),
    ({"name": "x", "path": "/x.gguf", "action": "fly"}, "invalid_request"),
    ({"name": "x", "action": "scale"}, "invalid_request"),
    ({"name": "x", "path": "/nowhere/x.gguf"}, "bad-adapter"),
]


def test_bad_input(scales: Serving) -> None:
    for body, code in BAD:
        reply = scales.post("models/one/adapters", body)
        assert (reply.status_code, reply.json()["error"]["code"]) == (400, code), reply.text
    for body in ({"name": "x", "action": "unload"}, {"name": "x", "action": "scale", "scale": 1}):
        assert scales.post("models/one/adapters", body).status_code == 404
    assert ask(scales, "x", Path("/x"), model="nobody").status_code == 404
    assert scales.get("models/nobody/adapters").status_code == 404


def test_names(home: Path) -> None:
    catalog = adapting_catalog(home, BY_SCALES)
    fake_model(catalog, "one:tuned", args="--chunks 1")
    file = gguf_adapter(home / "a.gguf")
    with serving(home, env={"LEMONADE_CATALOG": str(catalog)}) as server:
        assert ask(server, "tuned", file).status_code == 409
        change(server, "pirate", file)
        assert said(server.chat("one:tuned")) == "word0 ", "a model of that name goes before"
        assert said(server.chat("one:latest")) == WORDS
        for name in ("one:pirate", "one:pirate:latest", "one:latest:pirate", "builtin.one:pirate"):
            assert said(server.chat(name)) == f"a.gguf*1 {WORDS}"
        reply = server.chat("one:pirat")
        assert reply.status_code == 404
        error = reply.json()["error"]
        assert (error["type"], error["requested_model"]) == ("model_not_found", "one:pirat")
        assert "Did you mean one:pirate?" in error["message"]
        rows = {row["id"]: row for row in server.get("models").json()["data"]}
        assert rows["one:pirate"]["parent"] == "one"
        assert rows["one:pirate"]["recipe"] == rows["one"]["recipe"]
        assert server.get("models/one:pirate").json()["adapter"]["scale"] == 1
        assert server.post("load", {"model_name": "one:pirate"}).status_code == 200
        reply = server.post("embeddings", {"model": "one:pirate", "input": "x"})
        assert reply.status_code == 400
        assert reply.json()["error"]["type"] == "unsupported_operation"


def test_they_go_with_their_model(home: Path) -> None:
    catalog = adapting_catalog(home, BY_SCALES)
    file = home / "own.gguf"
    file.write_bytes(b"GGUF" + bytes(64))
    with serving(home, env={"LEMONADE_CATALOG": str(catalog)}) as server:
        body = {"model_name": "user.own", "recipe": "fake", "checkpoint": str(file)}
        body["source"] = "local_path"
        reply = server.post("pull", body)
        assert reply.status_code == 200, reply.text
        reply = ask(server, "a", gguf_adapter(home / "a.gguf"), model="own")
        assert reply.status_code == 200, reply.text
        kept = home / "config" / "adapters.json"
        assert list(json.loads(kept.read_text())) == ["user.own"]
        reply = server.post("delete", {"model_name": "user.own"})
        assert reply.status_code == 200, reply.text
        assert json.loads(kept.read_text()) == {}


def test_who_gives_the_engine_adapters_of_his_own(home: Path) -> None:
    catalog = adapting_catalog(home, BY_SCALES, args="--lora /mine.gguf")
    with serving(home, env={"LEMONADE_CATALOG": str(catalog)}) as server:
        assert said(server.chat("one")) == WORDS
        before = pid(server)
        reply = ask(server, "a", gguf_adapter(home / "a.gguf"))
        assert (reply.status_code, reply.json()["error"]["code"]) == (400, "contradictory-options")
        reply = ask(server, "b", gguf_adapter(home / "b,c.gguf"))
        assert reply.status_code == 400
        assert pid(server) == before
        assert server.get("models/one/adapters").json()["data"] == []


def test_only_the_operator_chooses_files(home: Path) -> None:
    catalog = adapting_catalog(home, BY_SCALES)
    env = {
        "LEMONADE_CATALOG": str(catalog),
        "LEMONADE_API_KEY": "user",
        "LEMONADE_ADMIN_API_KEY": "admin",
    }
    file = gguf_adapter(home / "a.gguf")
    with serving(home, env=env) as server:
        url, body = f"{server.api}/models/one/adapters", {"name": "a", "path": str(file)}
        statuses = {
            key: requests.post(
                url, json=body, headers={"Authorization": f"Bearer {key}"}, timeout=30
            ).status_code
            for key in ("user", "admin")
        }
        assert statuses == {"user": 401, "admin": 200}
        seen = requests.get(url, headers={"Authorization": "Bearer user"}, timeout=30)
        assert seen.json()["data"][0]["name"] == "a"
