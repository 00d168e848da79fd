"""What a checkpoint says about itself, and which of its files says so.

Pure: whoever has the files, or asks a hub for the small ones, fills in `CheckpointFacts`. The same
is said of a checkpoint on this disk and of one that is not here yet.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from lemonade.core.inference import JsonObject
from lemonade.core.records import dataclass
from lemonade.planning.transformers_config import (
    dtype_of,
    is_quantised,
    quantisation_of,
    read_shape,
)

CONFIG: Final = "config.json"
QUANTISATION: Final = "hf_quant_config.json"
"""What NVIDIA's ModelOpt wrote beside the configuration before it wrote into it. vLLM reads it
where `config.json` has no quantisation (0.32, `get_config`)."""

_FORMATS: Final = (".safetensors", ".bin", ".pt", ".gguf")
_NO_WEIGHTS: Final = frozenset({"training_args.bin", "optimizer.bin", "scheduler.pt", "scaler.pt"})


@dataclass(frozen=True, slots=True)
class CheckpointFacts:
    """What is known of a checkpoint.

    Attributes:
        config: its configuration, with the quantisation in it; `None` if it could not be read.
        config_from: where that is from, as people are told.
        quantisation_from: the same of the quantisation, which may have a file of its own.
        files: paths of all files.
        size_bytes: of all files; 0 when unknown.
        files_from: where that is known from.
        note: what is not known, and why, as a sentence; empty if nothing is lacking.
    """

    config: JsonObject | None = None
    config_from: str = ""
    quantisation_from: str = ""
    files: tuple[str, ...] = ()
    size_bytes: int = 0
    files_from: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing that is known, and where it is from."""

    name: str
    value: str | int
    origin: str


def with_quantisation(config: JsonObject, beside: JsonObject | None) -> JsonObject:
    """The configuration with what the file beside it says, if itself says nothing."""
    if beside is None or is_quantised(config):
        return config
    return {**config, "quantization_config": beside}


def facts_of(known: CheckpointFacts) -> tuple[Fact, ...]:
    """Each with the file it is from."""
    return (*_from_config(known), *_from_files(known))


def _from_config(known: CheckpointFacts) -> Iterator[Fact]:
    if known.config is None:
        return
    unnamed = "unknown" if is_quantised(known.config) else "none"
    quantisation = quantisation_of(known.config) or unnamed
    yield Fact("quantisation", quantisation, known.quantisation_from or known.config_from)
    if dtype := dtype_of(known.config):
        yield Fact("dtype", dtype, known.config_from)
    shape = read_shape(known.config)
    if shape is None:
        return
    yield Fact("layers", shape.layers, known.config_from)
    yield Fact("kv_heads", shape.kv_heads, known.config_from)
    yield Fact("head_size", shape.head_size, known.config_from)
    if shape.longest is not None:
        yield Fact("longest", shape.longest, known.config_from)


def _from_files(known: CheckpointFacts) -> Iterator[Fact]:
    if weights := _format(known.files):
        yield Fact("weights", weights, known.files_from)
    if known.size_bytes:
        yield Fact("size_bytes", known.size_bytes, known.files_from)


def _format(files: Iterable[str]) -> str:
    """What its weights are kept in: the first that engines look for."""
    names = [name for path in files if (name := path.rpartition("/")[2]) not in _NO_WEIGHTS]
    found = (one for one in _FORMATS if any(name.endswith(one) for name in names))
    return next(found, "").lstrip(".")
