"""Asking a child how it is, and telling only when the answer has changed.

The probe is a callable that the supervisor was given; nothing here knows what it asks. A first
yes is believed only if the child's port is not held by somebody else.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from lemonade.core.errors import LemonadeError
from lemonade.core.process import ProbeSpec
from lemonade.supervisor.states import Signal

log = logging.getLogger(__name__)

Probe = Callable[[], Awaitable[bool]]
"""Asks the child whether it may be used. An `OSError`, a `LemonadeError` and silence mean no."""


@dataclass(frozen=True, slots=True)
class HealthWatch:
    """The questions put to one child.

    Attributes:
        policy: how often, how long, and how many failures count.
        probe: the question.
        is_stranger: whether the one who answers is not the child.
        watch_interval: least seconds between two questions to a child that has answered.
    """

    policy: ProbeSpec
    probe: Probe
    is_stranger: Callable[[], Awaitable[bool]]
    watch_interval: float

    async def run(self, tell: Callable[[Signal], None]) -> None:
        """Ask until cancelled; `tell` hears of the first yes, of a loss and of a recovery."""
        well = False
        pause = self.policy.interval
        failures = 0
        while True:
            if await self._answers() and (well or not await self.is_stranger()):
                failures = 0
                if not well:
                    well = True
                    pause = max(pause, self.watch_interval)
                    tell(Signal.PROBE_PASSED)
            else:
                failures += 1
                if well and failures >= self.policy.patience:
                    well = False
                    tell(Signal.PROBE_FAILED)
            await asyncio.sleep(pause)

    async def _answers(self) -> bool:
        try:
            async with asyncio.timeout(self.policy.timeout):
                return await self.probe()
        except (OSError, LemonadeError):  # a TimeoutError is an OSError
            return False
