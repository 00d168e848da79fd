"""Digests of files that nobody vouched for, kept from the first time they were fetched. Blocks.

A publisher may neither be pinned nor publish digests. Then the first file is believed, and a later
one of the same release and name must be the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from lemonade.storage import changing, read_json, write_json

TRUSTED: Final = ".trusted.json"


def recorded_digest(root: Path, path: str) -> str:
    """The digest of a release's file, or empty; `path` is as `ReleasePlan.path_of` gives it."""
    known = (read_json(root / TRUSTED) or {}).get(path)
    return known if isinstance(known, str) else ""


def record_digest(root: Path, path: str, sha256: str) -> None:
    """Remember it. Raises as `write_json` does."""
    file = root / TRUSTED
    with changing(file):
        known = read_json(file) or {}
        if known.get(path) != sha256:
            write_json(file, {**known, path: sha256})
