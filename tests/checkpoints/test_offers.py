"""What a repository offers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lemonade.core.errors import (
    CheckpointError,
    MalformedRequest,
    NotInRepository,
    UnsupportedRegistry,
)
from tests.checkpoints.conftest import Bench
from tests.checkpoints.examples import BIG
from tests.checkpoints.hub_fixture import (
    write_repository,
)

pytestmark = pytest.mark.usefixtures("repository")


async def test_variants(bench: Bench) -> None:
    offered = await bench.downloads.variants("o/r-GGUF")
    assert offered == {
        "checkpoint": "o/r-GGUF",
        "source": "huggingface",
        "recipe": "gguf",
        "repo_kind": "gguf",
        "suggested_name": "r-GGUF",
        "suggested_labels": ["vision", "chat"],
        "mmproj_files": ["mmproj-F16.gguf"],
        "draft_files": [],
        "variants": [
            {
                "name": name,
                "primary_file": f"r-{name}.gguf",
                "files": [f"r-{name}.gguf"],
                "sharded": False,
                "size_bytes": size,
            }
            for name, size in (("Q4_K_M", BIG), ("Q8_0", 5000))
        ],
    }
    page = await bench.downloads.variants("https://huggingface.co/o/r-GGUF", "hf")
    assert page == offered


async def test_variants_of_other_kinds(bench_at: Any, hub_url: str, hub_root: Path) -> None:
    write_repository(hub_root, "o/npu", {"genai_config.json": b"{}", "model.onnx": b"123"})
    write_repository(hub_root, "o/Team", {"Team.json": b'{"components": ["a", "b"], "size": 3}'})
    write_repository(hub_root, "o/nothing", {"README.md": b"#"})
    kinds = {"onnx-ryzenai": "whole", "collection": "team"}
    async with bench_at(hub_url, kinds=kinds) as bench:
        npu = await bench.downloads.variants("o/npu")
        assert (npu["recipe"], npu["repo_kind"]) == ("whole", "onnx-ryzenai")
        assert [variant["name"] for variant in npu["variants"]] == ["default"]
        team = await bench.downloads.variants("o/Team")
        assert (team["variants"], team["component_count"], team["size"]) == ([], 2, 3)
        with pytest.raises(CheckpointError, match="no GGUF"):
            await bench.downloads.variants("o/nothing")
    async with bench_at(hub_url) as bench:
        with pytest.raises(CheckpointError, match="onnx-ryzenai"):
            await bench.downloads.variants("o/npu")


async def test_variants_of_what_cannot_be_asked(bench: Bench) -> None:
    with pytest.raises(MalformedRequest):
        await bench.downloads.variants("no-owner")
    with pytest.raises(MalformedRequest):
        await bench.downloads.variants("https://huggingface.co/o/r-GGUF", "modelscope")
    with pytest.raises(UnsupportedRegistry):
        await bench.downloads.variants("o/r-GGUF", "modelscope")
    with pytest.raises(NotInRepository):
        await bench.downloads.variants("o/nobody")
