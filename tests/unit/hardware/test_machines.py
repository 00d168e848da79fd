"""Whole machines: what is found on each, and what is wrong with what is found."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lemonade.hardware import Gpu, Instruments, Npu, Problem, detect
from tests.unit.hardware import trees
from tests.unit.hardware.trees import DISPLAY, FENCED, GIB, NODES, amd_gpu, base, npu, pci, write

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the files of Linux")

Tree = Callable[[Path], Path]


def gpus(root: Path, instruments: Instruments = FENCED) -> tuple[Gpu, ...]:
    machine = detect(root, instruments)
    assert machine.problems == ()
    return machine.gpus


def problem(device: Gpu | Npu) -> Problem:
    assert device.problem is not None
    return device.problem


@pytest.mark.parametrize(
    ("tree", "families", "integrated", "addresses", "pools"),
    [
        (trees.plain, [], [], [], []),
        (trees.arm, [], [], [], []),
        (trees.strix_halo, ["gfx1151"], [True], ["0000:c3:00.0"], [64 * GIB]),
        (trees.strix_halo_unfixed, ["gfx1151"], [True], ["0000:c3:00.0"], [64 * GIB]),
        (trees.strix_point, ["gfx1150"], [True], ["0000:80:00.0"], [16 * GIB]),
        (trees.rdna3, ["gfx1100"], [False], ["0000:03:00.0"], [25_753_026_560]),
        (trees.rdna4, ["gfx1201"], [False], ["0000:05:00.0"], [34_208_743_424]),
        (
            trees.apu_and_card,
            ["gfx1151", "gfx1201"],
            [True, False],
            ["0000:c3:00.0", "0000:05:00.0"],
            [64 * GIB, 34_208_743_424],
        ),
        (
            trees.desktop,
            ["gfx1100", "gfx1036"],
            [False, True],
            ["0000:03:00.0", "0000:13:00.0"],
            [25_753_026_560, 64 * GIB],
        ),
        (trees.instinct, ["gfx942"], [False], ["0000:75:00.0"], [206_142_726_144]),
    ],
)
def test_gpus(
    tmp_path: Path,
    tree: Tree,
    families: list[str],
    integrated: list[bool],
    addresses: list[str],
    pools: list[int],
) -> None:
    found = gpus(tree(tmp_path), Instruments(may_open=lambda _: True))
    assert [gpu.family for gpu in found] == families
    assert [gpu.integrated for gpu in found] == integrated
    assert [gpu.pci_address for gpu in found] == addresses
    assert [gpu.pool_bytes for gpu in found] == pools
    assert [gpu.problem for gpu in found] == [None] * len(found)
    assert all(gpu.render_node.startswith("/dev/dri/renderD") for gpu in found)


def test_two_views_of_the_same_chips_are_not_added(tmp_path: Path) -> None:
    (gpu,) = gpus(trees.strix_halo(tmp_path))
    assert (gpu.vram_bytes, gpu.shared_bytes) == (64 * GIB, 33_500_000_000)
    assert gpu.pool_bytes == 64 * GIB
    small, large = 512 << 20, 120 * GIB
    write(tmp_path, "sys/bus/pci/devices/0000:c3:00.0/mem_info_vram_total", f"{small}\n")
    write(tmp_path, "sys/bus/pci/devices/0000:c3:00.0/mem_info_gtt_total", f"{large}\n")
    assert gpus(tmp_path)[0].pool_bytes == large


@pytest.mark.parametrize(
    ("tree", "sizes", "driver"),
    [
        (trees.strix_halo, (19_185_664, 16_384), ""),
        (trees.strix_halo_unfixed, (None, None), ""),
        (trees.strix_halo_dkms, (None, None), "6.16.13"),
        (trees.rdna4, (30_699_520, 28_672), ""),
    ],
)
def test_what_the_kernel_says_of_saving_queues(
    tmp_path: Path, tree: Tree, sizes: tuple[int | None, int | None], driver: str
) -> None:
    (gpu,) = gpus(tree(tmp_path))
    assert (gpu.cwsr_bytes, gpu.ctl_stack_bytes) == sizes
    assert gpu.driver_version == driver


def test_what_a_visibility_variable_takes(tmp_path: Path) -> None:
    assert gpus(trees.instinct(tmp_path))[0].uuid == "GPU-4fd3d0e445b9207e"


def test_the_address_is_known_without_the_display_driver(tmp_path: Path) -> None:
    trees.strix_halo(tmp_path)
    (tmp_path / "sys/class/drm/renderD128/device").unlink()
    assert gpus(tmp_path)[0].pci_address == "0000:c3:00.0"


def test_a_gpu_of_another_group(tmp_path: Path) -> None:
    (gpu,) = gpus(trees.strix_halo(tmp_path))
    gid = (tmp_path / "dev/kfd").stat().st_gid
    assert problem(gpu).rule == "no-permission"
    assert str(problem(gpu)) == "/dev/kfd may not be opened by this user."
    assert str(problem(gpu).evidence) == "/dev/kfd: mode 0660, group render"
    assert "`sudo usermod -aG render $USER`" in problem(gpu).fix
    assert f"`--group-add {gid}`" in problem(gpu).fix

    (tmp_path / "etc/group").write_text("root:x:0:\n")
    (nameless,) = gpus(tmp_path)
    assert problem(nameless).evidence.value == f"mode 0660, group {gid}"
    assert problem(nameless).fix.endswith(f"`--group-add {gid}`.")

    (tmp_path / "dev/kfd").chmod(0o600)
    (closed,) = gpus(tmp_path)
    assert problem(closed).fix.startswith("No group may open it: `sudo chgrp render /dev/kfd")


def test_each_device_is_asked_for(tmp_path: Path) -> None:
    trees.apu_and_card(tmp_path)
    seldom = Instruments(may_open=lambda path: path.name != "renderD129")
    first, second = gpus(tmp_path, seldom)
    assert first.problem is None
    assert problem(second).evidence.path == "/dev/dri/renderD129"


def test_a_container_without_devices(tmp_path: Path) -> None:
    machine = detect(trees.container(tmp_path))
    for device, node in ((machine.gpus[0], "/dev/kfd"), (machine.npus[0], "/dev/accel/accel0")):
        assert problem(device).rule == "device-missing"
        assert problem(device).reason == f"{node} is missing."
        assert str(problem(device).evidence) == f"{node}: No such file or directory"
    assert "`--device /dev/kfd --device /dev/dri`" in problem(machine.gpus[0]).fix
    assert "`--device /dev/accel/accel0`" in problem(machine.npus[0]).fix


def test_a_container_that_may_not_read_the_topology(tmp_path: Path) -> None:
    trees.container(tmp_path)
    properties = tmp_path / NODES / "1/properties"
    properties.unlink()
    properties.mkdir()  # cannot be read by anybody, as root's tests need it
    (gpu,) = gpus(tmp_path)
    assert (gpu.family, problem(gpu).rule) == ("", "device-missing")
    assert problem(gpu).evidence.path == f"/{NODES}/1/properties"
    assert gpu.shared_bytes == 33_500_000_000


def test_gpus_without_compute(tmp_path: Path) -> None:
    amd_gpu(base(tmp_path), 128, 110501)
    display = {"vendor": "0x1002", "device": "0x744c", "kind": DISPLAY}
    pci(tmp_path, "0000:90:00.0", **display)
    pci(tmp_path, "0000:91:00.0", "vfio-pci", **display)
    pci(tmp_path, "0000:92:00.0", "amdgpu", **display)
    pci(tmp_path, "0000:93:00.0", vendor="0x1002", device="0xab30", kind="0x040300")  # its sound
    others = [problem(gpu) for gpu in gpus(tmp_path)[1:]]
    assert [(one.rule, one.reason) for one in others] == [
        ("driver-missing", "No driver is bound to it."),
        ("driver-other", "The driver vfio-pci is bound to it, not amdgpu."),
        ("no-compute", "The driver amdgpu offers no compute on it."),
    ]
    assert [str(one.evidence) for one in others] == [
        "/sys/bus/pci/devices/0000:90:00.0/driver: No such file or directory",
        "/sys/bus/pci/devices/0000:91:00.0/driver: vfio-pci",
        f"/{NODES}: no node for 0000:92:00.0",
    ]
    assert all(one.fix for one in others)


# ---- neural processors


def test_an_npu(tmp_path: Path) -> None:
    (found,) = detect(trees.npu_ready(tmp_path), Instruments(may_open=lambda _: True)).npus
    assert (found.name, found.family, found.problem) == ("RyzenAI-npu5", "XDNA2", None)
    assert (found.pci_address, found.device_node) == ("0000:c5:00.1", "/dev/accel/accel0")
    assert found.firmware == "1.1.2.65"


@pytest.mark.parametrize(
    ("tree", "rule", "evidence", "fix"),
    [
        (
            trees.npu_without_driver,
            "driver-missing",
            "/sys/bus/pci/devices/0000:c5:00.1/driver: No such file or directory",
            "`sudo modprobe amdxdna`",
        ),
        (
            trees.npu_in_container,
            "device-missing",
            "/dev/accel/accel0: No such file or directory",
            "`--device /dev/accel/accel0`",
        ),
        (
            trees.npu_ready,
            "no-permission",
            "/dev/accel/accel0: mode 0660, group render",
            "`sudo usermod -aG render $USER`",
        ),
    ],
)
def test_three_reasons_why_an_npu_cannot_be_used(
    tmp_path: Path, tree: Tree, rule: str, evidence: str, fix: str
) -> None:
    (found,) = detect(tree(tmp_path), FENCED).npus
    assert found.family == "XDNA2"
    assert (problem(found).rule, str(problem(found).evidence)) == (rule, evidence)
    assert fix in problem(found).fix


def test_rarer_reasons(tmp_path: Path) -> None:
    folder = npu(base(tmp_path))
    (folder / "accel/accel0").rmdir()
    assert problem(detect(tmp_path).npus[0]).rule == "no-compute"
    (folder / "driver").unlink()
    (folder / "driver").symlink_to("../../drivers/vfio-pci")
    assert problem(detect(tmp_path).npus[0]).rule == "driver-other"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may open everything")
def test_the_kernel_is_asked_who_may_open_a_device(tmp_path: Path) -> None:
    trees.npu_ready(tmp_path)
    assert detect(tmp_path).npus[0].problem is None
    (tmp_path / "dev/accel/accel0").chmod(0)
    assert problem(detect(tmp_path).npus[0]).rule == "no-permission"
