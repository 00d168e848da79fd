"""What an earlier Lemonade installed: a tree, flat in the backend's folder, with `version.txt`.

That file holds the tag. Such a tree was never verified file by file and has no receipt. It is
used as it is, until one of ours takes its place. Looks at the disk, changes nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from lemonade.core.records import dataclass
from lemonade.installer.pointer import POINTER, is_name
from lemonade.installer.receipts import RECEIPT

VERSION_FILE: Final = "version.txt"
_LINES: Final = ("", "-stable", "-nightly")
"""Endings of folders: builds for ROCm were kept apart by their channel."""

_LONGEST: Final = 400


@dataclass(frozen=True, slots=True)
class Legacy:
    """One such installation.

    Attributes:
        version: the text of `version.txt`; `unknown` if that says nothing.
        folder: where it lies.
        program: its executable; `None` if it has none.
    """

    version: str
    folder: Path
    program: Path | None


def legacy_folders(folder: Path) -> tuple[Path, ...]:
    """Where those of a backend are, if there are any."""
    places = (folder.with_name(folder.name + ending) for ending in _LINES)
    return tuple(place for place in places if (place / VERSION_FILE).is_file())


def read_legacy(folder: Path, executable: str) -> Legacy:
    """The one in a folder that has its `version.txt`. Walks over the tree.

    Its program is looked for by name, wherever it lies; of several the first in order.
    """
    found = (path for path in _files(folder) if path.name == executable)
    programs = (path for path in found if path.is_file() and os.access(path, os.X_OK))
    return Legacy(legacy_version(folder), folder, min(programs, default=None))


def legacy_version(folder: Path) -> str:
    """What its `version.txt` says."""
    try:
        with (folder / VERSION_FILE).open(encoding="utf-8", errors="replace") as file:
            text = file.read(_LONGEST).strip()
    except OSError:
        text = ""
    return text if is_name(text) else "unknown"


def legacy_entries(folder: Path) -> list[Path]:
    """What in the folder belongs to it: all that is not ours, `version.txt` first."""
    found = [path for path in sorted(folder.iterdir()) if not is_ours(path)]
    return sorted(found, key=lambda path: path.name != VERSION_FILE)


def is_ours(path: Path) -> bool:
    """Whether an entry of a backend's folder is a version of ours, or how we keep them."""
    return path.name.startswith(".") or path.name == POINTER or (path / RECEIPT).is_file()


def _files(folder: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):
        here = Path(place)
        if here == folder:
            folders[:] = [name for name in folders if not is_ours(here / name)]
        yield from (here / name for name in files)
