"""`Given`: what somebody hands over instead of having it fetched: an archive, parts, a folder."""

from __future__ import annotations

import fnmatch
import re
from pathlib import Path
from typing import Final

from lemonade.catalog.backend import BackendSpec
from lemonade.core.records import dataclass
from lemonade.hardware.facts import Machine
from lemonade.planning.releases import plan_release

ARCHIVES: Final = (".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2", ".tbz2", ".zip")
_ENDING: Final = re.compile(r"(\.tar\.[a-z0-9]+|\.[a-z0-9]+)\Z")


@dataclass(frozen=True, slots=True)
class Given:
    """It, as it was looked at.

    Attributes:
        name: what it is called: of parts, the archive they are.
        origin: where it was, for people and receipts; nothing secret is in it.
        files: the archive, its parts in order, or wheels; of a tree, the folder.
        sizes: of those, in bytes.
        sha256: of the archive as a whole, or of a tree; empty for wheels.
        vouched_by: `pinned`, `recorded`, `given` (who handed it over said it), or `first use`.
        tree: whether it is a folder with the program in it.
    """

    name: str
    origin: str
    files: tuple[Path, ...]
    sizes: tuple[int, ...]
    sha256: str
    vouched_by: str
    tree: bool = False


def stem(name: str) -> str:
    """A file's name without what says that it is an archive."""
    return _ENDING.sub("", name)


def part_names(name: str, count: int) -> tuple[str, ...]:
    """How the parts of an archive are called."""
    front = stem(name)
    ending = name.removeprefix(front)
    return tuple(f"{front}.part{n:02}-of-{count:02}{ending}" for n in range(1, count + 1))


def is_planned(name: str, spec: BackendSpec, machine: Machine) -> bool:
    """Whether a file is called as the one that this machine would fetch.

    Raises:
        UnsupportedHere: there is none for this machine.
    """
    # Only the star means something, brackets and question marks are themselves.
    pattern = re.sub(r"([\[?])", r"[\1]", plan_release(spec, machine).asset.name)
    return fnmatch.fnmatchcase(name, pattern)


def version_for(spec: BackendSpec, machine: Machine, name: str, sha256: str) -> str:
    """The version a file is taken for if nobody names one: the pinned one, or one of its own.

    Raises:
        UnsupportedHere: there is none for this machine.
    """
    pinned = bool(sha256) and sha256 in spec.pin.sha256.values()
    if pinned or is_planned(name, spec, machine):
        return ""
    return f"local-{sha256[:8]}"
