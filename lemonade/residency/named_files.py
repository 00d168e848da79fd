"""Files that people's arguments name: looked for before anything has to make room for the load.

An engine finds out that an adapter is not there when it starts, in words of its own and after
others have left for it.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from lemonade.catalog import RecipeSpec
from lemonade.core.errors import BadArgument
from lemonade.planning import Argument, grammar_of, layer_phrase


def check_named_files(arguments: Iterable[Argument], recipe: RecipeSpec) -> None:
    """Look for what the recipe's `files` name. Blocks for a moment.

    One flag may name several, with commas between them, and say something about each behind a
    colon.

    Raises:
        BadArgument: a file is not there.
    """
    grammar = grammar_of(recipe)
    names = {grammar.name_of(flag) for flag in recipe.argv.files}
    for argument in arguments:
        if grammar.name_of(argument.flag) not in names:
            continue
        for value in argument.values[:1]:
            missing = "" if _is_there(value) else _first_missing(value)
            if missing:
                raise BadArgument(
                    f"{missing}, which {layer_phrase(argument.origin)} names with "
                    f"{argument.flag}, is not there.",
                    remedy="Give the absolute path of a file on the server's machine.",
                    facts={"flag": argument.flag, "origin": argument.origin, "path": missing},
                )


def _first_missing(value: str) -> str:
    parts = [part for part in value.split(",") if part]
    return next(
        (part for part in parts if not (_is_there(part) or _is_there(part.rpartition(":")[0]))), ""
    )


def _is_there(text: str) -> bool:
    try:
        return bool(text) and Path(text).exists()
    except (OSError, ValueError):  # no name that a file could have
        return False
