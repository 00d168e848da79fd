"""Which of some processes hold memory of a device, as far as drivers tell.

AMD's compute driver has a folder for each process that uses it, which stays until the driver has
taken everything back, also after the process is dead. The kernel's graphics drivers tell it of
each open device of a living process. NVIDIA's library lists the processes of each GPU. All is
read below a root, so that a recorded machine reads like a real one. Sources: the kernel's
documentation of `drm-usage-stats` and of `/sys/class/kfd`; NVIDIA's NVML reference.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Final

from lemonade.core.process import DeviceHold
from lemonade.hardware.amd import compute_addresses
from lemonade.hardware.files import number
from lemonade.hardware.instruments import installed_nvml
from lemonade.hardware.nvml import Nvml, address_of

_REGIONS: Final = ("drm-resident-", "drm-memory-")
"""What newer and older kernels call the bytes of one region, behind which its name stands."""

_ON_DEVICE: Final = frozenset({"vram", "vram0", "local0", "gtt", "stolen-local0"})
_UNITS: Final = {"": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


def device_memory(
    pids: Collection[int],
    *,
    root: Path = Path("/"),
    nvml: Callable[[], Nvml | None] = installed_nvml,
) -> tuple[DeviceHold, ...]:
    """What these processes hold; nothing where nobody tells. Blocks, for small files mostly.

    Args:
        pids: numbers of processes, dead ones included.
        root: of the machine.
        nvml: gives NVIDIA's library; asked only where its driver is loaded.
    """
    found = tuple(_graphics(root, pids))
    # The same memory, which is told of there until the process is dead, and here until it is back.
    told = {one.pid for one in found}
    found += tuple(_compute(root, [pid for pid in pids if pid not in told]))
    if (root / "proc/driver/nvidia").is_dir() and (library := nvml()) is not None:
        found += _nvidia(library, frozenset(pids))
    return tuple(found)


def _compute(root: Path, pids: Collection[int]) -> Iterator[DeviceHold]:
    """AMD's compute driver: `proc/PID/vram_GPU`, in bytes."""
    folder = root / "sys/class/kfd/kfd/proc"
    addresses: dict[str, str] | None = None
    for pid in pids:
        for file in sorted((folder / str(pid)).glob("vram_*")):
            if held := number(file):
                if addresses is None:  # they do not change; mostly nobody holds anything
                    addresses = compute_addresses(root)
                gpu = file.name.removeprefix("vram_")
                yield DeviceHold(pid, addresses.get(gpu, f"kfd:{gpu}"), held)


def _graphics(root: Path, pids: Collection[int]) -> Iterator[DeviceHold]:
    """The kernel's graphics drivers: one open device may have several descriptors."""
    for pid in pids:
        clients: dict[tuple[str, str], int] = {}
        for file in sorted((root / f"proc/{pid}/fdinfo").glob("*")):
            with contextlib.suppress(OSError):
                fields = dict(_pairs(file.read_text(errors="replace")))
                if "drm-driver" in fields:
                    device = fields.get("drm-pdev", fields["drm-driver"])
                    clients[device, fields.get("drm-client-id", file.name)] = _bytes_of(fields)
        by_device: dict[str, int] = {}
        for (device, _), held in clients.items():
            by_device[device] = by_device.get(device, 0) + held
        yield from (DeviceHold(pid, device, held) for device, held in by_device.items() if held)


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        name, colon, value = line.partition(":")
        if colon:
            yield name.strip(), value.strip()


def _bytes_of(fields: dict[str, str]) -> int:
    """Of all regions, each counted once, whichever way the kernel spells it."""
    regions: dict[str, int] = {}
    for prefix in _REGIONS:
        for name, value in fields.items():
            region = name.removeprefix(prefix)
            if name.startswith(prefix) and region in _ON_DEVICE:
                regions.setdefault(region, _size(value))
    return sum(regions.values())


def _size(text: str) -> int:
    count, _, unit = text.partition(" ")
    return int(count) * _UNITS.get(unit.strip(), 0) if count.isdecimal() else 0


def _nvidia(nvml: Nvml, pids: frozenset[int]) -> tuple[DeviceHold, ...]:
    found = []
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return ()
    try:
        for index in range(nvml.nvmlDeviceGetCount()):
            with contextlib.suppress(nvml.NVMLError):
                handle = nvml.nvmlDeviceGetHandleByIndex(index)
                where = address_of(nvml, handle) or f"nvidia:{index}"
                found += [
                    DeviceHold(one.pid, where, one.usedGpuMemory or 0)
                    for one in nvml.nvmlDeviceGetComputeRunningProcesses(handle)
                    if one.pid in pids
                ]
    except nvml.NVMLError:
        return tuple(found)
    finally:
        with contextlib.suppress(nvml.NVMLError):
            nvml.nvmlShutdown()
    return tuple(found)
