"""Where models are, as the settings and the hub's own variables say."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lemonade.config.settings import Settings


def hub_cache(settings: Settings, environ: Mapping[str, str], config_dir: Path) -> Path:
    """The folder in the hub's cache layout.

    `models_dir` unless it is `auto`, HF_HUB_CACHE, HF_HOME/hub, `~/.cache/huggingface/hub`.
    """
    if settings.models_dir not in ("", "auto"):
        return config_dir / Path(settings.models_dir).expanduser()
    if named := environ.get("HF_HUB_CACHE"):
        return Path(named).expanduser().absolute()
    if home := environ.get("HF_HOME"):
        return Path(home).expanduser().absolute() / "hub"
    base = environ.get("XDG_CACHE_HOME") or Path(environ.get("HOME") or Path.home()) / ".cache"
    return Path(base) / "huggingface" / "hub"


def extra_models(settings: Settings) -> Path | None:
    """The operator's own folder of GGUF files, if there is to be one."""
    name = settings.extra_models_dir
    return Path(name).expanduser() if name else None
