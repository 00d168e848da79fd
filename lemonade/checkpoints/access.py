"""Which hub, with which token, and where its cache is: read once from an environment passed in.

Nothing here reads or changes the process's own environment, so that a server can be told
otherwise without side effects on the programs it starts.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Final

from lemonade.core.records import dataclass

AUTO: Final = "auto"
DEFAULT_ENDPOINT: Final = "https://huggingface.co"


@dataclass(frozen=True, slots=True)
class HubAccess:
    """How the hub is reached.

    Attributes:
        endpoint: base URL without a trailing slash.
        token: sent to the hub; `None` leaves it to huggingface-hub, which knows about
            `hf auth login`.
        cache_dir: absolute path of the hub cache.
    """

    endpoint: str
    token: str | None = field(repr=False)
    cache_dir: Path


def hub_access(environ: Mapping[str, str], models_dir: str = AUTO) -> HubAccess:
    """Decide it from `HF_ENDPOINT`, `HF_TOKEN`, and the variables that place the cache.

    Args:
        environ: the variables.
        models_dir: the setting; a path replaces what the variables say about the cache.
    """
    return HubAccess(
        endpoint=(environ.get("HF_ENDPOINT") or DEFAULT_ENDPOINT).rstrip("/"),
        token=environ.get("HF_TOKEN") or environ.get("HUGGING_FACE_HUB_TOKEN") or None,
        cache_dir=hub_cache(environ, models_dir),
    )


def hub_cache(environ: Mapping[str, str], models_dir: str = AUTO) -> Path:
    """Where the hub cache is: the setting, `HF_HUB_CACHE`, `HF_HOME/hub`, the default.

    The order and the older names are those of huggingface-hub, so that other tools on this
    machine look at the same place.
    """
    if models_dir and models_dir != AUTO:
        return _path(models_dir, environ)
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if environ.get(name):
            return _path(environ[name], environ)
    if environ.get("HF_HOME"):
        return _path(environ["HF_HOME"], environ) / "hub"
    base = environ.get("XDG_CACHE_HOME") or "~/.cache"
    return _path(base, environ) / "huggingface" / "hub"


def _path(text: str, environ: Mapping[str, str]) -> Path:
    home = environ.get("HOME") or os.path.expanduser("~")  # noqa: PTH111 - just the text
    if text == "~" or text.startswith("~/"):
        text = home + text[1:]
    return Path(text).absolute()
