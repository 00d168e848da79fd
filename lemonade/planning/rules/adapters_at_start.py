"""A model's adapters, on the command line of an engine that has to know of them from the start.

How is the recipe's business (`[adapters]`). An engine that is told of them while it runs is only
started so that it can be.
"""

from __future__ import annotations

from typing import Final

from lemonade.core.errors import BadAdapter, ContradictoryOptions
from lemonade.planning.adapters import rank_for
from lemonade.planning.argv import Argument, Argv, grammar_of, layer_phrase, merge, split_leading
from lemonade.planning.facts import LaunchFacts

_ORIGIN: Final = "adapters-at-start"


def apply(facts: LaunchFacts, argv: Argv) -> Argv:
    """Add what the recipe says for a start with these adapters.

    Raises:
        ContradictoryOptions: a user gives the engine adapters that ours cannot stand beside.
        BadAdapter: a path cannot be written on its command line, or a rank is beyond it.
    """
    spec = facts.recipe.adapters
    if spec is None or not facts.adapters:
        return argv
    grammar = grammar_of(facts.recipe)
    for flag in spec.excludes:
        if (given := grammar.find(argv, flag)) is not None:
            raise ContradictoryOptions(
                f"{given.flag} from {layer_phrase(given.origin)} cannot stand beside the adapters "
                f"of {facts.served_name}.",
                remedy="Remove it, and add its adapter to the others: `lemonade adapters load`.",
                facts={"flag": given.flag, "adapters": [one.name for one in facts.adapters]},
            )
    words: list[str] = []
    rank = rank_for(spec, facts.adapters)
    enable = split_leading([word.replace("{rank}", str(rank)) for word in spec.enable], _ORIGIN)[1]
    # Whoever has made room for larger ranks keeps it. All else is as it has to be.
    kept = spec.rank_flag if spec.rank_flag and grammar.find(argv, spec.rank_flag) else None
    added = [one for one in enable.arguments if one.flag != kept]
    for adapter in facts.adapters:
        path = str(adapter.path)
        if cut := next((char for char in path if spec.each and char in spec.unwritable), ""):
            raise BadAdapter(
                f"{facts.recipe.title} cannot be given {path}: it would end at the {cut!r}.",
                remedy="Put the adapter where its path has no such character.",
                facts={"path": path},
            )
        words += [word.replace("{path}", path) for word in spec.each]
    each: tuple[Argument, ...] = split_leading(words, _ORIGIN)[1].arguments
    return merge((argv, Argv((*added, *each))), grammar)
