"""A look at all bundles that changes nothing: which are whole, and what is missing of the others.

`Bundles` answers for the backends that are declared and as fast as it can. This one walks the
folders, so that it also sees what nobody declares any more, and compares every file with what the
receipt says about it; only digests are left out, since reading gigabytes takes minutes.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Literal

from lemonade.core.records import dataclass
from lemonade.installer.activation import LOCK
from lemonade.installer.bundles import interpreter
from lemonade.installer.receipts import FILES, RECEIPT, Receipt, read_receipt

BundleState = Literal["whole", "broken", "leftover", "under-way", "flat", "unknown"]
"""All of it is here; something is missing; an installation was killed, or is being made now; an
unversioned bundle of another program; a folder without a receipt."""

_UNFINISHED: Final = (".staging-", ".removed-", ".trash-")
_FLAT: Final = "version.txt"
_MOST_NAMED: Final = 3


@dataclass(frozen=True, slots=True)
class InspectedBundle:
    """One folder where bundles are.

    Attributes:
        backend: `recipe:variant`, as the folders say.
        missing: what the receipt names and is not here, or not of that size; some of it.
        receipt: as it is in the file; empty if there is none that can be read.
    """

    path: Path
    backend: str
    state: BundleState
    version: str = ""
    reason: str = ""
    missing: tuple[str, ...] = ()
    receipt: dict[str, Any] | None = None


def inspect_bundles(root: Path) -> tuple[InspectedBundle, ...]:
    """Every folder of `<root>/<recipe>/<variant>`. Blocks; `root` need not exist.

    Raises:
        OSError: a folder cannot be listed.
    """
    return tuple(
        found
        for recipe in _folders(root)
        if not recipe.name.startswith(".")
        for variant in _folders(recipe)
        if not variant.name.startswith(".")
        for found in _variant(variant, f"{recipe.name}:{variant.name}")
    )


def _variant(folder: Path, backend: str) -> Iterator[InspectedBundle]:
    flat = (folder / _FLAT).is_file()
    if flat:
        yield InspectedBundle(folder, backend, "flat")
    held = _is_held(folder / LOCK)
    for path in _folders(folder):
        if path.name.startswith(_UNFINISHED):
            yield InspectedBundle(path, backend, "under-way" if held else "leftover")
        elif not path.name.startswith(".") and (not flat or (path / RECEIPT).is_file()):
            yield _bundle(path, backend)


def _bundle(path: Path, backend: str) -> InspectedBundle:
    file = path / RECEIPT
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return InspectedBundle(path, backend, "unknown", reason=f"There is no {RECEIPT} in it.")
    except (OSError, ValueError, RecursionError) as error:
        reason = f"{RECEIPT} cannot be read: {error}."
        return InspectedBundle(path, backend, "broken", reason=reason)
    document = document if isinstance(document, dict) else {}
    # It is an object, so reading it properly does not put it aside.
    receipt = read_receipt(path) if document else None
    if receipt is None or receipt.backend != backend:
        reason = f"{RECEIPT} is not one of {backend} that this version can read."
        return InspectedBundle(path, backend, "broken", reason=reason, receipt=document)
    missing = tuple(_missing(path, receipt))
    shown = missing[:_MOST_NAMED]
    if len(missing) > _MOST_NAMED:
        shown += (f"and {len(missing) - _MOST_NAMED} more",)
    return InspectedBundle(
        path,
        backend,
        "broken" if missing else "whole",
        receipt.version,
        "Files of it are missing or are not of their size." if missing else "",
        shown,
        document,
    )


def _missing(path: Path, receipt: Receipt) -> Iterator[str]:
    if receipt.contents is None:
        yield from _missing_of_environment(path, receipt)
        return
    if not (path / receipt.contents.executable).exists():
        yield receipt.contents.executable
    try:
        raw = (path / FILES).read_bytes()
        listed = json.loads(raw)
        sizes = {str(name): int(entry[0]) for name, entry in listed.items()}
    except (OSError, ValueError, AttributeError, LookupError, TypeError):
        yield FILES
        return
    if hashlib.sha256(raw).hexdigest() != receipt.contents.files_sha256:
        yield f"{FILES} (changed since it was written)"
    for name, size in sizes.items():
        if name != receipt.contents.executable and not _is_of_size(path / name, size):
            yield name


def _is_of_size(file: Path, size: int) -> bool:
    try:
        return file.stat().st_size == size
    except OSError:
        return False


def _missing_of_environment(path: Path, receipt: Receipt) -> Iterator[str]:
    python = interpreter(path)
    if not python.exists():
        yield str(python.relative_to(path))
    installed = {
        _canonical(entry.name.partition("-")[0])
        for entry in python.parent.parent.glob("lib/python*/site-packages/*.dist-info")
    }
    for package in receipt.packages:
        if _canonical(package.name) not in installed:
            yield f"package {package.name} {package.version}"


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _folders(path: Path) -> list[Path]:
    return sorted(entry for entry in path.iterdir() if entry.is_dir()) if path.is_dir() else []


def _is_held(lock: Path) -> bool:
    """Whether a process holds the lock, by the kernel's list: nothing is locked to find out."""
    try:
        inode = lock.stat().st_ino
        lines = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return False
    return any(f":{inode} " in line for line in lines)
