"""Locks between processes: two servers, one directory.

An advisory `flock` on a file that stays where it is. The kernel lets go when the holder dies, so
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

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    @property
    def held(self) -> bool:
        """Whether this object holds the lock."""
        return self._descriptor is not None

    def acquire(self, *, blocking: bool = False) -> bool:
        """Take the lock; `False` means somebody else has it (only when not `blocking`).

        Raises:
            BadConfigFile: the lock file cannot be made.
        """
        if self._descriptor is not None:
            return True
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise BadConfigFile(
                f"The lock file {self.path} cannot be made: {error.strerror or error}.",
                remedy="Check the owner and permissions of its directory.",
                facts={"path": str(self.path)},
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if blocking else fcntl.LOCK_NB))
        except BlockingIOError:
            os.close(descriptor)
            return False
        except BaseException:
            os.close(descriptor)
            raise
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
