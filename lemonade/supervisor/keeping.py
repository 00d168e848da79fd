"""Whether one child may be left alone when its server ends, and what the next one is told of it.

Those who use a child say what the next server has to know. That is written beside the record at
once if the child writes to a file and the server is to keep its children: then also a server that
is killed leaves it alone. A child with a pipe is left alone only by a server that goes on as
another program in the same process, so of such a child it is written at the end.
"""

from __future__ import annotations

import logging

from lemonade.core.errors import LemonadeError
from lemonade.core.ids import ChildId
from lemonade.core.inference import JsonObject
from lemonade.supervisor.kept import Kept
from lemonade.supervisor.spawn import Process
from lemonade.supervisor.surroundings import Surroundings

log = logging.getLogger(__name__)


class Keeping:
    """Of one child. Used from the event loop's thread only.

    Attributes:
        written: whether it may be taken over, as the disk has it.
    """

    def __init__(
        self, child: ChildId, process: Process, around: Surroundings, started_at: float
    ) -> None:
        self._child = child
        self._process = process
        self._around = around
        self._started_at = started_at
        self._facts: JsonObject | None = None
        # What was taken over is kept until it is said otherwise.
        self._may_be_there = True
        self.written = False

    async def put(self, facts: JsonObject | None) -> None:
        """What the next server has to know; `None` if it is to find nothing."""
        self._facts = facts
        if facts is not None and self._process.spool is not None and self._around.keep():
            await self.write(())
        elif self._may_be_there:
            self._may_be_there = self.written = False
            await self._around.beside.disk(self._around.ledger.forget, self._child)

    def may_stay(self, *, hand_over: bool) -> bool:
        """Whether there is all that is needed.

        Args:
            hand_over: whether this process goes on, with the pipes it has.
        """
        has_file = self._process.spool is not None
        return self._facts is not None and (hand_over or (has_file and self._around.keep()))

    async def write(self, tail: tuple[str, ...]) -> None:
        """Write it down. A failure is logged, and the child is not left alone."""
        if self._facts is None:
            return
        spool = self._process.spool
        kept = Kept(
            child=self._child,
            leader=self._process.identity,
            started_at=self._started_at,
            mark=self._process.mark,
            spool="" if spool is None else str(spool.path),
            tail=tail if spool is None else (),
            facts=self._facts,
        )
        self._may_be_there = True
        try:
            await self._around.beside.disk(self._around.ledger.keep, kept)
        except LemonadeError as error:
            self.written = False
            log.warning("%s cannot be kept: %s", self._child, error)
        else:
            self.written = self._facts is not None
