"""A cgroup of its own for each child, where the kernel lets us make one: its leaf.

No process leaves its cgroup by forking, by starting a session or by losing its parent, so a leaf
holds all that a child has started; writing to `cgroup.kill` ends all of it at once, also what
forks faster than we look. Everything here blocks, for moments.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from lemonade.core.records import dataclass

log = logging.getLogger(__name__)

_REMOVE_WITHIN: Final = 1.0
_PAUSE: Final = 0.01
_ENTER: Final = b"0"
"""What a process writes to enter: it need not know its own number."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """The cgroup of one child. It may not exist yet, or no longer."""

    path: Path

    def make(self, memory_bytes: int | None = None) -> int | None:
        """Make it; a descriptor through which a process enters, which the caller closes.

        `None` if it cannot be made: the child goes without.

        Args:
            memory_bytes: what all processes in it may take together, where the kernel counts that.
        """
        try:
            self.path.mkdir()
            if memory_bytes is not None:
                _write(self.path / "memory.max", str(memory_bytes))
                _write(self.path / "memory.oom.group", "1")  # half an engine is of no use
            return os.open(self.path / "cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
        except OSError as error:
            log.debug("No cgroup for a child: %s", error)
            self.remove()
            return None

    def pids(self) -> frozenset[int]:
        """Who is in it, or in a cgroup below it. The dead are not."""
        found: set[int] = set()
        for folder in _tree(self.path):
            with contextlib.suppress(OSError):
                found.update(map(int, (folder / "cgroup.procs").read_text().split()))
        return frozenset(found - {0})  # 0 is whoever has no number in our world

    def kill(self) -> None:
        """SIGKILL to all that is in it, and to what is born meanwhile."""
        _write(self.path / "cgroup.kill", "1")

    def held_bytes(self) -> int | None:
        """Main memory that ends with what is in it; `None` where the kernel does not count.

        Without pages of files, which are the kernel's to keep; with files in memory (`/dev/shm`),
        which stay when those that wrote them are dead.
        """
        try:
            total = int((self.path / "memory.current").read_text())
            parts = self._parts()
            return max(0, total - parts["file"] + parts["shmem"])
        except (OSError, KeyError, ValueError):
            return None

    def left_bytes(self) -> int:
        """Files in memory that its processes have made; 0 where the kernel does not count."""
        try:
            return self._parts()["shmem"]
        except (OSError, KeyError, ValueError):
            return 0

    def _parts(self) -> dict[str, int]:
        lines = (self.path / "memory.stat").read_text().splitlines()
        return {name: int(value) for name, _, value in (line.partition(" ") for line in lines)}

    def remove(self, *, within: float = _REMOVE_WITHIN) -> bool:
        """Remove it, with what was made below it; `False` if somebody is still in it.

        What was killed takes a moment to be gone: so many seconds are waited for it.
        """
        limit = time.monotonic() + within
        while True:
            try:
                for folder in sorted(_tree(self.path), key=lambda path: -len(path.parts)):
                    folder.rmdir()
                return True
            except FileNotFoundError:
                return True
            except OSError as error:
                if error.errno != errno.EBUSY or time.monotonic() > limit:
                    log.debug("The cgroup %s stays: %s", self.path, error)
                    return False
            time.sleep(_PAUSE)


def _tree(top: Path) -> Iterator[Path]:
    """A cgroup and those below it; some engines make their own."""
    for folder, _, _ in os.walk(top):
        yield Path(folder)


def _write(file: Path, text: str) -> None:
    """Write to a file of the kernel; where it has none of that name, nothing happens."""
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CLOEXEC)
    except OSError as error:
        log.debug("%s cannot be written: %s", file, error.strerror)
        return
    try:
        os.write(descriptor, text.encode())
    except OSError as error:
        log.debug("%s does not take %s: %s", file, text, error.strerror)
    finally:
        os.close(descriptor)


def enter(entrance: int | None) -> None:
    """Go into a leaf, by the descriptor that `Leaf.make` gave.

    For the moment between fork and exec. A kernel that refuses leaves the child where it was.
    """
    if entrance is not None:
        with contextlib.suppress(OSError):
            os.write(entrance, _ENTER)
