"""Files that survive a power failure: on the disk before anything says that they are there.

A rename reaches the disk by itself before the contents of the files it moves; so without this a
bundle could have its receipt and empty files beside it. Everything here blocks.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from pathlib import Path


def write_out(folder: Path) -> None:
    """Return when all that was written below the folder is on the disk.

    Where the kernel can write a whole file system at once, it does: engines are thousands of
    files, and one question for each takes a hundred times as long. Elsewhere each is asked for.

    Raises:
        OSError: the disk failed, now or since.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        whole = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
        if whole is not None:
            if whole(descriptor) != 0:
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number), str(folder))
            return
    finally:
        os.close(descriptor)
    write_each(folder)


def write_each(folder: Path) -> None:
    """The same, where the kernel has to be asked for every single file.

    Raises:
        OSError: the disk failed.
    """
    for place, _, files in os.walk(folder):
        for name in files:
            path = Path(place, name)
            if not path.is_symlink():
                _write_one(path)
        _write_one(Path(place))


def write_entries(folder: Path) -> None:
    """Have the names in a folder on the disk. Some file systems cannot, and need not."""
    with contextlib.suppress(OSError):
        _write_one(folder)


def _write_one(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
