"""A GPU on which other models stay is shared: the engine is told how much of it there is left.

vLLM ends at once if the share it would take by itself is not free, also where its cache has a
size of its own. Whoever gives a share decides.
"""

from __future__ import annotations

from math import floor
from typing import Final

from lemonade.core.units import render_size
from lemonade.planning.argv import Argument, Argv, grammar_of
from lemonade.planning.facts import LaunchFacts
from lemonade.planning.held import free_on, held_on
from lemonade.planning.memory import devices_of, shared_by

_MARGIN_BYTES: Final = 1 << 29
"""What a process takes of a GPU for being there, and what the kernel's count leaves out."""

_LEAST: Final = 0.05
"""With less than that the engine's own words say more."""


def apply(facts: LaunchFacts, argv: Argv) -> Argv:
    """Add the recipe's flag for the share of a device's memory."""
    spec = facts.recipe.context
    if spec is None or not spec.memory_share or not facts.held:
        return argv
    grammar = grammar_of(facts.recipe)
    if grammar.find(argv, spec.memory_share):
        return argv
    gpus = devices_of(facts)[: shared_by(facts, argv)]
    others = max((held_on(gpu, facts.held, facts.machine) for gpu in gpus), default=0)
    if not others or not all(gpu.pool_bytes for gpu in gpus):
        return argv
    free = min(
        (free_on(gpu, facts.held, facts.machine) - _MARGIN_BYTES) / gpu.pool_bytes for gpu in gpus
    )
    share = floor(100 * min(spec.default_share, free)) / 100
    if share < _LEAST:
        return argv
    because = f"Other models hold {render_size(others)} of this GPU's memory."
    added = Argument(spec.memory_share, (f"{share:g}",), "share-beside-others", because=because)
    return Argv((*argv.arguments, added))
