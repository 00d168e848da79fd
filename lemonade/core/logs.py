"""One line of a log: who said it, when, and how grave it is.

How grave a line of an engine is, is read from its text by the recipe's rules, and only when
somebody asks: engines may print faster than anybody reads.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final, Literal

from lemonade.core.records import dataclass

LogLevel = Literal["debug", "info", "warning", "error"]
LogStream = Literal["output", "notice", "server"]
"""What an engine printed (stdout and stderr are one pipe, so that lines keep their order); what
we say about that; what the server itself logs."""

LEVELS: Final[Mapping[LogLevel, int]] = {"debug": 0, "info": 1, "warning": 2, "error": 3}
"""From the least grave to the gravest."""

_LOOKED_AT: Final = 400
"""Characters of a line that rules are searched in: a level stands at its beginning."""


@dataclass(frozen=True, slots=True)
class LevelRule:
    """How lines of a level are told.

    Attributes:
        pattern: a regular expression searched in the first 400 characters of a line.
    """

    level: LogLevel
    pattern: str


@dataclass(frozen=True, slots=True)
class LogRecord:
    """One line.

    Attributes:
        seq: counts the lines of a server's life; 0 for a line that is not part of that.
        time: seconds of the epoch; `None` if it was not kept.
        source: the model, or of the server's own lines the part that said it.
        pid: of the process that was spawned; of the server for its own lines.
        text: without secrets, and bounded.
        rules: the first that fits says the level; without one it is `info`.
        said: the level, where that needs no rules.
        dropped: how many lines were left out here, since a reader was too slow.
    """

    seq: int
    time: float | None
    source: str
    pid: int | None
    stream: LogStream
    text: str
    rules: tuple[LevelRule, ...] = ()
    said: LogLevel | None = None
    dropped: int = 0

    @property
    def level(self) -> LogLevel:
        """How grave it is."""
        if self.said is not None:
            return self.said
        text = self.text[:_LOOKED_AT]
        for level, pattern in _compiled(self.rules):
            if pattern.search(text):
                return level
        return "info"

    def at_least(self, level: LogLevel) -> bool:
        """Whether it is as grave as that, or graver."""
        lowest = LEVELS[level]
        return lowest == 0 or LEVELS[self.level] >= lowest

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        when = None if self.time is None else datetime.fromtimestamp(self.time, UTC)
        return {
            "seq": self.seq or None,
            "time": when and when.isoformat(timespec="milliseconds"),
            "model": "" if self.stream == "server" else self.source,
            "pid": self.pid,
            "stream": self.stream,
            "level": self.level,
            "text": self.text,
            **({"dropped": self.dropped} if self.dropped else {}),
        }


@lru_cache(maxsize=64)
def _compiled(rules: tuple[LevelRule, ...]) -> tuple[tuple[LogLevel, re.Pattern[str]], ...]:
    return tuple((rule.level, re.compile(rule.pattern)) for rule in rules)
