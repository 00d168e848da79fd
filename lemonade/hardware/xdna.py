"""AMD's neural processors (XDNA): first the PCI bus, then the driver, then access to the device.

In that order, so that a machine with the device and without the driver is told so. Source of the
ids: the kernel's `drivers/accel/amdxdna/amdxdna_pci_drv.c`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from lemonade.hardware.facts import Npu
from lemonade.hardware.pci import PciDevice, pci_devices

AMD_PROCESSORS: Final = 0x1022
_KIND: Final = 0x118000  # signal processing controller
_FAMILIES: Final = {0x1502: "XDNA", 0x17F0: "XDNA2"}


def find_xdna_npus(root: Path) -> tuple[Npu, ...]:
    """Every XDNA device; one that cannot be used has its `problem`."""
    return tuple(
        Npu(
            name=_name(device) or f"AMD {_FAMILIES[device.device]} NPU",
            family=_FAMILIES[device.device],
            problem=_problem(root, device),
        )
        for device in pci_devices(root, AMD_PROCESSORS)
        if device.kind == _KIND and device.device in _FAMILIES
    )


def _name(device: PciDevice) -> str:
    try:
        return (device.path / "vbnv").read_text(errors="replace").strip()
    except OSError:
        return ""


def _problem(root: Path, device: PciDevice) -> str:
    if device.driver != "amdxdna":
        return "The driver amdxdna is not loaded; it needs Linux 6.14 or newer."
    names = [path.name for path in (device.path / "accel").glob("accel*")]
    if not names:
        return "The driver amdxdna has not made a device for it."
    path = root / "dev/accel" / names[0]
    if not path.exists():
        return f"/dev/accel/{names[0]} is missing; a container must be given it."
    if not os.access(path, os.R_OK | os.W_OK):
        return f"/dev/accel/{names[0]} may not be opened by this user; join its group (render)."
    return ""
