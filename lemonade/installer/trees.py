"""A folder of somebody's, copied: files, folders and links that stay inside, nothing else. Blocks.

The modes are as with archives: without set-uid, set-gid and sticky bits, and nobody but the owner
may write. What the folder's owner changes later does not reach the copy.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from lemonade.core.errors import UnsafeArchive
from lemonade.installer.unpacked import UnpackedFile

_PIECE: Final = 1 << 20


def tree_digest(folder: Path) -> tuple[int, str]:
    """The size of all its files, and a digest of their names and contents.

    Raises:
        OSError: something cannot be read.
    """
    whole, size = hashlib.sha256(), 0
    for path, mode in _entries(folder):
        name = path.relative_to(folder).as_posix()
        if stat.S_ISLNK(mode):
            whole.update(f"{name}\0{path.readlink()}\0".encode(errors="surrogateescape"))
        elif stat.S_ISREG(mode):
            digest = hashlib.sha256()
            with path.open("rb") as file:
                while piece := file.read(_PIECE):
                    digest.update(piece)
                    size += len(piece)
            whole.update(f"{name}\0{digest.hexdigest()}\0".encode(errors="surrogateescape"))
    return size, whole.hexdigest()


def copy_tree(folder: Path, into: Path, report: Callable[[int], None]) -> tuple[UnpackedFile, ...]:
    """Copy it to the new directory `into`; returns the files, links are not among them.

    Raises:
        UnsafeArchive: a link leads out of it, or something is no file, folder or link.
        OSError: it cannot be read or written.
        Exception: what `report`, which is told how many bytes are copied, raised.
    """
    into.mkdir(mode=0o755)
    files, done = [], 0
    for path, mode in _entries(folder):
        name = path.relative_to(folder).as_posix()
        target = into / name
        if stat.S_ISDIR(mode):
            target.mkdir(mode=(mode & 0o755) | 0o700)
        elif stat.S_ISLNK(mode):
            _check_link(folder, path)
            target.symlink_to(path.readlink())
        elif stat.S_ISREG(mode):
            digest, size = hashlib.sha256(), 0
            source = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            with open(source, "rb") as reader, target.open("xb") as writer:  # noqa: PTH123
                while piece := reader.read(_PIECE):
                    writer.write(piece)
                    digest.update(piece)
                    size += len(piece)
                    report(done + size)
            target.chmod((mode & 0o755) | 0o600)
            done += size
            files.append(UnpackedFile(name, size, digest.hexdigest()))
        else:
            raise _unsafe(path, "is neither a file nor a folder nor a link")
    return tuple(files)


def _entries(folder: Path) -> Iterator[tuple[Path, int]]:
    """Everything below, folders before what is in them, always in the same order."""
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        path = Path(entry.path)
        mode = entry.stat(follow_symlinks=False).st_mode
        yield path, mode
        if stat.S_ISDIR(mode):
            yield from _entries(path)


def _check_link(folder: Path, path: Path) -> None:
    target = path.readlink()
    inside = Path(os.path.normpath(path.parent / target))
    if target.is_absolute() or not inside.is_relative_to(folder):
        raise _unsafe(path, f"is a link that leads out of it, to {target}")


def _unsafe(path: Path, why: str) -> UnsafeArchive:
    return UnsafeArchive(
        f"{path} {why}; nothing of it was used.",
        remedy="Remove it from the folder, or give the archive.",
        facts={"entry": str(path)},
    )
