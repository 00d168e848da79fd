"""The short way of a stream that is under way.

Nearly every block of a stream is one chunk, comes between two others, and says nothing that
anybody has to look at before the end. What touches few objects costs little: of a thousand streams
none is in the processor's cache any more when its next chunk comes.
"""

from __future__ import annotations

import asyncio
from typing import Protocol


class Reader(Protocol):
    """Whoever owns the client's connection."""

    @property
    def writing_paused(self) -> bool:
        """Whether the connection has more than it can send at once."""
        ...


class Tap(Protocol):
    """Is shown a body as it comes.

    Attributes:
        blocks: the end of what it was shown.
    """

    blocks: list[bytes]

    def feed(self, block: bytes) -> None:
        """The next bytes."""

    def trim(self) -> int:
        """Forget of `blocks` what is not needed.

        Returns:
            How many bytes may be put there until it is time to do that again.
        """

    @property
    def looking(self) -> bool:
        """Whether it has to be fed; otherwise blocks may be put to the others, and be trimmed."""
        ...


class Passage:
    """Takes whole chunks, as they come, past everything else.

    Attributes:
        open: whether a block that is one whole chunk may go here. Whoever says so knows that the
            body stands between two chunks, and that nothing of it waits.
    """

    __slots__ = ("_blocks", "_is_closing", "_reader", "_room", "_trim", "_write", "open")

    def __init__(self, transport: asyncio.Transport, reader: Reader, tap: Tap) -> None:
        """Closed at first.

        Args:
            transport: of the client's connection.
            reader: its owner.
            tap: is shown the chunks.
        """
        self._write = transport.write
        self._is_closing = transport.is_closing
        self._reader = reader
        self._blocks = tap.blocks
        self._trim = tap.trim
        self._room = 0
        self.open = False

    def take(self, chunk: bytes) -> bool:
        """Pass it on; answers whether the client has enough."""
        blocks = self._blocks
        blocks.append(chunk)
        self._room = room = self._room - len(chunk)
        if room < 0:
            self._room = self._trim()
        if self._is_closing():
            return True
        self._write(chunk)
        return self._reader.writing_paused

    def close(self) -> bytes:
        """Something else comes; the last chunk is returned. Only while it is open."""
        self.open = False
        self._room = 0
        return self._blocks[-1]
