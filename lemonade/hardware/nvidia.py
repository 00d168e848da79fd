"""NVIDIA GPUs, as far as files tell: the driver's own list in /proc, and the PCI bus without it.

Memory sizes and the compute capability are not in these files, so `family` is empty: a backend
that asks for one is not offered yet.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from lemonade.hardware.facts import Gpu
from lemonade.hardware.pci import pci_devices, pci_name

NVIDIA: Final = 0x10DE

_VERSION: Final = re.compile(r"Kernel Module(?: for \S+)?\s+(\d+(?:\.\d+)+)")


def find_nvidia_gpus(root: Path) -> tuple[Gpu, ...]:
    """Every NVIDIA GPU; one without its driver has its `problem`.

    Raises:
        OSError: the driver's list is there but cannot be read.
    """
    folder = root / "proc/driver/nvidia/gpus"
    version = _driver_version(root)
    driven = {}
    for gpu in sorted(folder.iterdir()) if folder.is_dir() else ():
        driven[gpu.name.lower()] = Gpu(
            vendor="nvidia",
            name=_model((gpu / "information").read_text(errors="replace")),
            family="",
            integrated=False,
            driver_version=version,
        )
    others = [
        Gpu(
            vendor="nvidia",
            name=pci_name(root, device) or f"NVIDIA GPU {device.device:04x}",
            family="",
            integrated=False,
            problem=f"The driver {device.driver} is bound to it, not nvidia."
            if device.driver
            else "NVIDIA's driver is not loaded.",
        )
        for device in pci_devices(root, NVIDIA)
        if device.is_display and device.address not in driven
    ]
    return (*driven.values(), *others)


def _model(information: str) -> str:
    for line in information.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "Model":
            return value.strip()
    return "NVIDIA GPU"


def _driver_version(root: Path) -> str:
    try:
        match = _VERSION.search((root / "proc/driver/nvidia/version").read_text(errors="replace"))
    except OSError:
        return ""
    return match[1] if match else ""
