"""`receipt.json`: what a bundle consists of. Written last, so a directory with one is complete.

The files of an unpacked archive may be many and are listed beside it, in `files.json`, whose
digest is in the receipt; so the receipt stays small enough to be read at every look.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from lemonade.core.errors import BadConfigFile
from lemonade.core.inference import JsonObject
from lemonade.core.records import dataclass
from lemonade.storage import read_json, write_json

log = logging.getLogger(__name__)

RECEIPT: Final = "receipt.json"
FILES: Final = "files.json"
TREE: Final = "tree"
"""What an archive held, inside a bundle."""

RUNTIMES: Final = ".runtimes"
"""Where runtimes are that bundles share, below the directory of all bundles."""

_SCHEMA: Final = 1


@dataclass(frozen=True, slots=True)
class Package:
    """One package as it was installed."""

    name: str
    version: str
    file: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Asset:
    """One file as it was fetched from a release."""

    name: str
    url: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class InstalledFile:
    """One file of a bundle as it was unpacked; `path` is below the bundle."""

    path: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Contents:
    """What was taken from a release.

    Attributes:
        executable: the program, below the bundle.
        tag: the release's.
        files_sha256: digest of `files.json`, once it is written.
    """

    executable: str
    tag: str
    assets: tuple[Asset, ...]
    files: tuple[InstalledFile, ...] = ()
    files_sha256: str = ""


@dataclass(frozen=True, slots=True)
class UsedRuntime:
    """The runtime a bundle was installed with.

    Attributes:
        folder: below the folder of all runtimes; or absolute, which is the system's own.
        library: file that must be in one of `libraries`.
        libraries: folders below it that engines find libraries in.
    """

    folder: str
    library: str
    libraries: tuple[str, ...]

    def folders(self, root: Path) -> tuple[Path, ...] | None:
        """Those that are there; `None` if the library is not. `root` has all bundles."""
        top = root / RUNTIMES / self.folder
        found = tuple(top / name for name in self.libraries if (top / name).is_dir())
        return found if any((one / self.library).exists() for one in found) else None


@dataclass(frozen=True, slots=True)
class Receipt:
    """What was installed.

    Attributes:
        backend: `recipe:variant`.
        version: as pinned.
        python: version of the interpreter the environment was made with; empty without one.
        installed_at: ISO 8601, UTC.
        contents: what was taken from a release; `None` if the packages are all.
        made_for: the GPU the build depends on; empty if it depends on none.
        source: `file` if somebody handed it over; empty if it was fetched.
        origin: where that was.
        runtime: libraries it needs besides.
    """

    backend: str
    version: str
    python: str
    packages: tuple[Package, ...]
    installed_at: str
    contents: Contents | None = None
    made_for: str = ""
    source: str = ""
    origin: str = ""
    runtime: UsedRuntime | None = None

    def write(self, bundle: Path) -> None:
        """Put it into a bundle's directory. Raises as `write_json` does."""
        packages = [
            {"name": p.name, "version": p.version, "file": p.file, "sha256": p.sha256}
            for p in self.packages
        ]
        document: JsonObject = {
            "schema": _SCHEMA,
            "backend": self.backend,
            "version": self.version,
            "python": self.python,
            "packages": packages,
            "installed_at": self.installed_at,
            "made_for": self.made_for,
        }
        if self.source:
            document = {**document, "source": self.source, "origin": self.origin}
        if self.runtime is not None:
            libraries = list(self.runtime.libraries)
            used = {"folder": self.runtime.folder, "library": self.runtime.library}
            document = {**document, "runtime": {**used, "libraries": libraries}}
        if self.contents is not None:
            document = {**document, **_written(self.contents, bundle)}
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
            contents=_contents(document) if document.get("executable") else None,
            made_for=str(document.get("made_for", "")),
            source=str(document.get("source", "")),
            origin=str(document.get("origin", "")),
            runtime=_runtime(document["runtime"]) if document.get("runtime") else None,
        )
    except (KeyError, TypeError, ValueError):
        return None


def now() -> str:
    """The time for `installed_at`."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _package(entry: Mapping[str, Any]) -> Package:
    return Package(
        str(entry["name"]), str(entry["version"]), str(entry["file"]), str(entry["sha256"])
    )


def _runtime(entry: Mapping[str, Any]) -> UsedRuntime:
    libraries = tuple(str(name) for name in entry["libraries"])
    return UsedRuntime(str(entry["folder"]), str(entry["library"]), libraries)


def _written(contents: Contents, bundle: Path) -> JsonObject:
    """The receipt's part about a release; the list of files is on the disk then."""
    files = {file.path: [file.size_bytes, file.sha256] for file in contents.files}
    write_json(bundle / FILES, files, mode=0o644)
    return {
        "tag": contents.tag,
        "executable": contents.executable,
        "assets": [
            {"name": a.name, "url": a.url, "size": a.size_bytes, "sha256": a.sha256}
            for a in contents.assets
        ],
        "files_sha256": hashlib.sha256((bundle / FILES).read_bytes()).hexdigest(),
    }


def _contents(document: JsonObject) -> Contents:
    return Contents(
        executable=str(document["executable"]),
        tag=str(document["tag"]),
        assets=tuple(
            Asset(str(a["name"]), str(a["url"]), int(a["size"]), str(a["sha256"]))
            for a in document["assets"]
        ),
        files_sha256=str(document["files_sha256"]),
    )
