"""Why a child failed, where what it printed is known to mean something.

Engines die of a few things again and again, and say so in words of their own. A table of such
words came with the child; nothing here knows an engine.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping, Sequence
from typing import Final

from lemonade.core.process import Diagnosis, KnownProblem

LOOKED_AT_LINES: Final = 200
_LINE_CHARACTERS: Final = 1000
_GROUP_CHARACTERS: Final = 200
_PLACE: Final = re.compile(r"\{([a-z_]+)\}")


def diagnose(
    problems: Sequence[KnownProblem], lines: Sequence[str], ended_by: int | None
) -> Diagnosis | None:
    """The first known problem that its last lines, or the signal that ended it, speak of."""
    text = "\n".join(line[:_LINE_CHARACTERS] for line in lines[-LOOKED_AT_LINES:])
    ending = _signal_name(ended_by)
    for problem in problems:
        if problem.signal and problem.signal != ending:
            continue
        if not problem.pattern:
            return Diagnosis(problem.cause, problem.fix, problem.severe)
        if (match := re.search(problem.pattern, text, re.MULTILINE)) is not None:
            words = match.groupdict(default="")
            cause, fix = _filled(problem.cause, words), _filled(problem.fix, words)
            return Diagnosis(cause, fix, problem.severe)
    return None


def _filled(sentence: str, words: Mapping[str, str]) -> str:
    return _PLACE.sub(lambda m: words.get(m[1], m[0])[:_GROUP_CHARACTERS].strip(), sentence)


def _signal_name(number: int | None) -> str:
    try:
        return signal.Signals(number).name if number is not None else ""
    except ValueError:
        return ""
