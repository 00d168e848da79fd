"""What the beginning of a GGUF file says: that it is one, what it holds, how long a context.

The format: magic `GGUF`, a version, counts of tensors and of metadata pairs, then the pairs
(https://github.com/ggml-org/ggml/blob/master/docs/gguf.md). Only as much is read as is needed, and
never more than a bound, as the numbers in a damaged file can say anything.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO, Final

MAGIC: Final = b"GGUF"

_MOST_BYTES: Final = 64 << 20
_MOST_PAIRS: Final = 4096
_LONGEST_KEY: Final = 65535
_FIXED: Final = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Sizes of the value types that have one."""
_INTEGERS: Final = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 10: "<Q", 11: "<q"}
_STRING: Final = 8
_ARRAY: Final = 9


def is_gguf_file(path: Path) -> bool:
    """Whether the file starts like one. Blocks.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def context_length(path: Path) -> int | None:
    """The longest context in tokens the model was trained for; `None` if the file does not say.

    Blocks. A damaged file says nothing.
    """
    try:
        with path.open("rb") as file:
            return _Reader(file).context_length()
    except (OSError, _Damaged, struct.error):
        return None


def general_texts(path: Path) -> Mapping[str, str]:
    """The texts under `general.` and `adapter.`: `general.architecture`, `adapter.type` and so on.

    Blocks. A damaged file says nothing.

    Raises:
        OSError: it cannot be read.
    """
    found: dict[str, str] = {}
    with path.open("rb") as file:
        try:
            _Reader(file).general_texts(found)
        except (_Damaged, struct.error):
            return {}
    return found


def is_adapter(path: Path) -> bool:
    """Whether the file says that it is an adapter and no model of its own. Blocks."""
    try:
        return general_texts(path).get("general.type") == "adapter"
    except OSError:
        return False


def begins_like_adapter(beginning: bytes, *, whole: bool) -> bool | None:
    """The same of a file of which only the beginning is here; `None` if that does not tell.

    Args:
        beginning: its first bytes.
        whole: whether they are all there are.
    """
    found: dict[str, str] = {}
    file = io.BytesIO(beginning)
    try:
        _Reader(file).general_texts(found)
        to_its_end = file.tell() <= len(beginning)  # what is skipped may lie beyond
    except (_Damaged, struct.error):
        to_its_end = False
    if "general.type" not in found and not (to_its_end or whole):
        return None
    return found.get("general.type") == "adapter"


class _Damaged(Exception):
    """The header contradicts itself."""


class _Reader:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def context_length(self) -> int | None:
        if self._take(len(MAGIC)) != MAGIC:
            return None
        version, _, pairs = struct.unpack("<IQQ", self._take(20))
        if version < 2:  # the first version counts in 32 bits; nothing writes it any more
            return None
        for _ in range(min(pairs, _MOST_PAIRS)):
            key = self._string(_LONGEST_KEY)
            kind = self._number("<I")
            if key.endswith(b".context_length") and kind in _INTEGERS:
                value = self._number(_INTEGERS[kind])
                return value if value > 0 else None
            self._skip(kind)
        return None

    def general_texts(self, found: dict[str, str]) -> None:
        """Add them, as far as the file goes."""
        if self._take(len(MAGIC)) != MAGIC:
            return
        version, _, pairs = struct.unpack("<IQQ", self._take(20))
        if version < 2:
            return
        for _ in range(min(pairs, _MOST_PAIRS)):
            key = self._string(_LONGEST_KEY)
            kind = self._number("<I")
            if key.startswith(b"tokenizer."):
                break  # it stands behind them, and takes long to skip
            if key.startswith((b"general.", b"adapter.")) and kind == _STRING:
                value = self._string(_LONGEST_KEY)
                found[key.decode("utf-8", "replace")] = value.decode("utf-8", "replace")
            else:
                self._skip(kind)

    def _take(self, count: int) -> bytes:
        data = self._file.read(count)
        if len(data) != count:
            raise _Damaged
        return data

    def _number(self, layout: str) -> int:
        value: int = struct.unpack(layout, self._take(struct.calcsize(layout)))[0]
        return value

    def _string(self, longest: int) -> bytes:
        length = self._number("<Q")
        if length > longest:
            raise _Damaged
        return self._take(length)

    def _skip(self, kind: int) -> None:
        if kind in _FIXED:
            self._over(_FIXED[kind])
        elif kind == _STRING:
            self._over(self._number("<Q"))
        elif kind == _ARRAY:
            inner, count = self._number("<I"), self._number("<Q")
            if inner in _FIXED:
                self._over(_FIXED[inner] * count)
            elif inner == _STRING:
                for _ in range(count):
                    self._over(self._number("<Q"))
            else:
                raise _Damaged
        else:
            raise _Damaged

    def _over(self, count: int) -> None:
        if self._file.tell() + count > _MOST_BYTES:
            raise _Damaged
        self._file.seek(count, 1)
