"""Compiling a model into graphs pays where the engine's developers do it; elsewhere it is skipped.

On a processor it needs a C++ compiler and half a minute at every start; on GPUs that are not made
for data centres it takes memory and minutes, and fails now and then. Whoever says
`--enforce-eager` or `--no-enforce-eager` decides, and the flag is given once.
"""

from __future__ import annotations

from typing import Final

from lemonade.planning.argv import Argument, Argv, grammar_of
from lemonade.planning.device_class import careful
from lemonade.planning.facts import LaunchFacts
from lemonade.planning.memory import on_processor

_FLAG: Final = "--enforce-eager"


def apply(facts: LaunchFacts, argv: Argv) -> Argv:
    """Add `--enforce-eager` where it is needed; of several keep the last."""
    grammar = grammar_of(facts.recipe)
    asked = grammar.find(argv, _FLAG)
    if asked is not None:
        others = tuple(
            argument
            for argument in argv.arguments
            if argument is asked or grammar.name_of(argument.flag) != _FLAG
        )
        return Argv(others)
    if grammar.find(argv, grammar.negation_of(_FLAG)) is not None:
        return argv
    if on_processor(facts):
        because = "Compiling on a processor needs a compiler, and half a minute at every start."
    elif careful(facts):
        because = "This GPU is not one of those that graphs are compiled for without trouble."
    else:
        return argv
    return Argv((*argv.arguments, Argument(_FLAG, (), "eager-by-device", because=because)))
