"""What an engine is started with for its adapters, and whether one that runs can take more."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from lemonade.catalog.adapters import Adapter
from lemonade.catalog.adapters_spec import AdaptersSpec
from lemonade.catalog.recipe import RecipeSpec
from lemonade.core.errors import BadAdapter
from lemonade.core.process import ProcessSpec
from lemonade.planning.argv import grammar_of, split_leading


def rank_for(spec: AdaptersSpec, adapters: Iterable[Adapter]) -> int:
    """The rank an engine has to be started for; 0 if that does not matter to it.

    Raises:
        BadAdapter: it knows no rank that large.
    """
    if not spec.ranks:
        return 0
    needed = max((adapter.rank for adapter in adapters), default=0)
    fitting = [rank for rank in sorted(spec.ranks) if rank >= needed]
    if not fitting:
        raise BadAdapter(
            f"An adapter has the rank {needed}; the engine takes at most {max(spec.ranks)}.",
            remedy="Use one of a smaller rank, or merge it into the model.",
            facts={"rank": needed, "at_most": max(spec.ranks)},
        )
    return fitting[0]


def takes_more(recipe: RecipeSpec, start: ProcessSpec, adapter: Adapter) -> bool:
    """Whether an engine that was started like this can be told of an adapter while it runs."""
    spec = recipe.adapters
    if spec is None or not spec.at_run_time:
        return False
    if any(start.env.get(name) != value for name, value in spec.environment.items()):
        return False
    grammar = grammar_of(recipe)
    given = split_leading(start.argv, "recipe")[1]
    for wanted in split_leading(spec.enable, "recipe")[1].arguments:
        found = grammar.find(given, wanted.flag)
        if found is None and wanted.flag != spec.rank_flag:
            return False
        if found is not None and wanted.flag == spec.rank_flag:
            word = found.values[0] if found.values else ""
            return word.isdigit() and int(word) >= adapter.rank
    return not spec.ranks or adapter.rank <= min(spec.ranks)


def environment_for(recipe: RecipeSpec, adapters: Sequence[Adapter]) -> Mapping[str, str]:
    """Variables of a start with these adapters."""
    spec = recipe.adapters
    return spec.environment if spec is not None and adapters else {}
