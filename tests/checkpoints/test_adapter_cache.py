"""An adapter and a model of one repository, in one cache: neither takes the other's files."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from lemonade.catalog import AdapterFiles, ModelSpec
from lemonade.checkpoints import inspect_adapter
from lemonade.core.errors import BadAdapter, NotInRepository
from tests.checkpoints.conftest import Bench
from tests.checkpoints.hub_fixture import downloads_of, running_hub, write_repository
from tests.gateway.adapting import gguf_adapter
from tests.serving import ROOT

pytestmark = pytest.mark.slow

MODELS = ROOT / "models"
ADAPTER = {"adapter_config.json", "adapter_model.safetensors"}
MODEL = {file.name for file in (MODELS / "tiny-lemon-hf").iterdir()}


@pytest.fixture(autouse=True)
def repository(hub_root: Path) -> None:
    """`o/both`, the shipped model with the shipped adapter beside it."""
    for folder in ("tiny-lemon-hf", "tiny-lemon-pirate-peft"):
        files = {file.name: file.read_bytes() for file in (MODELS / folder).iterdir()}
        write_repository(hub_root, "o/both", files)


def adapter_of(checkpoint: str, recipe: str = "whole") -> ModelSpec:
    return AdapterFiles(name="m:a", origin="user", recipe=recipe, checkpoint=checkpoint)


def here(bench: Bench) -> set[str]:
    folder = bench.store.hub_cache / "models--o--both" / "snapshots"
    return {file.name for file in folder.rglob("*") if file.is_file()}


async def pulled(bench: Bench, specs: Iterable[ModelSpec]) -> None:
    for spec in specs:
        await bench.pull(spec)


async def test_only_the_adapter_is_fetched(bench: Bench, hub_url: str) -> None:
    adapter, model = adapter_of("o/both"), bench.model("o/both", recipe="whole")
    await bench.pull(adapter)
    assert here(bench) == ADAPTER
    assert {one["path"].rpartition("/")[2] for one in downloads_of(hub_url)} == ADAPTER
    (folder,) = (bench.store.files(adapter) or {})["main"]
    assert {file.name for file in folder.iterdir()} == ADAPTER
    assert inspect_adapter(folder, "peft").rank == 4
    assert bench.store.missing(model), "two files are not the model"


@pytest.mark.parametrize("first", ["adapter", "model"])
async def test_each_goes_without_the_other(bench: Bench, first: str) -> None:
    adapter, model = adapter_of("o/both"), bench.model("o/both", recipe="whole")
    both = [adapter, model] if first == "adapter" else [model, adapter]
    await pulled(bench, both)
    assert not bench.store.missing(model)
    await bench.downloads.delete(adapter, (model,))
    assert here(bench) == ADAPTER | MODEL, "all of it is the model's"
    assert not bench.store.missing(model)
    await bench.downloads.delete(model, (adapter,))
    assert here(bench) == ADAPTER
    assert not bench.store.missing(adapter)
    await bench.downloads.delete(adapter, ())
    assert not (bench.store.hub_cache / "models--o--both").exists()


async def test_what_was_fetched_whole_before_is_used(bench: Bench) -> None:
    await bench.pull(bench.model("o/both", recipe="whole"))
    assert not bench.store.missing(adapter_of("o/both"))


async def test_a_gguf_comes_without_what_comes_with_models(bench: Bench, hub_root: Path) -> None:
    poems = gguf_adapter(hub_root / "poems.gguf").read_bytes()
    files = {"poems.gguf": poems, "config.json": b"{}", "tokenizer.json": b"{}"}
    write_repository(hub_root, "o/poems", files)
    adapter = adapter_of("o/poems", "gguf")
    await bench.pull(adapter)
    (file,) = (bench.store.files(adapter) or {})["main"]
    assert [one.name for one in file.parent.iterdir()] == ["poems.gguf"]


async def test_a_model_is_no_adapter_and_not_fetched_for_it(bench_at: Any, hub_root: Path) -> None:
    pirate = (MODELS / "tiny-lemon-pirate-lora.gguf").read_bytes()
    lemon = (MODELS / "tiny-lemon-Q8_0.gguf").read_bytes()
    write_repository(hub_root, "o/gguf", {"pirate.gguf": pirate, "lemon.gguf": lemon})
    with running_hub(hub_root, "--cdn") as url:
        async with bench_at(url, environ={"HF_TOKEN": "hf_secret"}) as bench:
            with pytest.raises(BadAdapter, match=r"lemon.gguf of o/gguf is a GGUF file, but not"):
                await bench.pull(adapter_of("o/gguf:lemon.gguf", "gguf"))
            assert not bench.store.hub_cache.exists()
            assert {one["range"] for one in downloads_of(url)} == {"bytes=0-65535"}
            adapter = adapter_of("o/gguf:pirate.gguf", "gguf")
            await bench.pull(adapter)
            (file,) = (bench.store.files(adapter) or {})["main"]
            assert inspect_adapter(file, "gguf").made_for == ""
            asked = len(downloads_of(url))
            await bench.pull(adapter)
            assert len(downloads_of(url)) == asked, "what is here is not looked at again"


async def test_what_its_beginning_does_not_tell_is_fetched(bench: Bench, hub_root: Path) -> None:
    long = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1) + b"x"
    long += struct.pack("<IQ", 8, 100_000) + bytes(100_000)
    write_repository(hub_root, "o/long", {"long.gguf": long})
    await bench.pull(adapter_of("o/long", "gguf"))


async def test_no_adapter_is_said_and_nothing_fetched(
    bench: Bench, hub_root: Path, hub_url: str
) -> None:
    write_repository(hub_root, "o/model", dict.fromkeys(MODEL, b"x"))
    with pytest.raises(NotInRepository, match="o/model has no adapter"):
        await bench.pull(adapter_of("o/model"))
    assert not downloads_of(hub_url)
