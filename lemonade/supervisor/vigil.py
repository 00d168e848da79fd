"""Whether a start shows work, and how far it is.

A large engine takes as long as it takes: nobody can name the seconds after which a start has
failed. What can be seen is whether anything happens: the child prints, computes, reads, writes,
grows, on a device too. As long as one of these goes on, it is left alone; when none does for a
while, it hangs. How far it is
follows from what it prints, by patterns that somebody else gave.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import deque
from collections.abc import Callable
from dataclasses import field
from typing import Final, Protocol

from lemonade.core.process import DeviceHold, Milestone, ProbeSpec, StartStep
from lemonade.core.records import dataclass
from lemonade.supervisor.processes import Effort

_LOOK_INTERVAL: Final = 1.0
"""Most seconds between two looks; fewer where less patience was asked for."""

_LOOKS: Final = 8
"""Least number of looks before patience is at its end."""

_BUSY_SHARE: Final = 0.05
"""Share of a core that counts as computing. What an engine spends on answering our own probes is
well below: llama-server takes 0.1 % for twenty of them a second."""

AT_WORK: Final = 0.5
"""Share of a core that an engine takes which computes an answer. One whose processes wait for one
that will never answer may take a tenth, in looking whether it has."""

_GROWTH_BYTES: Final = 1 << 20
_LINE_CHARACTERS: Final = 500

_STEPS_KEPT: Final = 32
"""How many steps somebody is told of who asks when the start has begun."""


class Watched(Protocol):
    """What is seen of the processes of a child. Both may raise `OSError`: nothing is seen then."""

    async def effort(self) -> Effort:
        """What all of them have done so far."""
        ...

    async def of_devices(self) -> tuple[DeviceHold, ...]:
        """What all of them hold of devices' memory now."""
        ...


@dataclass(slots=True)
class Vigil:
    """Watches one start, or an engine that somebody waits for.

    Attributes:
        policy: how long a start may show nothing.
        watched: its processes.
        printed: how many bytes it has printed so far.
        busy_share: share of a core that counts as computing.
        last_sign: monotonic time of the last sign of work.
    """

    policy: ProbeSpec
    watched: Watched
    printed: Callable[[], int]
    busy_share: float = _BUSY_SHARE
    last_sign: float = field(default_factory=time.monotonic)
    _blind: bool = False

    async def watch(self) -> None:
        """Return when nothing has happened for the time allowed; never, if that is unlimited."""
        patience = self.policy.stall_timeout
        if patience <= 0:
            await asyncio.Event().wait()
        interval = min(_LOOK_INTERVAL, patience / _LOOKS)
        effort, heard, most = await self._seen(Effort()), self.printed(), 0
        held = await self._held()
        then = now = self.last_sign = time.monotonic()
        while now - self.last_sign < patience:  # by the clock of looks: they may take their time
            await asyncio.sleep(interval)
            before, effort = effort, await self._seen(effort)
            now = time.monotonic()
            works = (
                self._blind
                or self.printed() != heard
                or effort.cpu_seconds - before.cpu_seconds > self.busy_share * (now - then)
                or effort.read_bytes > before.read_bytes
                or effort.written_bytes > before.written_bytes
                or effort.resident_bytes > most + _GROWTH_BYTES
            )
            heard, then = self.printed(), now
            most = max(most, effort.resident_bytes)
            if not works:  # only then: drivers take their time to tell
                now_held = await self._held()
                works, held = now_held > held + _GROWTH_BYTES, max(held, now_held)
            if works:
                self.last_sign = now

    async def _seen(self, before: Effort) -> Effort:
        """A look; while we cannot have one, the child is not to blame."""
        try:
            effort = await self.watched.effort()
        except OSError:
            self._blind = True
            return before
        self._blind = False
        return effort

    async def _held(self) -> int:
        """Bytes of devices' memory; 0 where nobody tells."""
        try:
            return sum(one.bytes for one in await self.watched.of_devices())
        except OSError:
            return 0


class Steps:
    """Follows a child's output to what it is doing.

    `tell` hears of every step that differs from the one before.

    Attributes:
        current: where it is.
        past: the last steps, the current one included, for whoever asks later.
    """

    def __init__(
        self, milestones: tuple[Milestone, ...], tell: Callable[[StartStep], None]
    ) -> None:
        self._patterns = [(one.phase, re.compile(one.pattern)) for one in milestones]
        self._tell = tell
        self.current = StartStep()
        self.past: deque[StartStep] = deque(maxlen=_STEPS_KEPT)

    def heed(self, line: str) -> None:
        """Take a line, or the version of one that is being rewritten."""
        text = line[:_LINE_CHARACTERS]
        for phase, pattern in self._patterns:
            if (match := pattern.search(text)) is not None:
                step = StartStep(phase, _percent(match))
                if step != self.current:
                    self.current = step
                    self.past.append(step)
                    self._tell(step)
                return


def _percent(match: re.Match[str]) -> int | None:
    """From the groups `percent`, or `done` and `total`, of a pattern that has them."""
    found = match.groupdict()
    try:
        if found.get("percent"):
            return min(100, int(float(found["percent"])))
        if found.get("done") and found.get("total"):
            return min(100, 100 * int(found["done"]) // int(found["total"]))
    except (ValueError, ZeroDivisionError):
        return None
    return None
