"""Devices on the PCI bus as sysfs lists them, and names from `pci.ids` where that is installed.

What stands on the bus is there whether a driver is loaded or not: this tells "no such device" from
"the device cannot be used".
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from lemonade.core.records import dataclass
from lemonade.hardware.files import number

_NAMES: Final = ("usr/share/misc/pci.ids", "usr/share/hwdata/pci.ids")


@dataclass(frozen=True, slots=True)
class PciDevice:
    """One function of one device.

    Attributes:
        address: `0000:03:00.0`.
        kind: class, subclass and interface: `0x118000`.
        driver: the bound driver's name, or empty.
        path: its folder in sysfs.
    """

    address: str
    vendor: int
    device: int
    revision: int
    kind: int
    driver: str
    path: Path

    @property
    def is_display(self) -> bool:
        """Whether it is a display controller or a compute accelerator."""
        return self.kind >> 16 in (0x03, 0x12)


def pci_devices(root: Path, vendor: int) -> Iterator[PciDevice]:
    """The vendor's devices, in the order of their addresses."""
    folder = root / "sys/bus/pci/devices"
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if number(path / "vendor") != vendor:
            continue
        driver = path / "driver"
        yield PciDevice(
            address=path.name,
            vendor=vendor,
            device=number(path / "device"),
            revision=number(path / "revision"),
            kind=number(path / "class"),
            driver=driver.resolve().name if driver.is_symlink() else "",
            path=path,
        )


def pci_name(root: Path, device: PciDevice) -> str:
    """What the device is called, or empty."""
    for place in _NAMES:
        try:
            lines = (root / place).read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            continue
        ours = False
        for line in lines:
            if not line or line.startswith(("#", "\t\t")):
                continue
            if not line.startswith("\t"):
                ours = line.startswith(f"{device.vendor:04x} ")
            elif ours and line.startswith(f"\t{device.device:04x}"):
                return line[5:].strip()
    return ""
