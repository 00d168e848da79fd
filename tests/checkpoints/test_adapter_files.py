"""What lies where an adapter is said to be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lemonade.checkpoints import adapter_stamp, inspect_adapter
from lemonade.core.errors import BadAdapter
from tests.gateway.adapting import gguf_adapter, peft_adapter
from tests.serving import ROOT

MODELS = ROOT / "models"


def test_the_shipped_ones() -> None:
    base = MODELS / "tiny-lemon-Q8_0.gguf"
    gguf = inspect_adapter(MODELS / "tiny-lemon-pirate-lora.gguf", "gguf", base)
    assert (gguf.rank, gguf.made_for) == (0, "")
    peft = inspect_adapter(MODELS / "tiny-lemon-pirate-peft", "peft")
    assert (peft.rank, peft.made_for) == (4, "tiny-lemon-hf")


@pytest.mark.parametrize("base", ["tiny-embed-F16.gguf", "tiny-rerank-F16.gguf"])
def test_another_architecture(base: str) -> None:
    adapter = MODELS / "tiny-lemon-pirate-lora.gguf"
    with pytest.raises(BadAdapter, match="architecture 'llama', not 'bert'"):
        inspect_adapter(adapter, "gguf", MODELS / base)


def test_what_cannot_be_compared_is_left_to_the_engine(tmp_path: Path) -> None:
    adapter = gguf_adapter(tmp_path / "a.gguf", architecture="other")
    nonsense = tmp_path / "base.gguf"
    nonsense.write_bytes(b"GGUF" + b"\xff" * 64)
    for base in (None, nonsense, tmp_path / "absent", tmp_path):
        assert inspect_adapter(adapter, "gguf", base).rank == 0


@pytest.mark.parametrize("cut", range(0, 120, 7))
def test_a_damaged_header(tmp_path: Path, cut: int) -> None:
    whole = gguf_adapter(tmp_path / "a.gguf").read_bytes()
    (tmp_path / "a.gguf").write_bytes(whole[:cut])
    with pytest.raises(BadAdapter):
        inspect_adapter(tmp_path / "a.gguf", "gguf")


@pytest.mark.parametrize(
    ("config", "word"),
    [
        ("nonsense", "is not JSON"),
        ("[]", "JSON object"),
        ('{"peft_type": "IA3", "r": 4}', '"IA3", not LORA'),
        ('{"peft_type": "LORA"}', "no rank"),
        ('{"peft_type": "LORA", "r": true}', "no rank"),
        ('{"peft_type": "LORA", "r": 0}', "no rank"),
        ("[" * 100_000, "is not JSON"),
    ],
)
def test_a_folder_that_says_nonsense(tmp_path: Path, config: str, word: str) -> None:
    folder = peft_adapter(tmp_path / "a")
    (folder / "adapter_config.json").write_text(config)
    with pytest.raises(BadAdapter, match=word):
        inspect_adapter(folder, "peft")


def test_what_is_missing(tmp_path: Path) -> None:
    folder = peft_adapter(tmp_path / "a")
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(BadAdapter, match="adapter_model"):
        inspect_adapter(folder, "peft")
    (folder / "adapter_config.json").unlink()
    with pytest.raises(BadAdapter, match="has no adapter_config"):
        inspect_adapter(folder, "peft")
    file = gguf_adapter(tmp_path / "a.gguf")
    with pytest.raises(BadAdapter, match="is no folder"):
        inspect_adapter(file, "peft")
    with pytest.raises(BadAdapter, match="is a folder"):
        inspect_adapter(folder, "gguf")
    for kind in ("gguf", "peft"):
        with pytest.raises(BadAdapter, match="cannot be read"):
            inspect_adapter(tmp_path / "nowhere", kind)  # type: ignore[arg-type]


def test_the_stamp_tells_new_weights(tmp_path: Path) -> None:
    folder = peft_adapter(tmp_path / "a")
    before = inspect_adapter(folder, "peft").stamp
    assert adapter_stamp(folder) == before
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 8}))
    assert adapter_stamp(folder) == before
    (folder / "adapter_model.safetensors").write_bytes(bytes(32))
    assert adapter_stamp(folder) != before
    assert adapter_stamp(tmp_path / "nowhere") is None
