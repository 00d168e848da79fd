"""`Attempt`: a load under way, and how it is called off.

A task may be cancelled before its first step, and then never runs at all; or again while it is
cleaning up, and then leaves things half done. Neither happens to an attempt: one that has not
begun is told when it begins, and one that is ending is left to end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import field

from lemonade.core.process import StartStep
from lemonade.core.progress import Progress, ProgressListener
from lemonade.core.records import dataclass
from lemonade.residency.placement import PortLease
from lemonade.residency.resident import Resident


@dataclass(slots=True, eq=False)
class Attempt:
    """Made and ended by the pool, together with a resident that is loading.

    Attributes:
        resident: what is loaded.
        evicted: who had to leave before it was certain that this succeeds; loaded again if not.
        victims: who leaves when it is ready.
        listeners: told how downloads and installation go on.
        kept: goes on even if nobody waits for it.
        port: where its engine listens, once there is one.
        insisted: somebody asked for the load itself, and does not wait out a pause.
    """

    resident: Resident
    evicted: list[Resident] = field(default_factory=list)
    victims: list[Resident] = field(default_factory=list)
    listeners: list[ProgressListener] = field(default_factory=list)
    kept: bool = False
    port: PortLease | None = None
    insisted: bool = False
    _task: asyncio.Task[None] | None = None
    _ending: bool = False

    def begin(self) -> None:
        """From its own task, first of all.

        Raises:
            CancelledError: it has been called off already.
        """
        self._task = asyncio.current_task()
        if self.resident.called_off:
            raise asyncio.CancelledError

    def call_off(self, why: str) -> None:
        """Have it end soon, unless it is ending anyway. Does not wait."""
        if self._ending or self.resident.called_off:
            return
        self.resident.called_off = True
        self.resident.why = why
        if self._task is not None:
            self._task.cancel()

    def end(self) -> None:
        """From its own task: what follows is clean-up, which nobody interrupts."""
        self._ending = True

    def hand_over_evicted(self) -> list[Resident]:
        """Those it evicted become the business of whoever calls this."""
        evicted, self.evicted[:] = self.evicted[:], []
        return evicted

    def forgo(self, unwanted: Callable[[Resident], bool]) -> None:
        """Of those it evicted, do not load the unwanted ones again."""
        self.evicted[:] = [victim for victim in self.evicted if not unwanted(victim)]

    def tell_step(self, step: StartStep) -> None:
        """Where the engine's start is."""
        self.resident.step = f"starting: {step}"
        self._pass_on(
            Progress(self.resident.served_name, phase=step.phase, phase_percent=step.percent)
        )

    def tell(self, progress: Progress) -> None:
        """A `ProgressListener` that tells all others."""
        self.resident.step = f"fetching {progress.file}"
        self._pass_on(progress)

    def _pass_on(self, progress: Progress) -> None:
        for listener in tuple(self.listeners):
            listener(progress)


Arrive = Callable[[Attempt], Awaitable[None]]
"""Returns when the engine of an attempt may be used."""
