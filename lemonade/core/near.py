"""Which known names somebody may have meant."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

_CLOSE: Final = 0.6


def near_names(wanted: str, known: Iterable[str], *, at_most: int = 3) -> tuple[str, ...]:
    """Up to `at_most` of `known` that look like `wanted`, the likeliest first.

    Case does not matter. Names that contain what was written count as near too.
    """
    from difflib import get_close_matches  # 1.3 ms of every start, needed for typing errors alone

    folded: dict[str, str] = {}
    for name in known:
        folded.setdefault(name.casefold(), name)
    needle = wanted.casefold()
    found = get_close_matches(needle, folded, n=at_most, cutoff=_CLOSE)
    if len(needle) > 2:  # two letters are in everything
        found += sorted((name for name in folded if needle in name), key=len)
    return tuple(folded[name] for name in dict.fromkeys(found))[:at_most]


def did_you_mean(names: Iterable[str]) -> str:
    """`Did you mean a, b or c?`, or nothing."""
    *most, last = tuple(names) or ("",)
    if not last:
        return ""
    return f"Did you mean {', '.join(most)} or {last}?" if most else f"Did you mean {last}?"
