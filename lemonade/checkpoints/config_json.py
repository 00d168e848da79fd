"""A checkpoint's `config.json`: what its publisher says about the model, on this disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from lemonade.core.inference import JsonObject

_LARGEST_BYTES: Final = 4 << 20
"""Real ones have a few kilobytes; whatever is larger is none."""


def read_config(checkpoint: Path) -> JsonObject | None:
    """The object in the folder's `config.json`; `None` if there is none, or it is no object.

    Blocks for as long as a small file takes. Never raises for what is in it.
    """
    file = checkpoint / "config.json" if checkpoint.is_dir() else checkpoint.parent / "config.json"
    try:
        with file.open("rb") as opened:
            content = opened.read(_LARGEST_BYTES + 1)
        value = json.loads(content) if len(content) <= _LARGEST_BYTES else None
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
