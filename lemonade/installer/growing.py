"""A file that grows as its bytes come: how much is here, what it hashes to, whether to go on.

Beside it lies `NAME.etag`, the host's own name for the content these bytes are the beginning of;
without it, and without a digest to check the whole with, nothing is continued. Blocks.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

Report = Callable[[int, int, int], None]
"""Told from any thread: bytes here, bytes in all (0 if unknown), bytes that were here before."""

_PIECE: Final = 1 << 20
_REPORT_EVERY: Final = 0.1
_RANGE: Final = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


class GrowingFile:
    """One file being fetched. `open` it first, `close` it in any case.

    `size_bytes` and `sha256` are what is expected, 0 and empty if nobody knows.
    """

    def __init__(self, path: Path, size_bytes: int, sha256: str, report: Report) -> None:
        self.have = 0
        self.most = 0
        self.previously = 0
        self._path = path
        self._etag_file = path.with_name(f"{path.name}.etag")
        self._expected_size = size_bytes
        self._expected_sha256 = sha256
        self._total = size_bytes
        self._report = report
        self._reported = 0.0
        self._hash = hashlib.sha256()
        self._etag = ""
        self._descriptor = -1

    def open(self) -> None:
        """Look at what is here already."""
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self._descriptor = os.open(self._path, flags, 0o600)
        with contextlib.suppress(OSError):
            etag = self._etag_file.read_text(encoding="utf-8", errors="replace")
            self._etag = etag if etag.isprintable() else ""
        size = os.fstat(self._descriptor).st_size
        may_go_on = self._etag or self._expected_sha256
        if not may_go_on or (self._expected_size and size > self._expected_size):
            self.start_over()
            size = 0
        while self.have < size and (piece := os.pread(self._descriptor, _PIECE, self.have)):
            self._hash.update(piece)
            self.have += len(piece)
        self.most = self.previously = self.have
        self.tell()

    def close(self) -> None:
        """Let go of the file; it stays."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def discard(self) -> None:
        """Remove it, and what is known about it."""
        self._path.unlink(missing_ok=True)
        self._etag_file.unlink(missing_ok=True)

    def start_over(self) -> None:
        """Begin with nothing."""
        os.ftruncate(self._descriptor, 0)
        self._etag_file.unlink(missing_ok=True)
        self._hash = hashlib.sha256()
        self._etag = ""
        self.have = self.previously = 0

    def range_headers(self) -> dict[str, str]:
        """To be sent in order to get the rest, and only of the same content."""
        if not self.have:
            return {}
        headers = {"Range": f"bytes={self.have}-"}
        return {**headers, "If-Range": self._etag} if self._etag else headers

    def take(self, status: int, headers: Mapping[str, str], length: int | None) -> int:
        """Prepare for an answer's content; the size of the whole, 0 if unknown."""
        begins, total = 0, length or 0
        if status == 206 and (match := _RANGE.fullmatch(headers.get("Content-Range", ""))):
            begins = int(match[1])
            total = int(match[3]) if match[3].isdigit() else 0
        etag = headers.get("ETag", "")
        if begins != self.have or begins == 0:
            self.start_over()
        if status == 206 and begins != self.have:
            raise ConnectionError("the host sent another part than the one asked for")
        if etag and not etag.startswith("W/") and etag != self._etag:
            self._etag = etag
            self._etag_file.write_text(etag, encoding="utf-8")
        self._total = self._expected_size or total
        self._reported = 0.0  # the first bytes of an answer are always told
        return total

    def write(self, pieces: Sequence[bytes]) -> None:
        """Add to it."""
        for piece in pieces:
            view = memoryview(piece)
            while view:
                done = os.pwrite(self._descriptor, view, self.have)
                self._hash.update(view[:done])
                self.have += done
                view = view[done:]
        self.most = max(self.most, self.have)
        if time.monotonic() - self._reported >= _REPORT_EVERY:
            self.tell()

    def tell(self) -> None:
        """Report how far it is."""
        self._reported = time.monotonic()
        self._report(self.have, self._total, self.previously)

    def too_long(self) -> bool:
        """Whether there is more of it than there can be."""
        return bool(self._expected_size) and self.have > self._expected_size

    def digest(self) -> str:
        """Of what is here."""
        return self._hash.hexdigest()

    def problem(self) -> str:
        """Why it is not what was expected; empty if it is."""
        if self._expected_size and self.have != self._expected_size:
            return f"it has {self.have} bytes instead of {self._expected_size}"
        if self._expected_sha256 and self.digest() != self._expected_sha256:
            return f"its SHA-256 is {self.digest()} instead of {self._expected_sha256}"
        return ""

    def settle(self) -> None:
        """Have it on the disk, and say that it is complete."""
        os.fsync(self._descriptor)
        self._total = self.have
        self.tell()
