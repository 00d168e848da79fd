"""Named launch rules: what data cannot say about starting an engine, one pure function a file.

A recipe names its rules with hyphens; the file has underscores: `mtp-speculates` is the function
`apply` of `mtp_speculates.py`. The scan below is the only registration.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, TypeAlias

from lemonade.core.errors import BadDescriptor
from lemonade.planning.argv import Argv
from lemonade.planning.facts import LaunchFacts

Rule: TypeAlias = Callable[[LaunchFacts, Argv], Argv]
"""Gets all arguments planned so far, the user's merged in, and returns them changed or not."""

RULES: Final[Mapping[str, Rule]] = MappingProxyType(
    {
        module.name.replace("_", "-"): importlib.import_module(f"{__name__}.{module.name}").apply
        for module in pkgutil.iter_modules(__path__)
    }
)


def find_rule(name: str) -> Rule:
    """The rule of that name.

    Raises:
        BadDescriptor: there is none.
    """
    rule = RULES.get(name)
    if rule is None:
        raise BadDescriptor(
            f"There is no launch rule '{name}'.",
            remedy=f"A recipe's [rules] launch can name {', '.join(sorted(RULES))}.",
        )
    return rule


__all__ = ["RULES", "Rule", "find_rule"]
