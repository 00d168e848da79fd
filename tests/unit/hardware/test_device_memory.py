"""What processes hold of devices, on recorded machines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from lemonade.core.process import DeviceHold
from lemonade.hardware.device_memory import device_memory

MIB = 1 << 20

AMDGPU = """pos:\t0
flags:\t02100002
mnt_id:\t27
ino:\t1053
drm-driver:\tamdgpu
drm-client-id:\t{client}
drm-pdev:\t0000:c3:00.0
drm-total-vram:\t9000 KiB
drm-resident-vram:\t8192 KiB
drm-memory-vram:\t8192 KiB
drm-memory-gtt: \t2048 KiB
drm-memory-cpu: \t4096 KiB
drm-engine-gfx:\t12345 ns
"""
XE = """drm-driver:\txe
drm-client-id:\t7
drm-pdev:\t0000:03:00.0
drm-resident-vram0:\t64 MiB
drm-resident-system:\t5 MiB
"""


def write(root: Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


def test_a_machine_without_devices(tmp_path: Path) -> None:
    write(tmp_path, "proc/10/fdinfo/1", "pos:\t0\nflags:\t02\n")
    assert device_memory([10, 11], root=tmp_path) == ()


def test_the_graphics_driver_tells_each_client_once(tmp_path: Path) -> None:
    for number, client in ((4, 1), (5, 1), (6, 2)):
        write(tmp_path, f"proc/10/fdinfo/{number}", AMDGPU.format(client=client))
    write(tmp_path, "proc/11/fdinfo/3", XE)
    write(tmp_path, "proc/12/fdinfo/3", XE)
    assert device_memory([10, 11], root=tmp_path) == (
        DeviceHold(10, "0000:c3:00.0", 2 * 10 * MIB),
        DeviceHold(11, "0000:03:00.0", 64 * MIB),
    )


def test_what_two_drivers_tell_of_the_living_counts_once(tmp_path: Path) -> None:
    write(tmp_path, "proc/10/fdinfo/4", AMDGPU.format(client=1))
    write(tmp_path, "sys/class/kfd/kfd/proc/10/vram_51230", f"{8 * MIB}\n")
    assert device_memory([10], root=tmp_path) == (DeviceHold(10, "0000:c3:00.0", 10 * MIB),)


def test_amds_compute_driver_remembers_the_dead(tmp_path: Path) -> None:
    write(tmp_path, "sys/class/kfd/kfd/proc/10/vram_51230", f"{8 * MIB}\n")
    write(tmp_path, "sys/class/kfd/kfd/proc/10/vram_7", "0\n")
    write(tmp_path, "sys/class/kfd/kfd/proc/10/pasid", "32770\n")
    write(tmp_path, "sys/class/kfd/kfd/proc/99/vram_51230", "1\n")
    assert device_memory([10], root=tmp_path) == (DeviceHold(10, "kfd:51230", 8 * MIB),)


def test_garbage_is_nothing(tmp_path: Path) -> None:
    write(tmp_path, "proc/10/fdinfo/4", "drm-driver:\tx\ndrm-memory-vram:\tmany KiB\n:::\n")
    write(tmp_path, "proc/10/fdinfo/5", "drm-driver:\tx\ndrm-memory-vram:\t5 parsecs\n")
    write(tmp_path, "sys/class/kfd/kfd/proc/10/vram_1", "x")
    assert device_memory([10], root=tmp_path) == ()


class Library:
    """The part of NVIDIA's library that is asked."""

    class NVMLError(Exception):
        pass

    def __init__(self, *, broken: str = "") -> None:
        self.broken = broken
        self.open = 0

    def nvmlInit(self) -> None:  # noqa: N802
        if self.broken == "init":
            raise self.NVMLError
        self.open += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.open -= 1

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> object:  # noqa: N802
        if self.broken == "first" and index == 0:
            raise self.NVMLError
        return index

    def nvmlDeviceGetPciInfo(self, handle: object) -> object:  # noqa: N802
        if handle == 1:
            raise self.NVMLError
        return SimpleNamespace(busId=b"00000000:01:00.0")

    def nvmlDeviceGetComputeRunningProcesses(self, handle: object) -> Sequence[object]:  # noqa: N802
        rows = {0: [(10, 5 * MIB), (99, 1)], 1: [(11, None)]}
        assert isinstance(handle, int)
        return [SimpleNamespace(pid=pid, usedGpuMemory=held) for pid, held in rows[handle]]


@pytest.mark.parametrize(
    ("broken", "held"),
    [("", [(10, 5 * MIB), (11, 0)]), ("init", []), ("first", [(11, 0)])],
)
def test_nvidias_library_lists_processes(
    tmp_path: Path, broken: str, held: list[tuple[int, int]]
) -> None:
    library = Library(broken=broken)
    assert device_memory([10, 11], root=tmp_path, nvml=lambda: library) == ()  # type: ignore[arg-type,return-value]
    (tmp_path / "proc/driver/nvidia").mkdir(parents=True)
    found = device_memory([10, 11], root=tmp_path, nvml=lambda: library)  # type: ignore[arg-type,return-value]
    assert [(one.pid, one.bytes) for one in found] == held
    places = {10: "0000:01:00.0", 11: "nvidia:1"}
    assert all(one.device == places[one.pid] for one in found), "where nobody says, its number"
    assert library.open == 0
