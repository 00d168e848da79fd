"""Loading again what crashed and is wanted all the time, and what had to leave for nothing.

A model that somebody is asking for right now needs nothing of this: the request itself asks
again. Between two attempts lies the pause that the failures so far have earned.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from lemonade.core.errors import ChildError, DeviceQuarantined, KeepsFailing, LemonadeError
from lemonade.jobs import outliving
from lemonade.residency.resident import Resident

log = logging.getLogger(__name__)

Pause = Callable[[float], Awaitable[None]]

_LEAST_REST: Final = 1.0


class Revivals:
    """The models that are to be loaded again. Its tasks are born in the pool's group."""

    def __init__(
        self,
        tasks: asyncio.TaskGroup,
        begin: Callable[[Resident], Resident | None],
        wait: Callable[[str], float],
        pause: Pause,
    ) -> None:
        """Nothing is to be loaded yet.

        Args:
            tasks: the pool's.
            begin: begins a load like an earlier one; `None` if it is not wanted any more.
            wait: how many seconds a fingerprint is to rest.
            pause: sleeps.
        """
        self._tasks = tasks
        self._begin = begin
        self._wait = wait
        self._pause = pause
        self._under_way: dict[Resident, asyncio.Task[None]] = {}

    def add(self, resident: Resident) -> None:
        """It has crashed, and is wanted."""
        name = f"revive {resident.served_name}"
        task = self._tasks.create_task(outliving(lambda: self._revive(resident), name), name=name)
        self._under_way[resident] = task
        task.add_done_callback(lambda _: self._under_way.pop(resident, None))

    def restore(self, evicted: Sequence[Resident]) -> None:
        """Load again, once, those who had to leave for a load that came to nothing."""
        for victim in evicted:
            try:
                again = self._begin(victim)
            except (LemonadeError, OSError) as error:
                log.warning("%s cannot be loaded again: %s", victim.served_name, error)
                continue
            if again is not None:
                why = "since what replaced it failed"
                log.info("%s: loading it again, %s", victim.served_name, why)

    def call_off(self, wanted: Callable[[Resident], bool]) -> bool:
        """Do not load those again of whom `wanted` is true; whether there was one."""
        chosen = [resident for resident in self._under_way if wanted(resident)]
        for resident in chosen:
            self._under_way.pop(resident).cancel()
        return bool(chosen)

    async def _revive(self, crashed: Resident) -> None:
        latest, rest = crashed, self._wait(crashed.fingerprint)
        while True:
            if rest > 0:
                log.info("%s: loading it again in %.0f s", crashed.served_name, rest)
                await self._pause(rest)
            try:
                successor = self._begin(latest)
            except (KeepsFailing, DeviceQuarantined) as error:
                rest = max(_LEAST_REST, float(str(error.facts.get("retry_after", 0))))
                continue
            except (LemonadeError, OSError) as error:
                log.warning("%s cannot be loaded again: %s", crashed.served_name, error)
                return
            if successor is None:
                return
            await successor.settled.wait()
            if not isinstance(successor.error, ChildError):
                return
            latest, rest = successor, self._wait(successor.fingerprint)
