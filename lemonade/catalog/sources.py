"""Where declared data comes from, and who overlays whom. The only file that knows.

Folders are listed lowest first. A descriptor replaces the one with the same id from a lower folder
as a whole, never key by key, so that "which file is this?" always has one answer.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Final

from lemonade.storage import expanded

log = logging.getLogger(__name__)

SITE: Final = Path("/etc/lemonade")
"""What the administrator of the machine declares."""


def shipped() -> Path:
    """The registries this build was made with: inside the wheel, or the checkout around us."""
    packed = Path(str(files("lemonade"))) / "_shipped"
    return packed if packed.is_dir() else Path(__file__).resolve().parents[2]


def sources(environ: Mapping[str, str], config_dir: Path) -> tuple[Path, ...]:
    """The folders to load, lowest first.

    What was shipped, /etc/lemonade, the configuration directory, and those in LEMONADE_CATALOG
    (separated like PATH; the last one wins).
    """
    parts = environ.get("LEMONADE_CATALOG", "").split(os.pathsep)
    named = [expanded(part).absolute() for part in parts if part]
    for folder in named:
        if not folder.is_dir():
            log.warning("LEMONADE_CATALOG names %s, which is not a folder.", folder)
    # Of a folder that is named twice the last mention counts, as the last one wins.
    order = reversed((shipped(), SITE, config_dir, *named))
    return tuple(reversed(tuple(dict.fromkeys(order))))


class Sources:
    """The files in some folders. Reads names only; what is in a file is others' business."""

    def __init__(self, roots: Sequence[Path]) -> None:
        self.roots = tuple(roots)

    def descriptors(self, kind: str) -> Iterator[tuple[Path, Path]]:
        """Root and file of every `<root>/<kind>/*.toml`, lowest root first, by name in each."""
        for root in self.roots:
            for path in sorted((root / kind).glob("*.toml")):
                if path.is_file():
                    yield root, path

    def documents(self, name: str) -> tuple[Path, ...]:
        """Every `<root>/<name>` there is, lowest first."""
        return tuple(root / name for root in self.roots if (root / name).is_file())
