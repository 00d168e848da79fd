"""Machines that are not here, as their files describe them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from lemonade.hardware import detect, usage
from lemonade.hardware.amd import gfx_name
from lemonade.hardware.usage import UsageMeter
from tests.unit.hardware.trees import amd_gpu, arm, base, npu, write

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the files of Linux")

PCI_IDS = """# a comment
1002  Advanced Micro Devices, Inc. [AMD/ATI]
\t1586  Strix Halo [Radeon 8060S]
\t\t1002 1586  a board
10de  NVIDIA Corporation
\t2204  GA102 [GeForce RTX 3090]
"""


def test_this_machine_is_described_without_an_error() -> None:
    machine = detect()
    assert machine.os == "linux"
    assert machine.cpu.threads == len(os.sched_getaffinity(0))
    assert machine.memory_bytes > 0
    assert machine.cpu.family in {"x86_64", "arm64"}
    assert machine.problems == ()


def test_looking_changes_nothing(tmp_path: Path) -> None:
    root = npu(amd_gpu(base(tmp_path), 128, 110501).parents[4]).parents[4]
    assert root == tmp_path

    def state() -> dict[Path, tuple[int, int]]:
        found = {path: path.lstat() for path in root.rglob("*")}
        return {path: (stat.st_mtime_ns, stat.st_size) for path, stat in found.items()}

    before = state()
    detect(root)
    usage(root)
    assert state() == before


def test_a_plain_machine(tmp_path: Path) -> None:
    machine = detect(base(tmp_path))
    assert machine.cpu.name == "AMD Ryzen AI MAX+ 395"
    assert (machine.cpu.family, machine.cpu.cores, machine.cpu.threads) == ("x86_64", 4, 8)
    assert machine.cpu.features >= {"avx2", "f16c", "fma"}
    assert (machine.os_version, machine.kernel) == ("Debian GNU/Linux 12", "6.14.0-test")
    assert machine.memory_bytes == 1_024_000_000
    assert (machine.gpus, machine.npus, machine.problems) == ((), (), ())


def test_an_arm_board(tmp_path: Path) -> None:
    machine = detect(arm(tmp_path))
    assert (machine.cpu.family, machine.cpu.threads) == ("arm64", 2)
    assert machine.cpu.name == "Arm processor 0x41:0xd0c"
    write(tmp_path, "proc/device-tree/model", "Raspberry Pi 5\0")
    assert detect(tmp_path).cpu.name == "Raspberry Pi 5"


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"sys/fs/cgroup/a/b/memory.max": "max", "sys/fs/cgroup/a/memory.max": "5000"}, 5000),
        ({"sys/fs/cgroup/a/b/memory.max": "4000", "sys/fs/cgroup/a/memory.max": "5000"}, 4000),
        ({"sys/fs/cgroup/a/b/memory.max": "9000000000000"}, 1_024_000_000),
        ({}, 1_024_000_000),
    ],
)
def test_the_limit_of_a_container(tmp_path: Path, limits: dict[str, str], expected: int) -> None:
    write(base(tmp_path), "proc/self/cgroup", "1:name=systemd:/x\n0::/a/b\n")
    for path, text in limits.items():
        write(tmp_path, path, text + "\n")
    assert detect(tmp_path).memory_bytes == expected


def test_nothing_can_be_read(tmp_path: Path) -> None:
    machine = detect(tmp_path)
    assert len(machine.problems) == 3
    assert machine.problems[1].startswith("The processor could not be detected:")
    assert (machine.cpu.family, machine.memory_bytes) == ("unknown", 0)


def test_an_integrated_gpu(tmp_path: Path) -> None:
    amd_gpu(base(tmp_path), 128, 110501)
    (gpu,) = detect(tmp_path).gpus
    assert (gpu.vendor, gpu.family, gpu.integrated, gpu.problem) == ("amd", "gfx1151", True, None)
    assert (gpu.vram_bytes, gpu.shared_bytes) == (512 << 20, 64 << 30)
    assert (gpu.name, gpu.render_node) == ("AMD GPU gfx1151", "/dev/dri/renderD128")


def test_names_come_from_the_bus(tmp_path: Path) -> None:
    folder = amd_gpu(base(tmp_path), 128, 110501)
    write(tmp_path, "usr/share/misc/pci.ids", PCI_IDS)
    assert detect(tmp_path).gpus[0].name == "Strix Halo [Radeon 8060S]"
    write(folder, "product_name", "Radeon 8060S Graphics\n")
    assert detect(tmp_path).gpus[0].name == "Radeon 8060S Graphics"


def test_two_gpus(tmp_path: Path) -> None:
    amd_gpu(base(tmp_path), 128, 110501)
    amd_gpu(tmp_path, 129, 90010, discrete=True)
    gpus = detect(tmp_path).gpus
    assert [(gpu.family, gpu.integrated) for gpu in gpus] == [("gfx1151", True), ("gfx90a", False)]


@pytest.mark.parametrize(
    ("version", "name"),
    [(110501, "gfx1151"), (90010, "gfx90a"), (100300, "gfx1030"), (120001, "gfx1201")],
)
def test_names_of_instruction_sets(version: int, name: str) -> None:
    assert gfx_name(version) == name


def test_how_busy_it_is(tmp_path: Path) -> None:
    amd_gpu(base(tmp_path), 128, 110501)
    write(tmp_path, "proc/stat", "cpu  100 0 100 800 0 0 0 0 0 0\ncpu0 1 1 1 1 1\n")
    meter = UsageMeter(tmp_path)
    first = meter.look()
    assert (first.cpu_percent, first.gpu_percent, first.vram_bytes) == (None, None, None)
    assert first.memory_bytes == 400_000 * 1024
    write(tmp_path, "proc/stat", "cpu  150 0 100 900 50 0 0 0 0 0\n")
    device = "sys/bus/pci/devices/0000:80:00.0"
    write(tmp_path, f"{device}/gpu_busy_percent", "37\n")
    write(tmp_path, f"{device}/mem_info_vram_used", "1048576\n")
    second = meter.look()
    assert (second.cpu_percent, second.gpu_percent) == (25.0, 37.0)
    assert (second.vram_bytes, second.npu_percent) == (1 << 20, None)


def test_memory_of_a_container(tmp_path: Path) -> None:
    write(base(tmp_path), "proc/self/cgroup", "0::/a\n")
    write(tmp_path, "sys/fs/cgroup/a/memory.max", "500000\n")
    write(tmp_path, "sys/fs/cgroup/a/memory.current", "300000\n")
    write(tmp_path, "sys/fs/cgroup/a/memory.stat", "anon 1\ninactive_file 100000\n")
    assert usage(tmp_path).memory_bytes == 200_000


def test_this_machine_is_measured() -> None:
    usage()
    now = usage()
    assert now.memory_bytes > 0
    assert now.cpu_percent is None or 0 <= now.cpu_percent <= 100
