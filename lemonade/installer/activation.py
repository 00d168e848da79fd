"""Bundles on the disk: staging folders, the rename that makes one visible, its use, and removal.

Everything here blocks. All of it but `staging_for` is done with the backend's lock held. What is
removed is first moved out of sight, whole, and then deleted: a bundle is never half there.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Final

from lemonade.core.ids import BackendId
from lemonade.installer.durable import write_entries, write_out
from lemonade.installer.exchange import exchange
from lemonade.installer.leases import Unheld, claimed, nobody
from lemonade.installer.legacy import (
    VERSION_FILE,
    is_ours,
    legacy_entries,
    legacy_folders,
    legacy_version,
)
from lemonade.installer.pointer import POINTER, Pointer, read_pointer
from lemonade.installer.receipts import Receipt, now, read_receipt
from lemonade.planning.install import InstallPlan

LOCK: Final = ".lock"
"""The file in a backend's folder that one installing process holds."""

_STAGING: Final = ".staging-"
_REMOVED: Final = ".removed-"
_TRASH: Final = ".trash-"
_POINTERS: Final = f".{POINTER}."
"""How the names of pointers begin that were being written."""


def staging_for(target: Path) -> Path:
    """A name beside the target that nobody uses, not even a process a killed server left."""
    return target.with_name(f"{_STAGING}{target.name}-{secrets.token_hex(4)}")


def activate(receipt: Receipt, staging: Path, target: Path, unheld: Unheld = nobody) -> None:
    """Complete the bundle and put it in its place; what was there goes.

    The disk has every file before it has the receipt: a power failure leaves all or nothing.

    Raises:
        Locked: a running engine uses what is there.
        OSError, OutOfDisk: it stays as it was.
    """
    write_out(staging)
    receipt.write(staging)
    if target.exists():
        with claimed(receipt.backend, [(receipt.version, target)], unheld):
            _replace(staging, target)
    else:
        staging.rename(target)
        write_entries(target.parent)


def put_to_use(
    receipt: Receipt, staging: Path, plan: InstallPlan, unheld: Unheld = nobody
) -> None:
    """Activate the planned version, and point to it. Raises as `activate`."""
    activate(receipt, staging, plan.target, unheld)
    point(plan)


def point(plan: InstallPlan) -> None:
    """Have the planned version used from now on, by whoever starts an engine next.

    What the operator pinned is used anyway; that changes nothing for the time after the pin.
    """
    folder = plan.target.parent
    pointer = read_pointer(folder)
    if pointer is None:
        before = _used_before(plan)
        pointer = Pointer(plan.version, now(), plan.chosen, (before,) if before else ())
    elif plan.pinned and read_receipt(folder / pointer.version) is not None:
        return
    else:
        pointer = pointer.moved_to(plan.version, chosen=plan.chosen)
    pointer.write(folder)


def sweep(folder: Path) -> None:
    """Remove what killed installations and removals left. Only with the lock held."""
    for path in leftovers(folder):
        if not _restored(path):
            discard([path])


def restore(folder: Path) -> None:
    """Bring back what was put aside for a successor that never came."""
    for path in leftovers(folder):
        _restored(path)


def leftovers(folder: Path) -> list[Path]:
    """What those who were killed left in a backend's folder; also bundles that were put aside."""
    if not folder.is_dir():
        return []
    prefixes = (_STAGING, _REMOVED, _TRASH, _POINTERS)
    return sorted(path for path in folder.iterdir() if path.name.startswith(prefixes))


def strays(folder: Path) -> list[Path]:
    """What is neither ours nor belongs to a legacy tree: remains of one that was removed."""
    if not folder.is_dir() or (folder / VERSION_FILE).exists():
        return []
    return sorted(path for path in folder.iterdir() if not is_ours(path))


def remove_all(backend: BackendId, folder: Path, unheld: Unheld = nobody) -> list[str]:
    """Remove all there is of a backend; returns the versions that were complete.

    Raises:
        Locked: a running engine uses one; nothing was removed.
    """
    versions = sorted(path for path in folder.iterdir() if is_version(path))
    legacy = legacy_folders(folder)
    roots = [(path.name, path) for path in versions]
    roots += [(legacy_version(path), path) for path in legacy]
    with claimed(str(backend), roots, unheld):
        trash = _new_trash(folder)
        for path in legacy:
            _move_legacy(path, folder, trash)
        kept = (LOCK, POINTER, trash.name)
        for path in (*folder.iterdir(),):
            if path.name not in kept:
                path.rename(trash / path.name)
        (folder / POINTER).unlink(missing_ok=True)
    shutil.rmtree(trash)
    return [name for name, _ in roots]


def remove(
    backend: BackendId, folder: Path, name: str, root: Path, unheld: Unheld = nobody
) -> None:
    """Remove one version, ours or a legacy one, out of a backend's folder.

    Raises:
        Locked: a running engine uses it; nothing was removed.
    """
    with claimed(str(backend), [(name, root)], unheld):
        trash = _new_trash(folder)
        if is_version(root):
            root.rename(trash / root.name)
        else:
            _move_legacy(root, folder, trash)
    shutil.rmtree(trash)


def discard(paths: Sequence[Path]) -> None:
    """Remove leftovers and strays."""
    for path in paths:
        if path.is_symlink() or not path.is_dir():
            path.unlink(missing_ok=True)
        else:
            shutil.rmtree(path, ignore_errors=True)


def forget(folder: Path, versions: Collection[str]) -> None:
    """Take versions that are gone out of the history."""
    pointer = read_pointer(folder)
    if pointer is not None and not set(versions).isdisjoint(pointer.history):
        pointer.without(versions).write(folder)


def is_version(path: Path) -> bool:
    """Whether an entry of a backend's folder is a complete version of ours."""
    return not path.name.startswith(".") and read_receipt(path) is not None


def _replace(staging: Path, target: Path) -> None:
    """Put a bundle into the place of another, which goes."""
    if exchange(staging, target):
        write_entries(target.parent)
        shutil.rmtree(staging, ignore_errors=True)
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


def _used_before(plan: InstallPlan) -> str:
    """The version that was used when nobody noted which: the newest one."""
    folder = plan.target.parent
    found = [
        (receipt.installed_at, path.name)
        for path in folder.iterdir()
        if path != plan.target
        and not path.name.startswith(".")
        and (receipt := read_receipt(path)) is not None
        and receipt.made_for == plan.made_for
    ]
    if found:
        return max(found)[1]
    return next((legacy_version(path) for path in legacy_folders(folder)), "")


def _new_trash(folder: Path) -> Path:
    trash = folder / f"{_TRASH}{secrets.token_hex(4)}"
    trash.mkdir(mode=0o700)
    return trash


def _move_legacy(root: Path, folder: Path, trash: Path) -> None:
    """Without its `version.txt`, which goes first, it is none any more."""
    if root != folder:
        root.rename(trash / root.name)
        return
    for path in legacy_entries(root):
        path.rename(trash / path.name)


def _restored(path: Path) -> bool:
    """A version put aside for its successor comes back if that never took its place."""
    if not path.name.startswith(_REMOVED):
        return False
    target = path.with_name(path.name.removeprefix(_REMOVED).rpartition("-")[0])
    if target.exists() or read_receipt(path) is None:
        return False
    path.rename(target)
    return True
