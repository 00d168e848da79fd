"""Keeps the machine awake while models work, and notices when it has slept all the same.

That it slept is seen by two clocks: one that counts sleep and one that does not. All our waiting
is by the latter, so that no engine is taken for one that hangs because the machine slept. After it
every engine is asked for its health at once: a device may not have come back.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Iterable
from typing import Final, Protocol, Self

from lemonade.core.bus import Bus
from lemonade.core.events import MachineResumed, SleepInhibited
from lemonade.jobs import TaskOwner, outliving
from lemonade.residency.resident import Phase, Resident

log = logging.getLogger(__name__)

LINGER: Final = 30.0
"""Seconds the lock is held after the last work: it is not taken anew for each request."""

LOOK_EVERY: Final = 2.0
LOOK_EVERY_IDLE: Final = 10.0
"""Seconds between two looks, with and without an engine."""

LEAST_SLEEP: Final = 1.0
"""Seconds; what is shorter is the time between two readings of clocks."""

Clock = Callable[[], float]


class Lock(Protocol):
    """Keeps the machine awake while it is held."""

    @property
    def held(self) -> bool:
        """Whether it is."""
        ...

    async def take(self) -> None:
        """Hold it, if that can be; idempotent."""
        ...

    async def let_go(self) -> None:
        """Hold it no more; idempotent."""
        ...


class SleepMeter:
    """How long the machine slept, told from two clocks at each look."""

    def __init__(self, counting: float, not_counting: float) -> None:
        """The readings of the clock that counts sleep, and of the one that does not."""
        self._offset = counting - not_counting

    def slept(self, counting: float, not_counting: float) -> float:
        """Seconds slept since the last look; 0 if it was awake."""
        before, self._offset = self._offset, counting - not_counting
        gap = self._offset - before
        return gap if gap >= LEAST_SLEEP else 0.0


def counting_sleep() -> float:
    """Seconds, those of sleep included; where no clock tells, the same as the other."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.clock_gettime(clock) if clock is not None else time.monotonic()


def at_work(residents: Iterable[Resident]) -> bool:
    """Whether any of them is being loaded or used."""
    return any(one.leases or one.phase is Phase.LOADING for one in residents)


class Awake(TaskOwner):
    """Looks at both every few seconds. Made by the composition root, ended before the pool."""

    def __init__(
        self,
        *,
        bus: Bus,
        lock: Lock,
        residents: Callable[[], Collection[Resident]],
        wanted: Callable[[], bool],
        resumed: Callable[[], None],
        linger: float = LINGER,
        look_every: float = LOOK_EVERY,
        clocks: tuple[Clock, Clock] = (counting_sleep, time.monotonic),
    ) -> None:
        """Set up.

        Args:
            bus: told of both.
            lock: held while there is work.
            residents: everybody who may work.
            wanted: whether the machine is to be kept awake at all.
            resumed: called when the machine has slept.
            linger: see `LINGER`.
            look_every: seconds between two looks while there is an engine.
            clocks: one that counts sleep, and one that does not.
        """
        super().__init__()
        self._bus = bus
        self._lock = lock
        self._residents = residents
        self._wanted = wanted
        self._resumed = resumed
        self._linger = linger
        self._look_every = look_every
        self._counting, self._clock = clocks
        self._meter = SleepMeter(self._counting(), self._clock())
        self._worked_at = self._clock() - linger
        self._held = False
        self._ended = asyncio.Event()

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        self._tasks.create_task(outliving(self._watch, "keeping the machine awake"))
        return self

    async def _end_all(self) -> None:
        self._ended.set()

    async def look(self) -> None:
        """One look."""
        now = self._clock()
        slept = self._meter.slept(self._counting(), now)
        if slept:
            log.warning("The machine slept for %.0f s; every engine is looked at.", slept)
            self._bus.publish(MachineResumed(slept))
            self._resumed()
        if at_work(self._residents()):
            self._worked_at = now
        if self._wanted() and now - self._worked_at < self._linger:
            await self._lock.take()
        else:
            await self._lock.let_go()
        if self._lock.held is not self._held:
            self._held = self._lock.held
            self._bus.publish(SleepInhibited(self._held))

    def _pause(self) -> float:
        anybody = self._held or self._residents()
        return self._look_every if anybody else max(self._look_every, LOOK_EVERY_IDLE)

    async def _watch(self) -> None:
        try:
            while not self._ended.is_set():
                await self.look()
                try:
                    async with asyncio.timeout(self._pause()):
                        await self._ended.wait()
                except TimeoutError:
                    continue
        finally:
            await self._lock.let_go()
