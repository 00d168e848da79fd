"""What makes a child one that may be left alone: a second file beside its record.

As long as the file is there, a guardian does not touch the child and the next server tries to take
it over. It is written when the child serves and removed before it is ended, so a child that is
starting, draining or ending has none. It holds what is needed to use the child, its key included,
and is readable by its owner only.
"""

from __future__ import annotations

from typing import Any, Final

from lemonade.core.ids import ChildId
from lemonade.core.inference import JsonObject
from lemonade.core.records import dataclass
from lemonade.supervisor.processes import Identity

FORMAT: Final = 1
SUFFIX: Final = ".kept"


class NewerRecord(ValueError):
    """The record is of a later version of this program, which alone knows what it says."""


@dataclass(frozen=True, slots=True)
class Kept:
    """One child that may be taken over.

    Attributes:
        child: which run of which child; the name of the file.
        leader: its process.
        started_at: when, in seconds of the epoch.
        mark: by what its descendants' output is recognised; see `kin`.
        spool: file that it writes to; empty if that is a pipe, which only the same process has.
        tail: what it printed last, where nothing else keeps that.
        facts: whatever those who use it need to know; not looked at here.
    """

    child: ChildId
    leader: Identity
    started_at: float
    mark: str
    spool: str
    tail: tuple[str, ...]
    facts: JsonObject

    def as_json(self) -> JsonObject:
        """The content of the file."""
        return {
            "format": FORMAT,
            "child": self.child,
            "pid": self.leader.pid,
            "start_ticks": self.leader.start_ticks,
            "started_at": self.started_at,
            "mark": self.mark,
            "spool": self.spool,
            "tail": list(self.tail),
            "facts": dict(self.facts),
        }

    @classmethod
    def from_json(cls, value: Any) -> Kept:  # noqa: ANN401 - a file may hold anything
        """Read it back.

        Raises:
            NewerRecord: it is of a version we do not know yet.
            ValueError: it is not one.
        """
        try:
            number = value["format"]
            if isinstance(number, int) and number > FORMAT:
                raise NewerRecord(f"a newer Lemonade kept it (format {number})")
            if number != FORMAT:
                raise ValueError(f"its format is {number!r}")
            return cls(
                child=ChildId(str(value["child"])),
                leader=Identity(int(value["pid"]), int(value["start_ticks"])),
                started_at=float(value["started_at"]),
                mark=str(value["mark"]),
                spool=str(value["spool"]),
                tail=tuple(str(line) for line in value["tail"]),
                facts=dict(value["facts"]),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{type(error).__name__}: {error}") from error
