"""A section of the configuration, as a recipe declares it and the configuration checks it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from lemonade.core.records import dataclass


@dataclass(frozen=True, slots=True)
class SectionSpec:
    """The settings of one recipe.

    Attributes:
        name: of the section in `config.json`.
        title: for people.
        defaults: key to default; the default's type is the key's type. `backend`, and
            `<variant>_args` and `<variant>_bin` of every variant, exist without being listed.
        variants: of the recipe's backends; what `backend` may name.
        selectable: whether `backend` is a setting of it.
    """

    name: str
    title: str = ""
    defaults: Mapping[str, object] = field(default_factory=dict)
    variants: tuple[str, ...] = ()
    selectable: bool = True
