"""A model that is too large for one GPU is shared by several equal ones, as few as hold it.

On one GPU it is quicker, so nothing is shared that fits. Whoever gives a number decides.
"""

from __future__ import annotations

from lemonade.planning.argv import Argument, Argv, grammar_of
from lemonade.planning.facts import LaunchFacts
from lemonade.planning.memory import split_over


def apply(facts: LaunchFacts, argv: Argv) -> Argv:
    """Add the recipe's flag for how many GPUs share the model."""
    spec = facts.recipe.context
    if spec is None or not spec.parallel:
        return argv
    grammar = grammar_of(facts.recipe)
    if any(grammar.find(argv, flag) for flag in spec.parallel):
        return argv
    flag, count = split_over(facts, argv)
    if not flag:
        return argv
    because = f"Its files do not fit on one of these GPUs, and {count} hold them."
    added = Argument(flag, (str(count),), "split-over-gpus", because=because)
    return Argv((*argv.arguments, added))
