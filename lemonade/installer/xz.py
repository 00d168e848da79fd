"""xz, unpacked with a limit on the memory that its dictionary takes. Blocks.

The header of an xz file may ask for up to 4 GB of memory before the first byte comes out. The
standard library's file object has no limit for that; its decompressor does.
"""

from __future__ import annotations

import io
import lzma
from typing import TYPE_CHECKING, Final

from lemonade.core.errors import UnsafeArchive

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_PIECE: Final = 1 << 16
_PADDING: Final = 4
"""Between streams there may be zeros, in groups of so many."""


class XzStream(io.RawIOBase):
    """The bytes inside an xz file, which may be several streams in a row. For reading only.

    Raises:
        UnsafeArchive: from `read`, where it needs more memory than it may take.
        lzma.LZMAError, EOFError: likewise, where it is damaged.
    """

    def __init__(self, packed: io.BufferedIOBase, name: str, memory_bytes: int) -> None:
        """Nothing is read yet.

        Args:
            packed: the file; it is not closed.
            name: for messages.
            memory_bytes: the most it may take.
        """
        super().__init__()
        self._packed = packed
        self._name = name
        self._limit = memory_bytes
        self._stream: lzma.LZMADecompressor | None = self._begin()
        self._rest = b""

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fill some of the buffer; 0 at the end."""
        view = memoryview(buffer).cast("B")
        while self._stream is not None:
            data = self._some(self._stream, len(view))
            if self._stream.eof:
                self._stream = self._next(self._stream.unused_data)
            if data:
                view[: len(data)] = data
                return len(data)
        return 0

    def _some(self, stream: lzma.LZMADecompressor, size: int) -> bytes:
        packed = b""
        if stream.needs_input:
            packed = self._rest or self._packed.read(_PIECE)
            self._rest = b""
            if not packed:
                raise EOFError("it ends too early")
        try:
            return stream.decompress(packed, size)
        except lzma.LZMAError as error:
            if "Memory usage limit" not in str(error):
                raise
            raise UnsafeArchive(
                f"{self._name} needs more than {self._limit / 1e6:.0f} MB of memory to be "
                "unpacked, which no archive of an engine does; nothing of it was used.",
                remedy="Do not trust the place it came from.",
            ) from error

    def _next(self, unused: bytes) -> lzma.LZMADecompressor | None:
        """The stream after one that ended; `None` if it was the last."""
        zeros = 0
        while True:
            rest = unused.lstrip(b"\0")
            zeros += len(unused) - len(rest)
            if rest:
                break
            unused = self._packed.read(_PIECE)
            if not unused:
                break
        if zeros % _PADDING:
            raise lzma.LZMAError("there is something after its end")
        self._rest = rest
        return self._begin() if rest else None

    def _begin(self) -> lzma.LZMADecompressor:
        return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=self._limit)
