"""A section of the configuration, as a recipe declares it and the configuration checks it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class SectionSpec:
    """The settings of one recipe.

    Attributes:
        name: of the section in `config.json`.
        title: for people.
        defaults: key to default; the default's type is the key's type.
        variants: of the recipe's backends; what `backend` may name, and whose `<variant>_args`
            and `<variant>_bin` exist.
        further: keys without a default that are settings too.
        selectable: whether `backend` is a setting of it.
    """

    name: str
    title: str = ""
    defaults: Mapping[str, object] = field(default_factory=dict)
    variants: tuple[str, ...] = ()
    further: tuple[str, ...] = ()
    selectable: bool = True
