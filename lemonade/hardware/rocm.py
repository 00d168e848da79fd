"""Which ROCm a system has: where it was put, and the version it says it is. Reads small files.

An operator may name a root in `ROCM_PATH`; packages put theirs into `/opt/rocm`. A folder counts
only with the library that every program on ROCm loads.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from lemonade.hardware.facts import RocmRoot
from lemonade.hardware.files import text

_LIBRARY: Final = "libamdhip64.so"
_USUAL: Final = "opt/rocm"
_VERSION_FILES: Final = (".info/version", "share/rocm/version", "version")
_VERSION: Final = re.compile(r"\d+(?:\.\d+)*")


def find_rocm(root: Path, named: str) -> tuple[RocmRoot, ...]:
    """The roots, the one an operator named first.

    Args:
        root: of the machine.
        named: what `ROCM_PATH` says; may be empty.
    """
    found: list[RocmRoot] = []
    for place, explicit in ((root / named.lstrip("/"), True), (root / _USUAL, False)):
        if explicit and not named.startswith("/"):
            continue
        folders = tuple(name for name in ("lib", "lib64") if (place / name / _LIBRARY).exists())
        if folders and str(place) not in [one.path for one in found]:
            found.append(RocmRoot(str(place), _version(place), explicit))
    return tuple(found)


def _version(place: Path) -> str:
    """`7.14.0`; empty if no file says it. What is behind a dash is the package's own number."""
    for name in _VERSION_FILES:
        if match := _VERSION.match(text(place / name)):
            return match[0]
    return ""
