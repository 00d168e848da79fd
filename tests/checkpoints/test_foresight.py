"""What a checkpoint says about itself, here and at a hub; and that no hub is no error."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from lemonade.catalog import ModelSpec, RecipeSpec
from lemonade.checkpoints import Foresight
from lemonade.core.errors import CheckpointError
from lemonade.planning.checkpoint_facts import CheckpointFacts, facts_of
from tests.checkpoints.conftest import Bench
from tests.checkpoints.hub_fixture import (
    downloads_of,
    requests_of,
    running_hub,
    set_faults,
    write_repository,
)
from tests.serving import ROOT

pytestmark = pytest.mark.slow

TINY = ROOT / "models" / "tiny-lemon-hf"
CONFIG = json.loads((TINY / "config.json").read_text())
PLANS = RecipeSpec.model_validate(tomllib.loads((ROOT / "recipes" / "vllm.toml").read_text()))
MODELOPT = {"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "FP8"}}


@pytest.fixture(autouse=True)
def repository(hub_root: Path) -> None:
    """`o/tiny`, the shipped checkpoint."""
    files = {file.name: file.read_bytes() for file in TINY.iterdir()}
    write_repository(hub_root, "o/tiny", files | {"README.md": b"# tiny"})


def model(checkpoint: str = "o/tiny", **more: Any) -> ModelSpec:
    return ModelSpec(name="m", origin="user", recipe="whole", checkpoint=checkpoint, **more)


def values(known: CheckpointFacts) -> dict[str, object]:
    return {fact.name: fact.value for fact in facts_of(known)}


def origins(known: CheckpointFacts) -> dict[str, str]:
    return {fact.name: fact.origin for fact in facts_of(known)}


async def foreseen(bench: Bench, spec: ModelSpec | None = None) -> CheckpointFacts:
    return await Foresight(bench.hub, bench.store).of(spec or model(), PLANS, None)


def offer(root: Path, config: object, **files: object) -> None:
    """`o/other` with that configuration, and files by name, `__` for dots."""
    content = config if isinstance(config, bytes) else json.dumps(config).encode()
    more = {k.replace("__", "."): json.dumps(v).encode() for k, v in files.items()}
    write_repository(root, "o/other", {"config.json": content, "model.safetensors": b"w"} | more)


async def test_the_same_is_known_before_and_after(bench: Bench, hub_url: str) -> None:
    before = await foreseen(bench)
    asked = [one["path"].rpartition("/")[2] for one in downloads_of(hub_url)]
    assert asked == ["config.json"]
    assert not bench.store.hub_cache.exists(), "nothing is put into the cache"
    await bench.pull(model())
    files = bench.store.files(model(), PLANS)
    after = await Foresight(bench.hub, bench.store).of(model(), PLANS, files)
    assert values(before) == values(after)
    assert values(after) == {
        "quantisation": "none", "dtype": "float32", "weights": "safetensors",
        "layers": 4, "kv_heads": 2, "head_size": 32, "longest": 4096,
        "size_bytes": sum(file.stat().st_size for file in TINY.iterdir()) + len("# tiny"),
    }  # fmt: skip
    assert before.config == after.config == CONFIG
    assert origins(before)["quantisation"].startswith("config.json of o/tiny on the hub (commit ")
    assert origins(before)["weights"].startswith("the files of o/tiny on the hub (commit ")
    (folder,) = (files or {})["main"]
    assert origins(after)["layers"] == str(folder / "config.json")
    assert origins(after)["size_bytes"] == str(folder)
    assert (before.note, after.note) == ("", "")


@pytest.mark.parametrize("method", ["awq", "gptq", "fp8", "compressed-tensors"])
async def test_a_quantisation_in_the_configuration(
    bench: Bench, hub_root: Path, hub_url: str, method: str
) -> None:
    config = CONFIG | {"quantization_config": {"quant_method": method, "bits": 4}}
    offer(hub_root, config, hf_quant_config__json=MODELOPT)
    known = await foreseen(bench, model("o/other"))
    assert values(known)["quantisation"] == method
    assert len(downloads_of(hub_url)) == 1, "the other file is not needed"


async def test_a_quantisation_beside_it(bench: Bench, hub_root: Path) -> None:
    offer(hub_root, CONFIG, hf_quant_config__json=MODELOPT)
    before = await foreseen(bench, model("o/other"))
    await bench.pull(model("o/other"))
    files = bench.store.files(model("o/other"), PLANS)
    after = await Foresight(bench.hub, bench.store).of(model("o/other"), PLANS, files)
    assert before.config == after.config
    for known in (before, after):
        assert values(known)["quantisation"] == "modelopt"
        assert "hf_quant_config.json" in origins(known)["quantisation"]
        assert "hf_quant_config.json" not in origins(known)["layers"]


async def test_a_folder_of_a_repository(bench: Bench, hub_root: Path) -> None:
    config = json.dumps(CONFIG | {"num_hidden_layers": 7}).encode()
    files = {"sub/config.json": config, "sub/model.safetensors": b"weights", "big.bin": b"x" * 99}
    write_repository(hub_root, "o/sub", files)
    known = await foreseen(bench, model("o/sub:sub"))
    assert values(known)["layers"] == 7
    assert values(known)["size_bytes"] == len(config) + len(b"weights")
    assert origins(known)["layers"].startswith("sub/config.json of o/sub")


@pytest.mark.parametrize(
    "config", [b"no json", b"[1]", b"[" * 100_000, b" " * (5 << 20), b"\xff\xfe"]
)
async def test_a_configuration_that_is_none(bench: Bench, hub_root: Path, config: bytes) -> None:
    offer(hub_root, config)
    known = await foreseen(bench, model("o/other"))
    assert known.config is None
    assert known.note.startswith("not known: there is no config.json that can be read in o/other")
    assert values(known)["weights"] == "safetensors", "what the list says is known all the same"


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (model("o/none"), "There is no repository o/none"),
        (model("o/tiny:nothing"), "o/tiny has nothing called 'nothing'"),
        (model("/nowhere/x", source="local_path"), "/nowhere/x is not here"),
        (model("o/far", source="modelscope"), "o/far is not here"),
    ],
)
async def test_what_is_not_known_is_said(bench: Bench, spec: ModelSpec, words: str) -> None:
    known = await foreseen(bench, spec)
    assert facts_of(known) == ()
    assert known.note.startswith("not known: quantisation")
    assert words in known.note


async def test_without_the_network(bench_at: Any, hub_url: str) -> None:
    async with bench_at(hub_url, offline=lambda: True) as bench:
        assert "the server is offline" in (await foreseen(bench)).note
    assert not requests_of(hub_url)
    async with bench_at("http://127.0.0.1:9") as bench:
        assert "cannot be reached" in (await foreseen(bench)).note


async def test_without_the_network_a_download_that_has_not_ended_knows_something(
    bench_at: Any, hub_url: str
) -> None:
    set_faults(hub_url, {"path": "o/tiny/model.safetensors", "kind": "status", "status": 404})
    async with bench_at(hub_url) as bench:
        with pytest.raises(CheckpointError):
            await bench.pull(model())
        assert bench.store.files(model(), PLANS) is None
    async with bench_at(hub_url, offline=lambda: True) as bench:
        known = await foreseen(bench)
        assert values(known)["layers"] == 4
        assert "size_bytes" not in values(known)
        assert origins(known)["layers"].startswith(str(bench.store.hub_cache))
        assert known.note.startswith("not known: format and size of the checkpoint: ")


async def test_a_hub_that_says_nothing(bench: Bench, hub_url: str) -> None:
    set_faults(hub_url, {"path": "o/tiny", "kind": "stall", "where": "listing"})
    known = await Foresight(bench.hub, bench.store, within=0.2).of(model(), PLANS, None)
    assert "has not answered within 0.2 s" in known.note


async def test_a_recipe_that_plans_without_it_asks_for_nothing(bench: Bench, hub_url: str) -> None:
    spec, recipe = model(), bench.recipes["whole"]
    known = await Foresight(bench.hub, bench.store).of(spec, recipe, None)
    assert known == CheckpointFacts()
    assert not requests_of(hub_url)


async def test_nobody_is_asked_twice_for_a_while(bench_at: Any, hub_root: Path) -> None:
    now = [0.0]
    with running_hub(hub_root) as url:
        async with bench_at(url) as bench:
            foresight = Foresight(bench.hub, bench.store, clock=lambda: now[0])
            first = await foresight.of(model(), PLANS, None)
            asked = len(requests_of(url))
            assert await foresight.of(model(), PLANS, None) == first
            assert len(requests_of(url)) == asked
            now[0] = 1000.0
            assert await foresight.of(model(), PLANS, None) == first
            assert len(requests_of(url)) == asked + 1, "the commit is the same"
            write_repository(hub_root, "o/tiny", {"config.json": b"{}"})
            now[0] = 2000.0
            second = await foresight.of(model(), PLANS, None)
            assert second.config == {}
            assert second.config_from != first.config_from, "it is another commit"
            set_faults(
                url, {"path": "o/tiny", "kind": "status", "status": 503, "where": "listing"}
            )
            now[0] = 3000.0
            assert await foresight.of(model(), PLANS, None) == second, "the last that was known"
