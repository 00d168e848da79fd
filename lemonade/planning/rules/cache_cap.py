"""On a GPU that others use as well the cache is as large as contexts need, not all there is.

vLLM would take nine tenths of the memory. Whoever gives a size or a share decides.
"""

from __future__ import annotations

from typing import Final

from lemonade.planning.argv import Argument, Argv, grammar_of
from lemonade.planning.device_class import careful
from lemonade.planning.facts import LaunchFacts

_GIB: Final = 1 << 30
_LEAST_BYTES: Final = 4 * _GIB
"""Room for several requests, also where a single one needs little."""


def apply(facts: LaunchFacts, argv: Argv) -> Argv:
    """Add the recipe's flag for the cache's size."""
    spec, context = facts.recipe.context, facts.context
    if spec is None or not spec.cache_bytes or not careful(facts):
        return argv
    grammar = grammar_of(facts.recipe)
    if any(grammar.find(argv, flag) for flag in (spec.cache_bytes, spec.memory_share) if flag):
        return argv
    needed = context.cache_bytes or 0 if context is not None else 0
    budget = context.budget_bytes if context is not None else None
    size = max(_LEAST_BYTES, needed)
    if budget is not None and size > budget:
        if needed > budget or not budget:
            return argv  # the engine knows better than an estimate that leaves nothing
        size = budget
    because = "Others use this GPU's memory as well" + (
        f", and the context takes {needed} bytes." if needed else "."
    )
    text = f"{size // _GIB}G" if size % _GIB == 0 else str(size)
    return Argv(
        (*argv.arguments, Argument(spec.cache_bytes, (text,), "cache-cap", because=because))
    )
