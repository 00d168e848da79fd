"""`explain` of a model that is not here: what the hub says about it, and where that is from."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.checkpoints.hub_fixture import (
    downloads_of,
    requests_of,
    running_hub,
    write_repository,
)
from tests.serving import ROOT, Serving, environment, fake_catalog, serving

pytestmark = pytest.mark.slow

TINY = ROOT / "models" / "tiny-lemon-hf"
CONFIG = json.loads((TINY / "config.json").read_text())
CONTEXT = """
[context]
cache_bytes = "--cache-bytes"

[[option]]
name = "ctx_size"
type = "int"
default = -1
flag = "--ctx-size"
help = "Tokens."
"""
MIB = {"fake_args": f"--cache-bytes {1 << 20}"}
FITTING = 1024
"""Tokens: four layers keep twice two heads of 32 numbers, of two bytes each."""


@pytest.fixture
def hub(home: Path) -> Iterator[str]:
    """A hub with the shipped checkpoint, and the same as if it were quantised."""
    root = home / "repositories"
    files = {file.name: file.read_bytes() for file in TINY.iterdir()}
    write_repository(root, "o/tiny", files)
    quantised = CONFIG | {"quantization_config": {"quant_method": "gptq", "bits": 4}}
    quantised["dtype"] = "float16"
    write_repository(root, "o/gptq", {**files, "config.json": json.dumps(quantised).encode()})
    with running_hub(root) as url:
        yield url


@pytest.fixture
def catalog(home: Path) -> Path:
    """Both as models of an engine whose context is planned."""
    folder = fake_catalog(home, files="repository")
    recipe = folder / "recipes" / "fake.toml"
    argv = '[argv]\ncontext = ["--ctx-size", "{ctx_size}"]\n'
    recipe.write_text(recipe.read_text().replace("[argv]\n", argv) + CONTEXT)
    names = ("tiny", "gptq")
    models = {name: {"checkpoint": f"o/{name}", "recipe": "fake", "size": 0.1} for name in names}
    (folder / "server_models.json").write_text(json.dumps(models))
    return folder


def explained(server: Serving, model: str, **options: object) -> dict[str, Any]:
    reply = server.post(f"models/{model}/explain", options)
    assert reply.status_code == 200, reply.text
    answer: dict[str, Any] = reply.json()
    return answer


def facts(answer: dict[str, Any]) -> dict[str, tuple[object, str]]:
    return {row["name"]: (row["value"], row["from"]) for row in answer["checkpoint"]["facts"]}


def test_a_model_is_planned_before_it_is_here_as_it_is_after(
    home: Path, hub: str, catalog: Path
) -> None:
    with serving(home, env={"LEMONADE_CATALOG": str(catalog), "HF_ENDPOINT": hub}) as server:
        before = explained(server, "tiny", **MIB)
        assert before["missing"] == ["tiny is not downloaded."]
        assert before["checkpoint"]["note"] == ""
        assert before["context"]["tokens"] == FITTING
        assert before["context"]["longest"] == CONFIG["max_position_embeddings"]
        assert before["context"]["from"].startswith("config.json of o/tiny on the hub (commit ")
        assert f"--ctx-size {FITTING}" in " ".join(before["command_line"])
        assert [one["path"].rpartition("/")[2] for one in downloads_of(hub)] == ["config.json"]
        assert not list((home / "hub").glob("models--*")), "nothing was kept of it"

        value, origin = facts(explained(server, "gptq"))["quantisation"]
        assert (value, origin.partition(" (")[0]) == ("gptq", "config.json of o/gptq on the hub")
        assert facts(explained(server, "gptq"))["dtype"][0] == "float16"

        too_much = server.post("models/tiny/explain", {"ctx_size": 5000})
        assert too_much.status_code == 400
        assert "at most 4096" in too_much.text

        assert server.post("pull", {"model_name": "tiny"}).status_code == 200
        asked = len(requests_of(hub))
        after = explained(server, "tiny", **MIB)
        assert len(requests_of(hub)) == asked, "what is here is read here"
        assert after["context"] | {"from": ""} == before["context"] | {"from": ""}
        assert after["context"]["from"].startswith(str(home / "hub"))
        known = {name: value for name, (value, _) in facts(before).items()}
        assert {name: value for name, (value, _) in facts(after).items()} == known


@pytest.mark.parametrize(
    ("env", "config", "words"),
    [
        ({}, {"offline": True}, "the server is offline"),
        ({"HF_HUB_OFFLINE": "1"}, {}, "HF_HUB_OFFLINE forbids"),
        ({"HF_ENDPOINT": "http://127.0.0.1:9"}, {}, "http://127.0.0.1:9 cannot be reached"),
    ],
)
def test_no_hub_is_no_error(
    home: Path,
    hub: str,
    catalog: Path,
    env: dict[str, str],
    config: dict[str, object],
    words: str,
) -> None:
    given = {"LEMONADE_CATALOG": str(catalog), "HF_ENDPOINT": hub, **env}
    with serving(home, env=given, config=config) as server:
        answer = explained(server, "tiny")
        assert answer["checkpoint"]["facts"] == []
        assert answer["checkpoint"]["note"].startswith("not known: ")
        assert words in answer["checkpoint"]["note"]
        assert answer["context"]["tokens"] is None
        assert requests_of(hub) == []


def test_the_command_prints_it_for_people(home: Path, hub: str, catalog: Path) -> None:
    with serving(home, env={"LEMONADE_CATALOG": str(catalog), "HF_ENDPOINT": hub}) as server:
        port = server.url.rpartition(":")[2]
        done = subprocess.run(
            [sys.executable, "-m", "lemonade", "explain", "gptq", "--port", port],
            env={**environment(home), "LEMONADE_CATALOG": str(catalog)},
            capture_output=True, check=True, text=True, timeout=60,
        )  # fmt: skip
    said = [" ".join(line.split()) for line in done.stdout.splitlines()]
    rows = said[said.index("Checkpoint") + 1 : said.index("Context") - 1]
    assert "quantisation: gptq config.json of o/gptq on the hub" in rows[0]
    assert any(row.startswith("dtype: float16 config.json") for row in rows)
    assert any(row.startswith("weights: safetensors the files of o/gptq") for row in rows)
