"""A bundle: one version of a backend on this disk, and how its program is started."""

from __future__ import annotations

from pathlib import Path

from lemonade.core.ids import BackendId
from lemonade.core.records import dataclass


@dataclass(frozen=True, slots=True)
class Bundle:
    """An installed, complete, usable engine.

    Attributes:
        backend: what it is a version of.
        version: as the publisher names it; `system` binaries report their own or `system`.
        root: directory it lives in; for a `system` binary the directory of the executable.
        argv: the program and its fixed first arguments, absolute paths.
        libraries: folders of a runtime that it needs and does not hold.
        removable: whether uninstalling means something (`False` for `system` and `path`).
        verified: whether we know every file of it; not of what an earlier Lemonade installed.
    """

    backend: BackendId
    version: str
    root: Path
    argv: tuple[str, ...]
    removable: bool = True
    libraries: tuple[Path, ...] = ()
    verified: bool = True
