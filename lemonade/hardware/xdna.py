"""AMD's neural processors (XDNA): first the PCI bus, then the driver, then access to the device.

In that order, so that a machine with the device and without the driver is told so. Source of the
ids: the kernel's `drivers/accel/amdxdna/amdxdna_pci_drv.c`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from lemonade.hardware.access import MayOpen, access_problem
from lemonade.hardware.facts import Evidence, Npu, Problem
from lemonade.hardware.files import shown, text
from lemonade.hardware.instruments import Instruments
from lemonade.hardware.pci import PciDevice, pci_devices

AMD_PROCESSORS: Final = 0x1022
DRIVER: Final = "amdxdna"
_KIND: Final = 0x118000  # signal processing controller
_FAMILIES: Final = {0x1502: "XDNA", 0x17F0: "XDNA2"}


def find_xdna_npus(root: Path, instruments: Instruments) -> tuple[Npu, ...]:
    """Every XDNA device; one that cannot be used has its `problem`."""
    return tuple(
        _npu(root, device, instruments.may_open)
        for device in pci_devices(root, AMD_PROCESSORS)
        if device.kind == _KIND and device.device in _FAMILIES
    )


def _npu(root: Path, device: PciDevice, allowed: MayOpen) -> Npu:
    family = _FAMILIES[device.device]
    names = sorted(path.name for path in (device.path / "accel").glob("accel*"))
    node = f"/dev/accel/{names[0]}" if names else ""
    return Npu(
        name=text(device.path / "vbnv") or f"AMD {family} NPU",
        family=family,
        pci_address=device.address,
        device_node=node,
        firmware=text(device.path / "fw_version"),
        seen=Evidence(shown(root, device.path / "device"), f"{device.device:#06x}"),
        problem=_driver_problem(root, device, node) or access_problem(root, node, allowed, DRIVER),
    )


def _driver_problem(root: Path, device: PciDevice, node: str) -> Problem | None:
    link = shown(root, device.path / "driver")
    if not device.driver:
        return Problem(
            "driver-missing",
            f"The driver {DRIVER} is not loaded.",
            Evidence(link, "No such file or directory"),
            f"`sudo modprobe {DRIVER}`: Linux has it since 6.14; for an older kernel there is "
            "the package of AMD's XDNA driver.",
        )
    if device.driver != DRIVER:
        return Problem(
            "driver-other",
            f"The driver {device.driver} is bound to it, not {DRIVER}.",
            Evidence(link, device.driver),
            f"Remove what binds {device.driver} at start (kernel arguments, /etc/modprobe.d), "
            "and restart.",
        )
    if not node:
        return Problem(
            "no-compute",
            f"The driver {DRIVER} has not made a device for it.",
            Evidence(shown(root, device.path / "accel"), "No such file or directory"),
            f"`sudo dmesg | grep {DRIVER}` says why; mostly the NPU's firmware is missing: "
            "update the package linux-firmware, and restart.",
        )
    return None
