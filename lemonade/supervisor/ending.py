"""How one child's end comes about, noted piece by piece, and the report made of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from lemonade.core.process import ExitReport, ProcessSpec
from lemonade.supervisor.diagnosis import verdict
from lemonade.supervisor.kernel import Testimony
from lemonade.supervisor.spawn import Ending
from lemonade.supervisor.stopping import Swept

_LAST_LINES: Final = 30


@dataclass(slots=True)
class End:
    """What is known of it so far. Written by the child's task.

    Attributes:
        told_to_end: we have asked or killed it before it ended.
        too_late: its time to start was over.
        stalled: its start showed no sign of work.
        given_up: why it was killed though it lived; else empty. `given_up_for` is the word for it.
        ending: how its process ended; `None` before that.
        swept: what was found of it afterwards.
        testimony: what the kernel said.
    """

    told_to_end: bool = False
    too_late: bool = False
    stalled: bool = False
    given_up: str = ""
    given_up_for: str = ""
    ending: Ending | None = None
    swept: Swept = field(default_factory=Swept)
    testimony: Testimony = field(default_factory=Testimony)

    @property
    def ours(self) -> bool:
        """Whether we ended it although nobody had asked for that."""
        return self.too_late or self.stalled or bool(self.given_up)

    def report(
        self,
        spec: ProcessSpec,
        lived: float,
        lines: tuple[str, ...],
        survivors: tuple[int, ...],
        stranger: str,
    ) -> ExitReport:
        """All of it.

        Args:
            spec: what it was started from.
            lived: seconds.
            lines: the last it printed.
            survivors: what is alive in spite of SIGKILL.
            stranger: who listens on its port, for people; empty if nobody else does.
        """
        ending = self.ending or Ending(None, None)
        crashed = not self.told_to_end or self.ours
        # A signal of ours says nothing about what is wrong.
        by = None if self.told_to_end else ending.signal
        known = verdict(spec, lines, by, self.testimony, stranger) if crashed else None
        return ExitReport(
            status=ending.status,
            signal=ending.signal,
            lived=lived,
            expected=self.told_to_end and not self.given_up,
            last_lines=lines[-_LAST_LINES:],
            swept=self.swept.ended,
            survivors=survivors,
            diagnosis=known,
            kernel=self.testimony.lines,
            kernel_unread=self.testimony.unread,
            given_up=self.given_up,
            given_up_for=self.given_up_for,
        )
