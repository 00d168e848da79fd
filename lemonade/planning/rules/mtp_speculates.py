"""A model trained to predict several tokens at once guesses ahead for itself.

llama.cpp does so only when told. Whoever chose a kind of speculation, or switched the merging of
arguments off, is left alone.
"""

from __future__ import annotations

from typing import Final

from lemonade.planning.argv import Argument, Argv, grammar_of
from lemonade.planning.facts import LaunchFacts

_FLAG: Final = "--spec-type"


def apply(facts: LaunchFacts, argv: Argv) -> Argv:
    """Add `--spec-type draft-mtp` for models labelled `mtp`."""
    merges = facts.options.values.get("merge_args", True)
    if "mtp" not in facts.model.labels or not merges:
        return argv
    if grammar_of(facts.recipe).find(argv, _FLAG) is not None:
        return argv
    return Argv((*argv.arguments, Argument(_FLAG, ("draft-mtp",), "mtp-speculates")))
