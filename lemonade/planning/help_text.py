"""The flags in what a program prints for `--help`, and arguments held against them.

Two ways of printing are common, and both are read: `-t,    --threads N   text` of llama.cpp, and
`--model MODEL, -m MODEL` of Python's argparse. Text that goes on in the next line is indented.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Final

from lemonade.core.errors import BadArgument
from lemonade.core.near import did_you_mean, near_names
from lemonade.planning.argv import Argument, Grammar, layer_phrase

_INDENT: Final = 8
"""What stands further in is text about a flag."""

_FLAG: Final = re.compile(r"(-{1,2}[A-Za-z][\w.-]*)")
_VALUE: Final = re.compile(r"(?:[ =](?![ -])(?:\{[^}]*\}|\[[^]]*\]|<[^>]*>|[^\s,]+)){0,4}")
_NEXT: Final = re.compile(r"\s*[,|]\s*|(?<=,)\s+")
_ATTACHED: Final = re.compile(r"(-[A-Za-z])\d+\Z")


def flags_in(text: str) -> frozenset[str]:
    """Every spelling of every flag, with hyphens; empty if nothing looks like a flag."""
    found: set[str] = set()
    for line in text.splitlines():
        at = len(line) - len(line.lstrip())
        if at > _INDENT or not line[at:].startswith("-"):
            continue
        while match := _FLAG.match(line, at):
            found.add(match[1].replace("_", "-") if match[1].startswith("--") else match[1])
            value = _VALUE.match(line, match.end())
            end = value.end() if value else match.end()
            step = _NEXT.match(line, end)
            if step is None:
                break
            at = step.end()
    return frozenset(found)


def check_known(arguments: Iterable[Argument], known: Collection[str], grammar: Grammar) -> None:
    """Refuse arguments that the engine would refuse, before anything is touched for them.

    Raises:
        BadArgument: a flag is unknown; the message has the nearest that is not.
    """
    for argument in arguments:
        flag = argument.flag.partition(".")[0].removesuffix("+")
        attached = _ATTACHED.match(flag)
        if flag in known:
            continue
        if attached is not None and {attached[1], grammar.name_of(attached[1])} & set(known):
            continue  # `-O3` is `-O 3`
        if grammar.name_of(flag) in known:  # the engine knows it; so it does by this name
            raise _unknown(argument, [grammar.name_of(flag)])
        raise _unknown(argument, near_names(flag, sorted(known)))


def _unknown(argument: Argument, near: Iterable[str]) -> BadArgument:
    near = list(near)
    return BadArgument(
        f"The installed engine has no argument '{argument.flag}', which "
        f"{layer_phrase(argument.origin)} gives it.",
        remedy=did_you_mean(near) or "Its --help lists those it has.",
        facts={"flag": argument.flag, "origin": argument.origin, "near": near},
    )
