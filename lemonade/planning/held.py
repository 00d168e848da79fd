"""What of a GPU's memory is taken already: by other models that stay while a new one starts.

Drivers name a device in their own ways; where that could mean several GPUs it counts for each,
since too small an estimate fails a start and too large a one only shortens a context.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from lemonade.core.process import DeviceHold
from lemonade.hardware.facts import Gpu, Machine

_MAKERS: Final = {"nvidia": "nvidia", "kfd": "amd"}
"""Who makes the GPUs that are named `nvidia:0` and `kfd:51230`."""

_COUNTED: Final = frozenset({"nvidia"})
"""Those of whom the number is the GPU's place among its maker's."""


def held_on(gpu: Gpu, held: Collection[DeviceHold], machine: Machine) -> int:
    """Bytes of a GPU's memory that others hold."""
    return sum(one.bytes for one in held if is_on(gpu, one.device, machine))


def free_on(gpu: Gpu, held: Collection[DeviceHold], machine: Machine) -> int:
    """Bytes that are left of what one model could have of it."""
    return max(0, gpu.pool_bytes - held_on(gpu, held, machine))


def is_on(gpu: Gpu, device: str, machine: Machine) -> bool:
    """Whether a driver may mean that GPU by that name."""
    known = {one.pci_address.lower() for one in machine.gpus if one.pci_address}
    if device.lower() in known:
        return device.lower() == gpu.pci_address.lower()
    maker, _, number = device.partition(":")
    if maker not in _MAKERS:
        # A PCI address of no GPU we know is another device; a driver's name may be any of them.
        return ":" not in device and not gpu.pci_address
    alike = [one for one in machine.gpus if one.vendor == _MAKERS[maker]]
    if maker in _COUNTED and number.isdecimal() and int(number) < len(alike):
        return alike[int(number)] is gpu
    return gpu in alike
