"""Devices whose memory an engine has left taken: noticed when it ends, looked at until it is back.

What follows from it is decided in `planning.quarantine`. This remembers what was left, asks the
drivers again every other second as long as there is anything, and says on the bus what it finds.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Final

from lemonade.catalog import BackendSpec
from lemonade.core.bus import Bus
from lemonade.core.errors import DeviceQuarantined
from lemonade.core.events import QuarantineBegan, QuarantineEnded
from lemonade.core.process import DeviceHold, ExitReport
from lemonade.hardware import Machine
from lemonade.jobs import TaskOwner, outliving
from lemonade.planning import (
    Quarantined,
    Remainder,
    in_the_way,
    quarantined_devices,
    without,
)
from lemonade.supervisor import Identity, identity_of

log = logging.getLogger(__name__)

LOOK_EVERY: Final = 2.0
"""Seconds between two looks at memory that is still taken."""

DeviceLook = Callable[[Collection[int]], tuple[DeviceHold, ...]]


class Quarantine(TaskOwner):
    """Of one machine. Made by the composition root; told by the pool how engines end.

    Its state is changed on the event loop only; looks are made in a thread.
    """

    def __init__(
        self,
        machine: Machine,
        bus: Bus,
        devices: DeviceLook,
        *,
        who: Callable[[int], Identity | None] = identity_of,
        look_every: float = LOOK_EVERY,
    ) -> None:
        """Nothing is quarantined yet.

        Args:
            machine: whose devices these are.
            bus: told what begins and ends.
            devices: what processes hold, dead ones included. May block.
            who: has a number now. May block.
            look_every: seconds between two looks.
        """
        super().__init__()
        self._machine = machine
        self._bus = bus
        self._ask = devices
        self._who = who
        self._look_every = look_every
        self._left: tuple[Remainder, ...] = ()
        self._devices: tuple[Quarantined, ...] = ()
        self._watching: asyncio.Task[None] | None = None

    @property
    def devices(self) -> tuple[Quarantined, ...]:
        """Those that are not used now."""
        return self._devices

    @property
    def machine(self) -> Machine:
        """The machine as loads are planned with it."""
        return without(self._machine, self._devices)

    def left_behind(self, model: str, report: ExitReport) -> None:
        """An engine has ended; what drivers have not taken back is remembered."""
        if not report.still_held:
            return
        self._settle((*self._left, *(Remainder(model, one) for one in report.still_held)))
        if self._watching is None or self._watching.done():
            name = "the watch over quarantined devices"
            self._watching = self._tasks.create_task(outliving(self._watch, name), name=name)

    def check(self, backend: BackendSpec, name: str) -> None:
        """Refuse to start what needs such a device.

        Raises:
            DeviceQuarantined: with what holds it, and what can be done.
        """
        one = in_the_way(backend, self._machine, self._devices)
        if one is not None:
            raise DeviceQuarantined(
                f"{name} is not started: {one.reason}",
                remedy=one.fix.replace("lemonade load MODEL", f"lemonade load {name}"),
                facts=describe_quarantined(one),
            )

    def lift(self) -> None:
        """Somebody insists: use everything again."""
        self._settle((), "somebody wants to use it nevertheless")

    async def look(self) -> None:
        """Ask the drivers again."""
        seen = self._left
        still = await asyncio.to_thread(self._remaining, seen)
        # What has been added or lifted meanwhile is not ours to change.
        kept = tuple(still[one] for one in self._left if one in still) + tuple(
            one for one in self._left if one not in seen
        )
        self._settle(kept)

    def _remaining(self, left: tuple[Remainder, ...]) -> dict[Remainder, Remainder]:
        """What is left of each, where anything is. Blocks."""
        found = {}
        held = self._ask({one.hold.pid for one in left})
        for one in left:
            now = self._who(one.hold.pid)
            if now is not None and now.start_ticks != one.hold.start_ticks:
                continue  # its number has come to mean somebody else
            size = sum(
                hold.bytes
                for hold in held
                if (hold.pid, hold.device) == (one.hold.pid, one.hold.device)
            )
            if size:
                ticks = now.start_ticks if now is not None else 0
                found[one] = replace(one, hold=replace(one.hold, bytes=size, start_ticks=ticks))
        return found

    def _settle(self, left: tuple[Remainder, ...], why: str = "its memory is back") -> None:
        before, self._left = self._devices, left
        self._devices = quarantined_devices(self._machine, left)
        known = {one.device for one in before}
        for one in self._devices:
            if one.device not in known:
                log.warning("%s is not used for now: %s", one.device.name, one.reason)
                self._bus.publish(QuarantineBegan(one.device.name, one.bytes, one.reason))
        now = {one.device for one in self._devices}
        for one in before:
            if one.device not in now:
                log.info("%s is used again: %s.", one.device.name, why)
                self._bus.publish(QuarantineEnded(one.device.name, why))

    async def _watch(self) -> None:
        while self._left:
            await asyncio.sleep(self._look_every)
            await self.look()

    async def _end_all(self) -> None:
        if self._watching is not None:
            self._watching.cancel()


def describe_quarantined(one: Quarantined) -> dict[str, object]:
    """For answers and errors."""
    return {
        "device": one.device.name,
        "address": one.device.pci_address,
        "bytes": one.bytes,
        "held_by": [
            {
                "pid": left.hold.pid,
                "program": left.hold.program.rpartition("/")[2],
                "alive": left.hold.start_ticks > 0,
                "bytes": left.hold.bytes,
                "model_name": left.model,
            }
            for left in one.left
        ],
        "reason": one.reason,
        "remedy": one.fix,
    }
