"""Several files read as one, as a publisher cut them apart; nothing is copied together first."""

from __future__ import annotations

import io
import os
from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


class JoinedFiles(io.RawIOBase):
    """The files in a row, as one that can be read and searched.

    `furthest` is how far anybody has read.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        super().__init__()
        self._files = [path.open("rb", buffering=0) for path in files]
        self._starts = [0]
        for file in self._files:
            self._starts.append(self._starts[-1] + os.fstat(file.fileno()).st_size)
        self.size_bytes = self._starts[-1]
        self.furthest = 0
        self._at = 0

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As files do."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self.size_bytes}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        """As files do."""
        return self._at

    def readinto(self, buffer: WriteableBuffer) -> int:
        """As files do."""
        if self._at >= self.size_bytes:
            return 0
        view = memoryview(buffer)
        number = bisect_right(self._starts, self._at) - 1
        inside = self._at - self._starts[number]
        done = os.preadv(self._files[number].fileno(), [view], inside)
        self._at += done
        self.furthest = max(self.furthest, self._at)
        return done

    def close(self) -> None:
        """Close all of them."""
        for file in self._files:
            file.close()
        super().close()
