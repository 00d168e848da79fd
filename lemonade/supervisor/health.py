"""Asking a child how it is, and telling only when the answer has changed.

The probe is a callable that the supervisor was given; nothing here knows what it asks. A first
yes is believed only if the child's port is not held by somebody else, and so is one in a dozen
later.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import field
from typing import Final

from lemonade.core.errors import LemonadeError
from lemonade.core.process import LOST_ITS_CORE, ProbeSpec, SaysItIsDeadError
from lemonade.core.records import dataclass
from lemonade.supervisor.states import Signal

log = logging.getLogger(__name__)

Probe = Callable[[], Awaitable[bool]]
"""Asks the child whether it may be used. An `OSError`, a `LemonadeError` and silence mean no."""


_DEAD: Final = "it says that the process that computes has ended"

_PROOF_LASTS: Final = 12
"""Probes after which it is proven again who answers."""


@dataclass(frozen=True, slots=True)
class HealthWatch:
    """The questions put to one child.

    Attributes:
        policy: how often, how long, and how many failures count.
        probe: the question.
        is_stranger: whether the one who answers is not the child.
        watch_interval: least seconds between two questions to a child that has answered.
        found_dead: told why the child is of no use, and the word for it, when it has said, twice,
            that what computes in it has ended.
        hurry: set by whoever has reason to doubt; the next question is asked at once.
    """

    policy: ProbeSpec
    probe: Probe
    is_stranger: Callable[[], Awaitable[bool]]
    watch_interval: float
    found_dead: Callable[[str, str], None] = lambda _why, _word: None
    hurry: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, tell: Callable[[Signal], None]) -> None:
        """Ask until cancelled; `tell` hears of the first yes, of a loss and of a recovery."""
        well = False
        proven = 0
        pause = self.policy.interval
        failures = deaths = 0
        while True:
            answers = await self._answers()
            deaths = deaths + 1 if answers is None else 0
            if well and deaths:
                if deaths > 1:
                    self.found_dead(_DEAD, LOST_ITS_CORE)
                    return
                await asyncio.sleep(self.policy.interval)
                continue
            proven = proven - 1 if well else 0
            if answers and (proven > 0 or not await self.is_stranger()):
                failures = 0
                proven = proven if proven > 0 else _PROOF_LASTS
                if not well:
                    well = True
                    pause = max(pause, self.watch_interval)
                    tell(Signal.PROBE_PASSED)
            else:
                failures += 1
                if well and failures >= self.policy.patience:
                    well = False
                    tell(Signal.PROBE_FAILED)
            await self._pause(pause)

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.hurry.wait()
        self.hurry.clear()

    async def _answers(self) -> bool | None:
        """Whether it may be used; `None` if it says itself that it is dead."""
        try:
            async with asyncio.timeout(self.policy.timeout):
                return await self.probe()
        except SaysItIsDeadError:
            return None
        except (OSError, LemonadeError):  # a TimeoutError is an OSError
            return False
