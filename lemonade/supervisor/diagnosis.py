"""Why a child failed, where what it printed is known to mean something.

Engines die of a few things again and again, and say so in words of their own. A table of such
words came with the child; nothing here knows an engine.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping, Sequence
from typing import Final

from lemonade.core.process import FOREIGN_SERVER, Diagnosis, KnownProblem, ProcessSpec
from lemonade.supervisor.kernel import OUT_OF_MEMORY, Testimony

LOOKED_AT_LINES: Final = 200
_LINE_CHARACTERS: Final = 1000
_GROUP_CHARACTERS: Final = 200
_PLACE: Final = re.compile(r"\{([a-z_]+)\}")


def diagnose(
    problems: Sequence[KnownProblem],
    lines: Sequence[str],
    ended_by: int | None,
    kernel: Sequence[str] = (),
) -> Diagnosis | None:
    """The first known problem that its last lines, the kernel's, or the signal speak of."""
    text = "\n".join(line[:_LINE_CHARACTERS] for line in lines[-LOOKED_AT_LINES:])
    of_kernel, ending = "\n".join(kernel), _signal_name(ended_by)
    for problem in problems:
        if problem.signal and problem.signal != ending:
            continue
        words: dict[str, str] = {}
        said = ((problem.pattern, text), (problem.kernel, of_kernel))
        found = [re.search(one, where, re.MULTILINE) for one, where in said if one]
        if not any(found) and (found or not problem.signal):  # either of them tells
            continue
        for match in filter(None, found):
            words |= match.groupdict(default="")
        cause, fix = _filled(problem.cause, words), _filled(problem.fix, words)
        return Diagnosis(cause, fix, problem.severe, problem.name)
    return None


def verdict(
    spec: ProcessSpec,
    lines: Sequence[str],
    ended_by: int | None,
    testimony: Testimony,
    stranger: str,
) -> Diagnosis | None:
    """What was wrong with a child that failed, if anything tells.

    Args:
        spec: what it was started from.
        lines: the last it printed.
        ended_by: the signal that ended it, if it was not ours.
        testimony: of the kernel.
        stranger: who listens on its port, for people; empty if nobody else does.
    """
    if testimony.out_of_memory:
        return OUT_OF_MEMORY
    if stranger:
        port = spec.endpoint.port
        return Diagnosis(
            f"{stranger[0].upper()}{stranger[1:]} listens on the port {port} that it was given.",
            "Load the model again: it is given another port.",
            name=FOREIGN_SERVER,
        )
    return diagnose(spec.known_problems, lines, ended_by, testimony.lines)


def _filled(sentence: str, words: Mapping[str, str]) -> str:
    return _PLACE.sub(lambda m: words.get(m[1], m[0])[:_GROUP_CHARACTERS].strip(), sentence)


def _signal_name(number: int | None) -> str:
    try:
        return signal.Signals(number).name if number is not None else ""
    except ValueError:
        return ""
