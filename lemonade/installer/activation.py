"""Bundles on the disk: staging folders, the one rename that makes a bundle visible, and removal.

Everything here blocks. All of it but `staging_for` is done with the backend's lock held.
"""

from __future__ import annotations

import secrets
import shutil
from pathlib import Path
from typing import Final

from lemonade.installer.durable import write_entries, write_out
from lemonade.installer.receipts import RECEIPT, Receipt, read_receipt

LOCK: Final = ".lock"
"""The file in a backend's folder that one installing process holds."""

_STAGING: Final = ".staging-"
_REMOVED: Final = ".removed-"


def staging_for(target: Path) -> Path:
    """A name beside the target that nobody uses, not even a process a killed server left."""
    return target.with_name(f"{_STAGING}{target.name}-{secrets.token_hex(4)}")


def activate(receipt: Receipt, staging: Path, target: Path) -> None:
    """Complete the bundle and put it in its place; what was there goes. Blocks.

    The disk has every file before it has the receipt: a power failure leaves all or nothing.

    Raises:
        OSError, OutOfDisk: it stays as it was.
    """
    write_out(staging)
    receipt.write(staging)
    if not target.exists():
        staging.rename(target)
        write_entries(target.parent)
        return
    old = target.with_name(f"{_REMOVED}{target.name}-{secrets.token_hex(4)}")
    target.rename(old)
    try:
        staging.rename(target)
    except BaseException:
        old.rename(target)
        raise
    write_entries(target.parent)
    shutil.rmtree(old, ignore_errors=True)


def sweep(folder: Path) -> None:
    """Remove what killed installations left. Only with the lock held. Blocks."""
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        if path.name.startswith((_STAGING, _REMOVED)):
            _restore_or_remove(path)


def _restore_or_remove(path: Path) -> None:
    """A version put aside for its successor comes back if that never took its place."""
    if path.name.startswith(_REMOVED):
        target = path.with_name(path.name.removeprefix(_REMOVED).rpartition("-")[0])
        if not target.exists() and read_receipt(path) is not None:
            path.rename(target)
            return
    shutil.rmtree(path, ignore_errors=True)


def remove_versions(folder: Path) -> list[str]:
    """Remove all there is; returns the versions that were complete. Blocks."""
    removed = []
    for path in folder.iterdir():
        if path.name == LOCK:
            continue
        if read_receipt(path) is not None and not path.name.startswith("."):
            removed.append(path.name)
        if path.is_symlink() or not path.is_dir():
            path.unlink()  # of somebody who tidied up: what a link leads to is theirs
            continue
        # Invisible first: half a removed bundle must not be taken for one.
        (path / RECEIPT).unlink(missing_ok=True)
        shutil.rmtree(path)
    return sorted(removed)
