"""What an archive may amount to, and the files that came out of it."""

from __future__ import annotations

from collections.abc import Callable

from lemonade.core.records import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """What an archive may amount to.

    Attributes:
        unpacked_bytes: of all files together; what the disk can take.
        ratio: unpacked bytes to packed ones, where more than `ratio_from` bytes are unpacked.
        entries: files, folders and links.
        dictionary_bytes: memory that unpacking may take; xz's own strongest setting needs 65 MB.
    """

    unpacked_bytes: int
    ratio: int = 200
    ratio_from: int = 64 << 20
    entries: int = 500_000
    dictionary_bytes: int = 256 << 20


@dataclass(frozen=True, slots=True)
class UnpackedFile:
    """A file as it lies there now."""

    path: str
    size_bytes: int
    sha256: str


Report = Callable[[int, int], None]
"""Told how many bytes of the archive are read, of how many. May raise to make an end."""
