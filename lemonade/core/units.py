"""`15s` and `4 GiB`, and back."""

from __future__ import annotations

import re
from typing import Final

from lemonade.core.errors import BadSetting

_DURATION: Final = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|min|h)?\s*\Z")
_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
_SIZE: Final = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kKMGT]i?B?|B)?\s*\Z")
_POWERS: Final = {"k": 1, "m": 2, "g": 3, "t": 4}


def parse_duration(text: str | float) -> float:
    """`"15s"`, `"20m"`, `"250ms"` or a number of seconds, as seconds.

    Raises:
        BadSetting: it is neither.
    """
    if isinstance(text, (int, float)):
        return float(text)
    match = _DURATION.match(text)
    if match is None:
        raise BadSetting(f"'{text}' is not a duration.", remedy="Write 250ms, 15s, 20m or 1h.")
    return float(match[1]) * _SECONDS[match[2] or "s"]


def parse_size(text: str | int) -> int:
    """`"4 GiB"`, `"500MB"` or a number of bytes, as bytes.

    Raises:
        BadSetting: it is neither.
    """
    if isinstance(text, int):
        return text
    match = _SIZE.match(text)
    if match is None:
        raise BadSetting(f"'{text}' is not a size.", remedy="Write 500 MB, 4 GiB or plain bytes.")
    unit = match[2] or "B"
    if unit == "B":
        return int(float(match[1]))
    base = 1024 if "i" in unit else 1000
    return int(float(match[1]) * base ** _POWERS[unit[0].lower()])


def render_size(size_bytes: int) -> str:
    """Bytes for people: `1.9 MB`, `4.2 GB` (powers of 1000, as disks and hubs count)."""
    size = float(size_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def render_duration(seconds: float) -> str:
    """Seconds for people: `230 ms`, `4.2 s`, `3 min 20 s`."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"
