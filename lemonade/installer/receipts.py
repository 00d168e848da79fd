"""`receipt.json`: what a bundle consists of. Written last, so a directory with one is complete."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from lemonade.core.errors import BadConfigFile
from lemonade.storage import read_json, write_json

log = logging.getLogger(__name__)

RECEIPT: Final = "receipt.json"
_SCHEMA: Final = 1


@dataclass(frozen=True, slots=True)
class Package:
    """One package as it was installed."""

    name: str
    version: str
    file: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Receipt:
    """What was installed.

    Attributes:
        backend: `recipe:variant`.
        version: as pinned.
        python: version of the interpreter the environment was made with.
        installed_at: ISO 8601, UTC.
    """

    backend: str
    version: str
    python: str
    packages: tuple[Package, ...]
    installed_at: str

    def write(self, bundle: Path) -> None:
        """Put it into a bundle's directory. Raises as `write_json` does."""
        packages = [
            {"name": p.name, "version": p.version, "file": p.file, "sha256": p.sha256}
            for p in self.packages
        ]
        document = {
            "schema": _SCHEMA,
            "backend": self.backend,
            "version": self.version,
            "python": self.python,
            "packages": packages,
            "installed_at": self.installed_at,
        }
        write_json(bundle / RECEIPT, document, mode=0o644)


def read_receipt(bundle: Path) -> Receipt | None:
    """The bundle's receipt; `None` if there is none, or none of ours that can be read."""
    try:
        document = read_json(bundle / RECEIPT)
    except BadConfigFile as error:
        log.warning("%s is not counted as installed: %s", bundle, error.message)
        return None
    if document is None or document.get("schema") != _SCHEMA:
        return None
    try:
        return Receipt(
            backend=str(document["backend"]),
            version=str(document["version"]),
            python=str(document["python"]),
            packages=tuple(_package(entry) for entry in document["packages"]),
            installed_at=str(document["installed_at"]),
        )
    except (KeyError, TypeError):
        return None


def now() -> str:
    """The time for `installed_at`."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _package(entry: Mapping[str, Any]) -> Package:
    return Package(
        str(entry["name"]), str(entry["version"]), str(entry["file"]), str(entry["sha256"])
    )
