"""Locks between processes: two servers, one directory.

A lock is held by one, or shared by those who want only that nobody changes what it stands for. An
advisory `flock` on a file that stays where it is. The kernel lets go when the holder dies, so
a lock is never stale and nobody needs to break one.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from lemonade.core.errors import BadConfigFile


class FileLock:
    """One claim on a lock file. `with FileLock(path):` waits for it.

    Two objects exclude each other in one process as they do in two. Waiting blocks the thread.
    The holder's children do not inherit the claim.
    """

    def __init__(self, path: Path, *, shared: bool = False, existing: bool = False) -> None:
        """Nothing is claimed yet.

        Args:
            path: the file.
            shared: together with others who share it; only an unshared claim excludes.
            existing: a file that is there for another reason and may be removed by who holds it:
                it is never made, and who comes too late does not get it.
        """
        self.path = path
        self._shared = shared
        self._existing = existing
        self._descriptor: int | None = None

    @property
    def held(self) -> bool:
        """Whether this object holds the lock."""
        return self._descriptor is not None

    def acquire(self, *, blocking: bool = False) -> bool:
        """Take the lock; `False` means somebody else has it (only when not `blocking`).

        Of an `existing` file `False` also means that it is not there any more.

        Raises:
            BadConfigFile: the lock file cannot be made or opened.
        """
        if self._descriptor is not None:
            return True
        try:
            descriptor = self._open()
        except FileNotFoundError:
            return False
        except OSError as error:
            what = "opened" if self._existing else "made"
            raise BadConfigFile(
                f"The lock file {self.path} cannot be {what}: {error.strerror or error}.",
                remedy="Check the owner and permissions of its directory.",
                facts={"path": str(self.path)},
            ) from error
        kind = fcntl.LOCK_SH if self._shared else fcntl.LOCK_EX
        try:
            fcntl.flock(descriptor, kind | (0 if blocking else fcntl.LOCK_NB))
        except BlockingIOError:
            os.close(descriptor)
            return False
        except BaseException:
            os.close(descriptor)
            raise
        if self._existing and not _is_at(descriptor, self.path):
            os.close(descriptor)  # it was removed, or replaced, between opening and locking
            return False
        self._descriptor = descriptor
        return True

    def release(self) -> None:
        """Let go. Nothing happens if it is not held."""
        if self._descriptor is not None:
            os.close(self._descriptor)  # closing the only descriptor is unlocking
            self._descriptor = None

    def __enter__(self) -> Self:
        self.acquire(blocking=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()

    def _open(self) -> int:
        if self._existing:  # sharing needs no right to write
            return os.open(self.path, os.O_RDONLY if self._shared else os.O_RDWR)
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        there = path.stat()
    except OSError:
        return False
    held = os.fstat(descriptor)
    return (held.st_dev, held.st_ino) == (there.st_dev, there.st_ino)
