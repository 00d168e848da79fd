"""A checkpoint's `config.json`: what its publisher says about the model, on this disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from lemonade.checkpoints.layout import files_in
from lemonade.core.inference import JsonObject
from lemonade.planning.checkpoint_facts import (
    CONFIG,
    QUANTISATION,
    CheckpointFacts,
    with_quantisation,
)
from lemonade.planning.transformers_config import is_quantised

LARGEST_CONFIG: Final = 4 << 20
"""Bytes. Real ones have a few kilobytes; whatever is larger is none."""


def read_config(checkpoint: Path) -> JsonObject | None:
    """The object in the folder's `config.json`; `None` if there is none, or it is no object.

    Where it does not say how the weights are quantised, the file that older tools put beside it
    does. Blocks for as long as a small file takes. Never raises for what is in it.
    """
    return read_facts(checkpoint, looking=False).config


def read_facts(checkpoint: Path, *, looking: bool = True) -> CheckpointFacts:
    """What a checkpoint on this disk says about itself. Blocks; never raises for what is in it.

    Args:
        checkpoint: its folder, or a file in it.
        looking: whether the folder is looked through for files and their sizes.
    """
    folder = checkpoint if checkpoint.is_dir() else checkpoint.parent
    config, said_in = _read(folder / CONFIG), folder / CONFIG
    if config is not None and not is_quantised(config):
        beside = _read(folder / QUANTISATION)
        said_in = folder / QUANTISATION if beside is not None else said_in
        config = with_quantisation(config, beside)
    files = files_in(folder) if looking and checkpoint.is_dir() else ()
    return CheckpointFacts(
        config=config,
        config_from=str(folder / CONFIG),
        quantisation_from=str(said_in),
        files=tuple(file.path for file in files),
        size_bytes=sum(file.size_bytes for file in files),
        files_from=str(folder),
        note="" if config is not None else f"not known: {folder / CONFIG} cannot be read.",
    )


def parse_config(content: bytes) -> JsonObject | None:
    """The object in such a file; `None` if it is none, or too large to be one."""
    try:
        value = json.loads(content) if len(content) <= LARGEST_CONFIG else None
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _read(file: Path) -> JsonObject | None:
    try:
        with file.open("rb") as opened:
            return parse_config(opened.read(LARGEST_CONFIG + 1))
    except OSError:
        return None
