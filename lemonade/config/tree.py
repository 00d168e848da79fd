"""Nested JSON documents: laying one over another, taking away, and naming what is in them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from lemonade.core.inference import JsonObject

Tree = dict[str, Any]

_WHOLE: Final = frozenset({("telemetry", "otlp", "headers")})
"""Objects that are one value: laid over as a whole, or nobody could take a key out of them."""


def merge(lower: JsonObject, upper: JsonObject, path: tuple[str, ...] = ()) -> Tree:
    """`upper` over `lower`: objects key by key, everything else replaced, `null` too."""
    merged = dict(lower)
    for key, value in upper.items():
        here = (*path, key)
        below = merged.get(key)
        if isinstance(value, Mapping) and isinstance(below, Mapping) and here not in _WHOLE:
            merged[key] = merge(below, value, here)
        else:
            merged[key] = value
    return merged


def prune(tree: JsonObject, base: JsonObject, path: tuple[str, ...] = ()) -> Tree:
    """What of `tree` differs from `base`; objects that hold nothing any more are left out."""
    kept: Tree = {}
    for key, value in tree.items():
        here = (*path, key)
        below = base.get(key)
        if isinstance(value, Mapping) and here not in _WHOLE:
            rest = prune(value, below if isinstance(below, Mapping) else {}, here)
            if rest:
                kept[key] = rest
        elif key not in base or not _same(value, below):
            kept[key] = value
    return kept


def without(tree: JsonObject, gone: JsonObject, path: tuple[str, ...] = ()) -> Tree:
    """`tree` without the values that `gone` names; objects that become empty go too."""
    kept: Tree = {}
    for key, value in tree.items():
        here = (*path, key)
        deeper = isinstance(value, Mapping) and isinstance(gone.get(key), Mapping)
        if key not in gone:
            kept[key] = value
        elif deeper and here not in _WHOLE and (rest := without(value, gone[key], here)):
            kept[key] = rest
    return kept


def leaves(tree: JsonObject, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Dotted key and value of everything that is not an object of settings."""
    for key, value in tree.items():
        here = (*path, key)
        if isinstance(value, Mapping) and here not in _WHOLE:
            yield from leaves(value, here)
        else:
            yield ".".join(here), value


def nested(dotted: str, value: object) -> Tree:
    """`a.b` and 1 as `{"a": {"b": 1}}`."""
    first, dot, rest = dotted.partition(".")
    return {first: nested(rest, value) if dot else value}


def _same(one: object, other: object) -> bool:
    """Equal, and not merely equal as `True` and 1 are."""
    return one == other and isinstance(one, bool) == isinstance(other, bool)
