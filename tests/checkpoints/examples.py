"""The repository most tests fetch from, and how to look at a cache."""

from __future__ import annotations

from pathlib import Path
from typing import Final

BIG: Final = 3_000_000
Q4: Final = "o/r-GGUF:Q4_K_M"
Q4_FILE: Final = "r-Q4_K_M.gguf"


def partials(cache: Path) -> list[Path]:
    return sorted(cache.rglob("*.incomplete"))


def tree(cache: Path) -> dict[str, str]:
    return {
        path.relative_to(cache).as_posix(): str(path.readlink()) if path.is_symlink() else ""
        for path in cache.rglob("*")
        if not path.is_dir() and ".locks" not in path.parts
    }
