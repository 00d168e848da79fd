"""Folders that the settings name, as paths."""

from __future__ import annotations

from pathlib import Path

from lemonade.config.settings import Settings
from lemonade.storage import expanded


def extra_models(settings: Settings) -> Path | None:
    """The operator's own folder of GGUF files, if there is to be one; `~` is their home."""
    name = settings.extra_models_dir
    return expanded(name).absolute() if name else None
