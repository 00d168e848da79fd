"""Devices whose memory did not come back when a model left them, and who may use them still.

A driver that hangs, or a process that even SIGKILL does not end, keeps memory that nobody can use:
a load that counted on it would fail late and with a message of its own. Until the memory is back
such a device is not planned with. Nothing here looks at the machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from lemonade.catalog.backend import BackendSpec
from lemonade.core.process import DeviceHold
from lemonade.core.records import dataclass
from lemonade.core.units import render_size
from lemonade.hardware.facts import QUARANTINED, Evidence, Gpu, Machine, Problem
from lemonade.planning.environment import can_hide
from lemonade.planning.held import is_on
from lemonade.planning.matrix import Device, best_device

LEAST_BYTES: Final = 64 << 20
"""What may stay without anybody noticing: a driver keeps a little for each process it knew."""

_MOST_NAMED: Final = 4


@dataclass(frozen=True, slots=True)
class Remainder:
    """Memory of a device that an engine held and that is still taken.

    Attributes:
        model: whose engine it was.
        hold: who holds it, and how much.
    """

    model: str
    hold: DeviceHold


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A device that is not planned with, and what is taken of it. There is at least one."""

    device: Device
    left: tuple[Remainder, ...]

    @property
    def bytes(self) -> int:
        """What is taken, all together."""
        return sum(one.hold.bytes for one in self.left)

    @property
    def reason(self) -> str:
        """A sentence."""
        models = " and ".join(dict.fromkeys(one.model for one in self.left))
        holders = list(dict.fromkeys(_holder(one.hold) for one in self.left))
        more = ", ..." if len(holders) > _MOST_NAMED else ""
        return (
            f"{render_size(self.bytes)} of {self.device.name} did not come back when {models} was "
            f"unloaded; held by {', '.join(holders[:_MOST_NAMED])}{more}."
        )

    @property
    def fix(self) -> str:
        """What can be done, as sentences."""
        return (
            "It is used again as soon as its memory is back; `lemonade load MODEL --force` uses "
            "it at once. If it does not come back, reset the device or start the machine anew."
        )


def quarantined_devices(machine: Machine, left: Sequence[Remainder]) -> tuple[Quarantined, ...]:
    """Which devices that is, in the machine's order."""
    found = []
    devices: tuple[Device, ...] = (*machine.gpus, *machine.npus)
    for device in devices:
        here = tuple(one for one in left if _lies_on(device, one.hold.device, machine))
        if here and sum(one.hold.bytes for one in here) >= LEAST_BYTES:
            found.append(Quarantined(device, here))
    return tuple(found)


def without(machine: Machine, quarantined: Sequence[Quarantined]) -> Machine:
    """The machine as loads are planned with it: those devices have a problem."""
    why = {one.device: one for one in quarantined}
    if not why:
        return machine

    def problem(device: Device) -> Problem | None:
        one = why.get(device)
        if one is None:
            return device.problem
        seen = Evidence(
            one.left[0].hold.device, f"{one.bytes} bytes held by pid {one.left[0].hold.pid}"
        )
        return Problem(QUARANTINED, one.reason, seen, one.fix)

    return replace(
        machine,
        gpus=tuple(replace(gpu, problem=problem(gpu)) for gpu in machine.gpus),
        npus=tuple(replace(npu, problem=problem(npu)) for npu in machine.npus),
    )


def in_the_way(
    backend: BackendSpec, machine: Machine, quarantined: Sequence[Quarantined]
) -> Quarantined | None:
    """The device that keeps the backend from being started; `None` if it can be.

    It can where it computes on another device, or where there is another of the same family and
    the backend can be kept to that. An engine for another family would be another engine, and the
    processor is no substitute that anybody has asked for.

    Args:
        backend: the one that was chosen.
        machine: as it is.
        quarantined: devices of it.
    """
    if not quarantined or backend.devices == ("cpu",):
        return None
    bad = {one.device: one for one in quarantined}
    best = best_device(backend.runs_on, machine)
    if best is None:  # it takes any GPU that it finds
        gpus = [gpu for gpu in machine.gpus if gpu.problem is None]
        taken = "gpu" in backend.devices and bool(gpus) and all(gpu in bad for gpu in gpus)
        return quarantined[0] if taken else None
    other = best_device(backend.runs_on, without(machine, quarantined))
    if best not in bad:
        return None
    avoidable = isinstance(other, Gpu) and other.family == best.family and can_hide(backend)
    return None if avoidable else bad[best]


def _lies_on(device: Device, name: str, machine: Machine) -> bool:
    if isinstance(device, Gpu):
        return is_on(device, name, machine)
    return bool(device.pci_address) and device.pci_address.lower() == name.lower()


def _holder(hold: DeviceHold) -> str:
    what = hold.program.rpartition("/")[2]
    state = "" if hold.start_ticks else "dead"
    words = ", ".join(word for word in (what, state) if word)
    return f"pid {hold.pid} ({words})" if words else f"pid {hold.pid}"
