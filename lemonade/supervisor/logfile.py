"""A child's output on the disk: a few bounded files that replace each other.

Readable by their owner only, since a child may print anything. A file that cannot be written is
given up with one warning; the lines in memory go on.
"""

from __future__ import annotations

import contextlib
import logging
import os
from pathlib import Path
from typing import Final

from lemonade.supervisor.beside import Beside
from lemonade.supervisor.logs import Output

log = logging.getLogger(__name__)

FILE_BYTES: Final = 5 * 1024 * 1024
FILES_KEPT: Final = 3


class LogFile:
    """A file of at most `limit` bytes and the `kept - 1` before it (`x.log.1` is the newest).

    Readable by its owner only. Blocks, so it is used beside the event loop, one call at a time.
    """

    def __init__(self, path: Path, *, limit: int = FILE_BYTES, kept: int = FILES_KEPT) -> None:
        self._path = path
        self._limit = limit
        self._kept = kept

    def append(self, data: bytes) -> None:
        """Write at the end; start a new file first if this one is full.

        Raises:
            OSError: it cannot be written.
        """
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self._size() + len(data) > self._limit:
            self._rotate()
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)

    def _size(self) -> int:
        try:
            return self._path.stat().st_size
        except FileNotFoundError:
            return 0

    def _numbered(self, number: int) -> Path:
        return self._path if number == 0 else Path(f"{self._path}.{number}")

    def _rotate(self) -> None:
        for number in reversed(range(self._kept - 1)):
            with contextlib.suppress(FileNotFoundError):
                self._numbered(number).replace(self._numbered(number + 1))


class LogWriter:
    """Carries lines from a child's `Output` to its `LogFile`, in the disk's own thread."""

    def __init__(self, output: Output, file: LogFile, beside: Beside) -> None:
        self._output = output
        self._file = file
        self._beside = beside

    async def run(self) -> None:
        """Write what there is, whenever there is something, until cancelled."""
        while True:
            await self._output.has_pending.wait()
            await self.flush()

    async def flush(self) -> None:
        """Write what has not been written yet."""
        data = self._output.take_pending()
        if not data:
            return
        try:
            await self._beside.disk(self._file.append, data)
        except OSError as error:
            log.warning("The log of a child is no longer written: %s", error)
            self._output.stop_writing()
