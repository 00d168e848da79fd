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

    One flag may name several, with commas between them, say something about each behind a colon,
    and give each a name, as in `name=/path`. What has a name and is no absolute path may be
    something else, such as a repository.

    Raises:
        BadArgument: a file is not there.
    """
    grammar = grammar_of(recipe)
    names = {grammar.name_of(flag) for flag in recipe.argv.files}
    for argument in arguments:
        if grammar.name_of(argument.flag) not in names:
            continue
        for value in argument.values:
            missing = "" if _is_there(value) else _first_missing(value)
            if missing:
                raise BadArgument(
                    f"{missing} is not there; {argument.flag} of {layer_phrase(argument.origin)} "
                    "names it.",
                    remedy="Give the absolute path of a file on the server's machine.",
                    facts={"flag": argument.flag, "origin": argument.origin, "path": missing},
                )


def _first_missing(value: str) -> str:
    for part in value.split(","):
        _, named, path = part.partition("=") if not part.startswith("/") else ("", "", part)
        path = path if named else part
        if not path or (named and not path.startswith("/")) or value.startswith("{"):
            continue
        if not (_is_there(path) or _is_there(path.rpartition(":")[0])):
            return path
    return ""


def _is_there(text: str) -> bool:
    try:
        return bool(text) and Path(text).exists()
    except (OSError, ValueError):  # no name that a file could have
        return False
