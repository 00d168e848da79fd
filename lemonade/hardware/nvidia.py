"""NVIDIA GPUs: what is on the bus and has its driver, and then what the driver says of it.

Files come first. Without a device nobody is asked, so a machine without NVIDIA pays nothing;
without the driver nobody is asked either, since nobody could answer. What neither NVML nor
nvidia-smi tells is taken from the driver's list in /proc, which has no memory sizes and no compute
capability: `family` is empty then, and a backend that asks for one is refused with that reason.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from lemonade.hardware.facts import Evidence, Gpu, Problem
from lemonade.hardware.files import number, shown, text
from lemonade.hardware.instruments import Instruments
from lemonade.hardware.linux import meminfo
from lemonade.hardware.nvml import COMMAND, NvidiaRow, ask_nvml, first_answer, read_nvidia_smi
from lemonade.hardware.pci import PciDevice, pci_devices, pci_name

NVIDIA: Final = 0x10DE

ANSWER_SECONDS: Final = 10.0
"""A driver that nobody keeps awake starts its GPUs first, some seconds each."""

_CONTROL: Final = "/dev/nvidiactl"
_VERSION: Final = re.compile(r"Kernel Module(?: for \S+)?\s+(\d+(?:\.\d+)+)")


def find_nvidia_gpus(root: Path, instruments: Instruments) -> tuple[Gpu, ...]:
    """Every NVIDIA GPU; one that cannot be used has its `problem`.

    Raises:
        OSError: the driver's list is there but cannot be read.
    """
    on_bus = {d.address: d for d in pci_devices(root, NVIDIA) if d.is_display}
    folder = root / "proc/driver/nvidia/gpus"
    listed = {gpu.name.lower(): gpu for gpu in sorted(folder.iterdir())} if folder.is_dir() else {}
    if not on_bus and not listed:
        return ()
    rows = _ask(instruments) if listed else ()
    gpus = [_described(root, row) for row in rows]
    known = {gpu.pci_address for gpu in gpus}
    for address, path in listed.items():
        if address not in known:
            gpus.append(_listed(root, address, path, others_answer=bool(rows)))
    gpus += [
        _without_driver(root, device)
        for address, device in on_bus.items()
        if address not in known and address not in listed
    ]
    return tuple(gpus)


def _ask(instruments: Instruments) -> tuple[NvidiaRow, ...]:
    def library() -> tuple[NvidiaRow, ...] | None:
        nvml = instruments.nvml()
        return ask_nvml(nvml) if nvml else None

    def program() -> tuple[NvidiaRow, ...] | None:
        printed = instruments.run(COMMAND, ANSWER_SECONDS) if instruments.run else None
        return read_nvidia_smi(printed) if printed else None

    return first_answer(library, program)


def _described(root: Path, row: NvidiaRow) -> Gpu:
    return Gpu(
        vendor="nvidia",
        name=row.name or "NVIDIA GPU",
        family=f"sm_{row.capability.replace('.', '')}" if row.capability else "",
        # One that has no memory of its own to report uses the machine's, all of it.
        integrated=row.memory_bytes is None,
        vram_bytes=row.memory_bytes or 0,
        shared_bytes=meminfo(root)["MemTotal"] if row.memory_bytes is None else 0,
        pci_address=row.pci_address,
        uuid=row.uuid,
        driver_version=row.driver_version,
        seen=Evidence(row.source, f"compute capability {row.capability or 'not given'}"),
    )


def _listed(root: Path, address: str, path: Path, *, others_answer: bool) -> Gpu:
    """A GPU the driver has, and about which nobody has said more."""
    said = _information(path)
    control = root / _CONTROL.lstrip("/")
    problem = None
    if others_answer or not control.exists():
        problem = Problem(
            "device-missing",
            "NVIDIA's driver has it, but it is not offered to this process.",
            Evidence(COMMAND[0], f"no {address}")
            if others_answer
            else Evidence(_CONTROL, "No such file or directory"),
            "In a container: start it with `--gpus all` and NVIDIA's container toolkit. "
            "On the machine itself: `sudo nvidia-modprobe`, then `nvidia-smi`.",
        )
    return Gpu(
        vendor="nvidia",
        name=said.get("Model", "NVIDIA GPU"),
        family="",
        integrated=False,
        pci_address=address,
        uuid=said.get("GPU UUID", ""),
        driver_version=_driver_version(root),
        seen=Evidence(shown(root, path / "information"), "no compute capability"),
        problem=problem,
    )


def _without_driver(root: Path, device: PciDevice) -> Gpu:
    where = shown(root, device.path / "driver")
    if device.driver in {"", "nvidia"}:
        problem = Problem(
            "driver-missing",
            "NVIDIA's driver is not loaded.",
            Evidence("/proc/driver/nvidia/gpus", f"no {device.address}"),
            "Install your distribution's package of NVIDIA's driver, and restart; if it is "
            "installed, `sudo modprobe nvidia` says what is wrong.",
        )
    else:
        problem = Problem(
            "driver-other",
            f"The driver {device.driver} is bound to it, not nvidia.",
            Evidence(where, device.driver),
            "Install your distribution's package of NVIDIA's driver, which replaces "
            f"{device.driver}, and restart.",
        )
    return Gpu(
        vendor="nvidia",
        name=pci_name(root, device) or f"NVIDIA GPU {device.device:04x}",
        family="",
        integrated=False,
        pci_address=device.address,
        seen=Evidence(shown(root, device.path / "device"), f"{number(device.path / 'device'):#x}"),
        problem=problem,
    )


def _information(path: Path) -> dict[str, str]:
    lines = (path / "information").read_text(errors="replace").splitlines()
    pairs = (line.partition(":") for line in lines)
    return {key.strip(): value.strip() for key, _, value in pairs}


def _driver_version(root: Path) -> str:
    match = _VERSION.search(text(root / "proc/driver/nvidia/version"))
    return match[1] if match else ""
