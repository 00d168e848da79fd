"""One cache, several tools; and models that are more than one file."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.checkpoints.conftest import ROOT, Bench
from tests.checkpoints.examples import Q4, Q4_FILE
from tests.checkpoints.hub_fixture import (
    downloads_of,
    gguf,
    write_repository,
)

pytestmark = pytest.mark.usefixtures("repository")


async def test_huggingface_hub_finds_what_we_fetched(bench: Bench, hub_url: str) -> None:
    from huggingface_hub import hf_hub_download

    await bench.pull(bench.model(Q4))
    count = len(downloads_of(hub_url))
    there = await asyncio.to_thread(
        hf_hub_download, "o/r-GGUF", Q4_FILE, cache_dir=bench.hub.cache_dir, endpoint=hub_url
    )
    offline = await asyncio.to_thread(
        hf_hub_download,
        "o/r-GGUF",
        Q4_FILE,
        cache_dir=bench.hub.cache_dir,
        endpoint=hub_url,
        local_files_only=True,
    )
    files = bench.store.files(bench.model(Q4))
    assert files is not None
    assert Path(there) == Path(offline) == files["main"][0]
    assert len(downloads_of(hub_url)) == count


async def test_we_find_what_huggingface_hub_fetched(bench: Bench, hub_url: str) -> None:
    from huggingface_hub import snapshot_download

    await asyncio.to_thread(
        snapshot_download, "o/r-GGUF", cache_dir=bench.hub.cache_dir, endpoint=hub_url
    )
    count = len(downloads_of(hub_url))
    spec = bench.model(Q4)
    assert bench.store.files(spec) is not None
    assert bench.store.files(bench.model("o/r-GGUF", recipe="whole")) is not None
    await bench.pull(spec)
    assert len(downloads_of(hub_url)) == count


async def test_a_whole_repository(bench: Bench, hub_root: Path) -> None:
    write_repository(
        hub_root,
        "o/folder",
        {
            "config.json": b"{}",
            "model.safetensors": b"weights",
            "onnx/model.onnx": b"more",
            ".gitattributes": b"*.bin filter=lfs",
        },
    )
    spec = bench.model("o/folder", recipe="whole")
    await bench.pull(spec)
    files = bench.store.files(spec)
    assert files is not None
    (snapshot,) = files["main"]
    assert sorted(path.relative_to(snapshot).as_posix() for path in snapshot.rglob("*.*")) == [
        "config.json",
        "model.safetensors",
        "onnx/model.onnx",
    ]
    (snapshot / "onnx/model.onnx").unlink()
    assert bench.store.files(spec) is None
    assert "onnx/model.onnx" in bench.store.missing(spec)


async def test_a_sharded_model(bench: Bench, hub_root: Path) -> None:
    parts = {f"Q4_K_M/s-Q4_K_M-0000{i}-of-00003.gguf": gguf(2000, i) for i in (1, 2, 3)}
    write_repository(hub_root, "o/sharded", {**parts, "s-Q8_0.gguf": gguf(100)})
    spec = bench.model("o/sharded:q4_k_m")
    await bench.pull(spec)
    files = bench.store.files(spec)
    assert files is not None
    assert [path.name for path in files["main"]] == [path[7:] for path in parts]
    files["main"][1].unlink()
    assert bench.store.files(spec) is None


async def test_a_hub_on_this_machine_is_not_asked_through_a_proxy(
    hub_url: str, tmp_path: Path
) -> None:
    environ = {k: v for k, v in os.environ.items() if k.lower() != "no_proxy"}
    dead = {"http_proxy": "http://127.0.0.1:9", "ALL_PROXY": "http://127.0.0.1:9"}
    ended = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "tests.checkpoints.pull_program", hub_url,
         str(tmp_path / "cache"), str(tmp_path / "state"), Q4],
        cwd=ROOT,
        env=environ | dead,
        capture_output=True,
        text=True,
    )  # fmt: skip
    assert (ended.returncode, ended.stdout) == (0, "done\n")
