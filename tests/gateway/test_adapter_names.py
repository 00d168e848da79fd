"""`base:adapter` where a model is unloaded, deleted, pinned or explained; adapters of a hub."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.checkpoints.hub_fixture import (
    downloads_of,
    gguf,
    requests_of,
    running_hub,
    write_repository,
)
from tests.gateway.adapting import (
    BY_NAME,
    BY_SCALES,
    adapting_catalog,
    ask,
    change,
    gguf_adapter,
    peft_adapter,
    said,
)
from tests.serving import Serving, serving

pytestmark = pytest.mark.slow

WORDS = "word0 word1 word2 "


@pytest.fixture
def scales(home: Path) -> Iterator[Serving]:
    catalog = adapting_catalog(home, BY_SCALES)
    recipe = catalog / "recipes" / "fake.toml"
    recipe.write_text(
        recipe.read_text().replace("reserved = [", 'files = ["--lora"]\nreserved = [')
    )
    with serving(home, env={"LEMONADE_CATALOG": str(catalog)}) as server:
        yield server


@pytest.fixture
def hub(home: Path) -> Iterator[str]:
    """A hub with adapters of both kinds."""
    root = home / "repositories"
    files = {name: gguf_adapter(home / name).read_bytes() for name in ("f16.gguf", "q8_0.gguf")}
    write_repository(root, "o/two", {f"poems-{name}": content for name, content in files.items()})
    write_repository(root, "o/one", {"poems-f16.gguf": files["f16.gguf"], "README.md": b"# Poems"})
    write_repository(root, "o/model", {"model-f16.gguf": gguf(4096)})
    folder = peft_adapter(home / "peft")
    peft = {f.name: f.read_bytes() for f in folder.iterdir()}
    more = ("README.md", "model.safetensors", "tokenizer.json", "optimizer.pt")
    steps = {f"checkpoint-9/{name}": content for name, content in peft.items()}
    write_repository(root, "o/peft", peft | steps | dict.fromkeys(more, b"not for an engine"))
    write_repository(root, "o/steps", steps)
    for left in (*home.glob("*.gguf"), *folder.iterdir()):
        left.unlink()
    with running_hub(root) as url:
        yield url


def names(server: Serving) -> list[str]:
    return [row["name"] for row in server.get("models/one/adapters").json()["data"]]


# ---- names


def test_unloading_takes_away_the_adapter_alone(scales: Serving, home: Path) -> None:
    file = gguf_adapter(home / "a.gguf")
    change(scales, "a", file)
    change(scales, "b", gguf_adapter(home / "b.gguf"))
    assert said(scales.chat("one:a")) == f"a.gguf*1 {WORDS}"
    before = scales.loaded()["one"]["pid"]
    answer = scales.post("unload", {"model_name": "one:a"})
    assert answer.status_code == 200, answer.text
    assert answer.json()["effect"] == "scale-only"
    assert "one:a" in answer.json()["message"]
    assert (answer.json()["freed_bytes"], answer.json()["still_held"]) == (0, [])
    assert scales.loaded()["one"]["pid"] == before
    assert names(scales) == ["b"]
    assert scales.post("unload", {"model_name": "one:a"}).status_code == 404
    assert file.exists()
    assert scales.post("unload", {"model_name": "one"}).status_code == 200
    assert scales.loaded() == {}
    assert names(scales) == ["b"]


def test_deleting_forgets_it_and_leaves_a_file_of_ones_own(scales: Serving, home: Path) -> None:
    file = gguf_adapter(home / "a.gguf")
    change(scales, "a", file)
    answer = scales.post("delete", {"model_name": "one:a"})
    assert answer.status_code == 200, answer.text
    assert names(scales) == []
    assert file.exists()
    assert said(scales.chat("one")) == WORDS
    assert scales.post("delete", {"model_name": "one:a"}).status_code == 422


def test_pinning_and_loading_mean_the_model(scales: Serving, home: Path) -> None:
    change(scales, "a", gguf_adapter(home / "a.gguf"))
    assert scales.post("load", {"model_name": "one:a"}).status_code == 200
    body = {"model": "one:a", "pinned": True}
    done = requests.post(f"{scales.url}/internal/pin", json=body, timeout=20)
    assert done.status_code == 200, done.text
    assert scales.loaded()["one"]["pinned"] is True


def test_explaining_shows_the_models_load_and_the_adapter(scales: Serving, home: Path) -> None:
    file = gguf_adapter(home / "a.gguf")
    change(scales, "a", file, scale=0.5)
    answer = scales.get("models/one:a/explain").json()
    assert answer["model_name"] == "one"
    assert answer["adapter"]["path"] == str(file)
    assert answer["adapter"]["loaded"] is False
    (line,) = [a for a in answer["arguments"] if a["words"][0] == "--lora"]
    assert (line["words"][1], line["origin"]) == (str(file), "adapters-at-start")
    assert "adapter" not in scales.get("models/one/explain").json()
    assert scales.get("models/one:none/explain").status_code == 404
    done = lemonade(scales, "explain", "one:a")
    assert f"one:a is {file}, applied by 0.5." in done


def test_the_command_line_says_what_became_of_it(scales: Serving, home: Path) -> None:
    change(scales, "a", gguf_adapter(home / "a.gguf"))
    assert "one:a is forgotten" in lemonade(scales, "unload", "one:a")
    change(scales, "a", home / "a.gguf")
    assert "one:a is forgotten" in lemonade(scales, "delete", "one:a")
    assert names(scales) == []


def lemonade(server: Serving, *words: str) -> str:
    port = server.url.rpartition(":")[2]
    done = subprocess.run(
        [sys.executable, "-m", "lemonade", "--port", port, *words],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


# ---- files


def test_a_file_that_is_not_there_is_said_before_anything_is_started(
    scales: Serving, home: Path
) -> None:
    assert scales.chat("one").status_code == 200
    before = scales.loaded()["one"]["pid"]
    missing = home / "missing.gguf"
    for args in (f"--lora {missing}", f"--lora={gguf_adapter(home / 'a.gguf')},{missing}"):
        refused = scales.post("load", {"model_name": "one", "fake_args": args})
        assert refused.status_code == 400, refused.text
        error = refused.json()["error"]
        assert f"{missing} is not there; --lora of the request names it." in error["message"]
        assert "absolute path" in refused.text
    assert scales.loaded()["one"]["pid"] == before
    assert scales.log().count(": starting ") == 1
    given = {"model_name": "one", "fake_args": f"--lora {home / 'a.gguf'}"}
    assert scales.post("load", given).status_code == 200


# ---- from the hub


def test_a_file_of_a_repository(home: Path, hub: str) -> None:
    catalog = adapting_catalog(home, BY_SCALES)
    env = {"LEMONADE_CATALOG": str(catalog), "HF_ENDPOINT": hub}
    with serving(home, env=env) as server:
        asked = {"checkpoint": "o/two:poems-q8_0.gguf", "scale": 0.5}
        done = server.post("models/one/adapters", {"name": "a", **asked})
        assert done.status_code == 200, done.text
        adapter = done.json()["adapter"]
        assert adapter["checkpoint"] == "o/two:poems-q8_0.gguf"
        path = Path(adapter["path"])
        assert path.is_relative_to(home / "hub" / "models--o--two" / "snapshots")
        assert said(server.chat("one:a")) == f"poems-q8_0.gguf*0.5 {WORDS}"
        second = server.post("models/one/adapters", {"name": "b", "checkpoint": "o/two:f16"})
        assert second.status_code == 200, second.text
        assert server.post("unload", {"model_name": "one:a"}).status_code == 200
        assert path.exists(), "taken away, and still in the cache"
        assert server.post("models/one/adapters", {"name": "a", **asked}).status_code == 200
        assert server.post("delete", {"model_name": "one:a"}).status_code == 200
        assert not path.exists()
        assert said(server.chat("one:b")) == f"poems-f16.gguf*1 {WORDS}"
        assert server.post("delete", {"model_name": "one:b"}).status_code == 200
        assert not (home / "hub" / "models--o--two").exists()


def test_a_folder_and_without_the_hub(home: Path, hub: str) -> None:
    catalog = adapting_catalog(home, BY_NAME)
    env = {"LEMONADE_CATALOG": str(catalog), "HF_ENDPOINT": hub}
    body = {"name": "a", "checkpoint": "o/peft"}
    with serving(home, env=env) as server:
        done = server.post("models/one/adapters", body)
        assert done.status_code == 200, done.text
        folder = Path(done.json()["adapter"]["path"])
        taken = {"adapter_config.json", "adapter_model.safetensors"}
        assert {file.name for file in folder.iterdir()} == taken, "the rest is left at the hub"
        sent = {one["path"].partition("/o/peft/resolve/")[2] for one in downloads_of(hub)}
        assert {path.partition("/")[2] for path in sent} == taken
        assert said(server.chat("one:a")).endswith(WORDS)
        none = server.post("models/one/adapters", {"name": "b", "checkpoint": "o/steps"})
        assert none.status_code == 404
        assert "o/steps has no adapter: there is no adapter_config.json" in none.text
        assert "Write o/steps:checkpoint-9." in none.text
        steps = {"name": "b", "checkpoint": "o/steps:checkpoint-9"}
        assert server.post("models/one/adapters", steps).json()["effect"] == "hot"
        assert said(server.chat("one:b")) == f"checkpoint-9 {WORDS}"
        asked = len(requests_of(hub))
    with serving(home, env=env, config={"offline": True}) as server:
        assert server.post("models/one/adapters", body).status_code == 200
        assert server.post("models/one/adapters", steps).status_code == 200
        other = server.post("models/one/adapters", {"name": "c", "checkpoint": "o/one"})
        assert other.json()["error"]["code"] == "offline"
    assert len(requests_of(hub)) == asked


@pytest.mark.parametrize(
    ("checkpoint", "status", "words"),
    [
        ("o/two", 404, "names none"),
        ("o/peft", 404, "o/peft has no adapter: there is no .gguf file."),
        ("o/none", 404, "o/none"),
        ("o/model", 400, "not of an adapter"),
        ("o/one:other.gguf", 404, "nothing called 'other.gguf'"),
        ("nothing", 400, "does not name a repository"),
        ("../up", 400, "does not name a repository"),
        ("o/../../etc", 400, "does not name a repository"),
    ],
)
def test_what_is_not_to_be_had(
    home: Path, hub: str, checkpoint: str, status: int, words: str
) -> None:
    catalog = adapting_catalog(home, BY_SCALES)
    env = {"LEMONADE_CATALOG": str(catalog), "HF_ENDPOINT": hub}
    with serving(home, env=env) as server:
        refused = server.post("models/one/adapters", {"name": "a", "checkpoint": checkpoint})
        assert (refused.status_code, words in refused.text) == (status, True), refused.text
        assert names(server) == []
        assert not list((home / "hub").glob("models--*")), "nothing is kept that nobody uses"
        both = {"name": "a", "checkpoint": "o/one", "path": "/x"}
        assert server.post("models/one/adapters", both).status_code == 400
        assert ask(server, "a", home / "nowhere.gguf").status_code == 400


def test_from_the_command_line(home: Path, hub: str) -> None:
    catalog = adapting_catalog(home, BY_SCALES)
    env = {"LEMONADE_CATALOG": str(catalog), "HF_ENDPOINT": hub}
    with serving(home, env=env) as server:
        assert "reload:" in lemonade(server, "adapters", "load", "one", "poet", "o/one")
        assert "(of o/one)" in lemonade(server, "explain", "one:poet")
        assert server.post("delete", {"model_name": "one:poet"}).status_code == 200
