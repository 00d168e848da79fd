"""Output that does not depend on its reader: a file in place of a pipe.

A child that is to outlive its server must not write into a pipe that ends with it. It appends to a
file beside its record, and whoever serves the child at the time follows that file. The file stays
small: what was read is cut off from time to time. The child appends (`O_APPEND`), so that it goes
on at the new end; what it prints in the instant of the cut is lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path
from typing import Final

from lemonade.supervisor.beside import Beside
from lemonade.supervisor.logs import Output

SPOOL_BYTES: Final = 4 << 20
"""From here on what was read is cut off."""
MOST_BYTES: Final = 64 << 20
"""From here on also what was not: nobody reads as fast as it prints."""
RECALLED_BYTES: Final = 256 << 10
"""What the next server is shown of what was read before."""

_CHUNK: Final = 64 << 10
_PIECE: Final = 8 << 10
_QUICK: Final = 0.05
_SLOW: Final = 0.5
"""Seconds between two looks: at a child that prints, and at one that has not for a while."""
_LOOKS_AT_THE_END: Final = 64


class Spool:
    """The file of one child. Blocks; one call at a time, in the disk's thread.

    Attributes:
        path: of the file. Beside it are how far it was read (`.read`), and what was cut off last
            (`.old`).
        taken: read and not yet looked at; survives a reader who stopped waiting.
    """

    def __init__(self, path: Path, *, limit: int = SPOOL_BYTES, most: int = MOST_BYTES) -> None:
        self.path = path
        self.taken = bytearray()
        self._limit = limit
        self._most = most
        self._offset = 0
        self._descriptor: int | None = None

    def take(self) -> int:
        """Read a piece of what is new into `taken`; how many bytes.

        Raises:
            OSError: it cannot be read.
        """
        descriptor = self._opened()
        size = os.fstat(descriptor).st_size
        if size < self._offset:  # somebody has emptied it
            self._offset = 0
        behind = size - self._offset
        if size > self._limit and (not behind or size > self._most):
            self._cut_off(descriptor, size)
            if behind:
                self.taken += f"\n[{behind} bytes were left out: they came too fast]\n".encode()
            return 0
        if not behind:
            return 0
        data = os.pread(descriptor, _CHUNK, self._offset)
        self.taken += data
        self._offset += len(data)
        self._note()
        return len(data)

    def has_news(self) -> bool:
        """Whether `take` has something to do. Asks the kernel about an open file, and no disk."""
        if self._descriptor is None:
            return True
        size = os.fstat(self._descriptor).st_size
        return size != self._offset or size > self._limit

    def recall(self) -> bytes:
        """The last of what an earlier reader has read; reading goes on behind that."""
        try:
            offset = int(self._beside(".read").read_text())
        except (OSError, ValueError):
            offset = 0
        before = b""
        with contextlib.suppress(OSError):
            before = self._beside(".old").read_bytes()
        descriptor = self._opened()
        self._offset = min(offset, os.fstat(descriptor).st_size)
        start = max(0, self._offset - RECALLED_BYTES)
        read = os.pread(descriptor, self._offset - start, start)
        return (before + read)[-RECALLED_BYTES:]

    def close(self) -> None:
        """Let go of the file, which stays."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _opened(self) -> int:
        if self._descriptor is None:
            self._descriptor = os.open(self.path, os.O_RDWR)
        return self._descriptor

    def _cut_off(self, descriptor: int, size: int) -> None:
        start = max(0, size - RECALLED_BYTES)
        tail = os.pread(descriptor, size - start, start)
        self._write(".old", tail)
        os.ftruncate(descriptor, 0)
        self._offset = 0
        self._note()

    def _note(self) -> None:
        self._write(".read", str(self._offset).encode())

    def _write(self, what: str, data: bytes) -> None:
        number = os.open(self._beside(what), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            os.write(number, data)
        finally:
            os.close(number)

    def _beside(self, what: str) -> Path:
        return self.path.with_name(self.path.name + what)


def open_spool(path: Path) -> int:
    """What a child is to write to; made if it is not there. Blocks.

    Raises:
        OSError: it cannot be made.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)


class SpoolReader:
    """Carries bytes from a child's file to its `Output`, a moment after they were written."""

    def __init__(self, spool: Spool, output: Output, beside: Beside) -> None:
        self._spool = spool
        self._output = output
        self._beside = beside

    async def run(self) -> None:
        """Follow the file until cancelled."""
        pause = _QUICK
        while True:
            read = await self._beside.disk(self._spool.take) if self._spool.has_news() else 0
            while self._feed():
                await asyncio.sleep(0)
            if read == _CHUNK:
                continue
            pause = _QUICK if read else min(1.5 * pause, _SLOW)
            await asyncio.sleep(pause)

    async def drain(self) -> None:
        """Take what is there; the child has ended, or is being left.

        Raises:
            OSError: the file cannot be read.
        """
        for _ in range(_LOOKS_AT_THE_END):
            read = await self._beside.disk(self._spool.take)
            while self._feed():
                pass
            if not read:
                return

    def finish(self) -> None:
        """Let go of it; nothing more is read."""
        while self._feed():
            pass
        self._spool.close()
        self._output.close()

    def let_go(self) -> int | None:
        """The same, for a child that goes on without us. There is no descriptor to hand over."""
        self.finish()
        return None

    def _feed(self) -> bool:
        piece = bytes(self._spool.taken[:_PIECE])
        del self._spool.taken[: len(piece)]
        if piece:
            self._output.feed(piece)
        return bool(piece)
