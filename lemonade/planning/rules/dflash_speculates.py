"""A DFlash draft model needs its own kind of speculation, and a model that was made for it.

Repositories carry such drafts beside the model, so one may be on disk although the model is not
declared to use it; given to llama.cpp as an ordinary draft it would fail to load.
"""

from __future__ import annotations

from typing import Final

from lemonade.planning.argv import Argument, Argv, grammar_of
from lemonade.planning.facts import LaunchFacts

_SPECULATION: Final = "--spec-type"
_DRAFT: Final = "--model-draft"


def apply(facts: LaunchFacts, argv: Argv) -> Argv:
    """Add `--spec-type draft-dflash`; or drop a DFlash draft the model is not labelled for."""
    if not _has_dflash_draft(facts):
        return argv
    grammar = grammar_of(facts.recipe)
    if "dflash" not in facts.model.labels:
        draft = grammar.name_of(_DRAFT)
        return Argv(tuple(a for a in argv.arguments if grammar.name_of(a.flag) != draft))
    merges = facts.options.values.get("merge_args", True)
    if not merges or grammar.find(argv, _SPECULATION) is not None:
        return argv
    return Argv((*argv.arguments, Argument(_SPECULATION, ("draft-dflash",), "dflash-speculates")))


def _has_dflash_draft(facts: LaunchFacts) -> bool:
    names = [file.name.casefold() for file in facts.files.get("draft", ())[:1]]
    return any(name.startswith("dflash-") or name == "dflash.gguf" for name in names)
