"""What labels say: exactly one deployment mode, and any number of capabilities."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from lemonade.catalog.model import MODE_TYPES

CUSTOM: Final = "custom"
"""Every model that a user registered or put into a folder carries it."""

_SPELLINGS: Final = {"embedding": "embeddings", "classifier": "classification"}


def modes_in(labels: Iterable[str]) -> tuple[str, ...]:
    """The different modes among the labels, in the canonical spelling."""
    named = (_SPELLINGS.get(label, label) for label in labels)
    return tuple(dict.fromkeys(label for label in named if label in MODE_TYPES))


def with_mode(labels: Iterable[str], modes: Sequence[str], recipe: str) -> tuple[str, ...]:
    """The labels with exactly one mode; the first of `modes` if they had none.

    Args:
        labels: as declared.
        modes: what the recipe can serve, its default first.
        recipe: its name, for the message.

    Raises:
        ValueError: two modes, or one the recipe cannot serve; the message is a sentence part.
    """
    kept = tuple(dict.fromkeys(_SPELLINGS.get(label, label) for label in labels))
    found = modes_in(kept)
    if len(found) > 1:
        raise ValueError(f"a model has one mode, and the labels name {' and '.join(found)}")
    if not found:
        return (*kept, modes[0])
    if found[0] not in modes:
        raise ValueError(
            f"recipe {recipe} cannot serve the label '{found[0]}', only {', '.join(modes)}"
        )
    return kept
