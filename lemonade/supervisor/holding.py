"""What a family holds: seen while it lives, and waited for when it is dead.

Main memory comes back with a process. A device's memory may come back later, when its driver has
cleaned up: until then the device is not free, whatever the list of processes says.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Final

from lemonade.core.process import DeviceHold, ExitReport
from lemonade.supervisor.beside import Beside
from lemonade.supervisor.kin import Family
from lemonade.supervisor.processes import (
    Effort,
    ProcessFacts,
    effort_of,
    identity_of,
    own_memory_of,
    shared_memory_of,
)

DeviceLook = Callable[[Collection[int]], tuple[DeviceHold, ...]]
"""What processes hold of devices' memory, dead ones included. May block."""

_FIRST_PAUSE: Final = 0.02
_LONGEST_PAUSE: Final = 0.2
_LOOKED_THROUGH_BYTES: Final = 16 << 30
"""Of more it would take too long to find out which pages are shared."""


def no_devices(_pids: Collection[int]) -> tuple[DeviceHold, ...]:
    """Where nobody tells."""
    return ()


class Holdings:
    """Of one family. What blocks is asked in the thread that knows families (`Beside.proc`).

    Attributes:
        resident_bytes: main memory at the last look while its leader lived.
        device_bytes: memory of devices, likewise.
        left_bytes: main memory that did not come back with the processes: files in memory.
        still_held: memory of devices that drivers had not taken back in time.
    """

    def __init__(self, family: Family, devices: DeviceLook, beside: Beside) -> None:
        self._family = family
        self._devices = devices
        self._beside = beside
        self.resident_bytes = 0
        self.device_bytes = 0
        self.left_bytes = 0
        self.still_held: tuple[DeviceHold, ...] = ()

    def note(self, newcomers: Sequence[ProcessFacts], *, lives: bool) -> bool:
        """Look for kin among newcomers, and at what all hold; whether any has ended. Blocks.

        Args:
            newcomers: processes not looked at before.
            lives: whether the leader does; what is seen after its end does not count.
        """
        lost = self._family.note(newcomers)
        if lives:
            self.look(at_devices=False)
        return lost

    def survey(self, *, lives: bool) -> None:
        """Look at all processes for kin, and at what they hold, devices included. Blocks."""
        self._family.living()
        if lives:
            self.look(at_devices=True, exactly=True)

    def look(self, *, at_devices: bool, exactly: bool = False) -> None:
        """See what all of them hold now. Blocks.

        Args:
            at_devices: ask drivers as well.
            exactly: count what several of them share once, though that takes longer.
        """
        members = self.members()
        if not own_memory_of(members[:1]):
            return  # it has ended just now
        held = own_memory_of(members)
        if exactly and len(members) > 1 and held <= _LOOKED_THROUGH_BYTES:
            held = min(held, shared_memory_of(members) or held)
        self.resident_bytes = self._counted() or held
        if at_devices:
            self.device_bytes = sum(one.bytes for one in self._devices(members))

    async def effort(self) -> Effort:
        """What all of them have done so far."""
        return await self._beside.proc(lambda: effort_of(self.members()))

    async def of_devices(self) -> tuple[DeviceHold, ...]:
        """What all of them hold of devices' memory now."""
        return await self._beside.proc(lambda: self._devices(self.members()))

    def members(self) -> list[int]:
        """The leader and the descendants that are known."""
        return [self._family.leader.pid, *(one.identity.pid for one in self._family.descendants())]

    async def given_back(self, survivors: Sequence[int], *, within: float) -> None:
        """Wait for drivers to take back what was held, not longer than `within` seconds.

        Args:
            survivors: processes that do not end; what they hold is held.
            within: seconds.

        Raises:
            OSError: nothing can be looked at.
        """
        loop = asyncio.get_running_loop()
        limit = loop.time() + within
        pause = _FIRST_PAUSE
        while held := await self._beside.proc(self._still_held_by, survivors):
            if loop.time() >= limit:
                break
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
        self.still_held = held

    def told_in(self, report: ExitReport) -> ExitReport:
        """The report with what was held, and what still is."""
        return replace(
            report,
            resident_bytes=self.resident_bytes,
            left_bytes=self.left_bytes,
            device_bytes=self.device_bytes,
            still_held=self.still_held,
            survivor_programs=tuple(map(self._family.program_of, report.survivors)),
        )

    def remove_leaf(self) -> None:
        """Remove its cgroup, if it had one, after a look at what it leaves in memory. Blocks."""
        if self._family.leaf is not None:
            self.left_bytes = self._family.leaf.left_bytes()
            self._family.leaf.remove()

    def _counted(self) -> int | None:
        return self._family.leaf.held_bytes() if self._family.leaf is not None else None

    def _still_held_by(self, survivors: Sequence[int]) -> tuple[DeviceHold, ...]:
        held = self._devices((*self._family.departed(), *survivors))
        return tuple(self._described(one) for one in held)

    def _described(self, hold: DeviceHold) -> DeviceHold:
        alive = identity_of(hold.pid)
        return replace(
            hold,
            program=self._family.program_of(hold.pid),
            start_ticks=alive.start_ticks if alive is not None else 0,
        )
