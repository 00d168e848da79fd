"""The checks about devices, kernel, libraries and memory, on recorded machines."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lemonade.doctor.cgroups import check_cgroups
from lemonade.doctor.devices import User, check_access, check_devices
from lemonade.doctor.kernel import check_kernel
from lemonade.doctor.memory import Limits, check_memory
from lemonade.doctor.shadowing import check_shadowing
from lemonade.hardware import Instruments, detect
from tests.unit.doctor.saying import one, rules
from tests.unit.hardware import trees
from tests.unit.hardware.trees import FENCED, write

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the files of Linux")

Tree = Callable[[Path], Path]
OPEN = Instruments(may_open=lambda _: True)
SOMEBODY = User(1000, "somebody", frozenset({1000}), "/home/somebody")
STRANGER = User(1001, "stranger", frozenset({1001}), "/home/stranger")


@pytest.mark.parametrize(
    ("tree", "may", "devices", "access"),
    [
        (trees.plain, OPEN, [("note", "processor-only")], []),
        (trees.strix_halo, OPEN, [], []),
        (trees.rdna4, OPEN, [], []),
        (trees.apu_and_card, FENCED, [], [("warning", "no-permission")]),
        (trees.npu_ready, OPEN, [], []),
        (trees.npu_ready, FENCED, [], [("warning", "no-permission")]),
        (trees.npu_without_driver, OPEN, [("warning", "driver-missing")], []),
        (trees.container, OPEN, [], [("warning", "device-missing")] * 2),
    ],
)
def test_devices_and_who_is_let_in(
    tmp_path: Path,
    tree: Tree,
    may: Instruments,
    devices: list[tuple[str, str]],
    access: list[tuple[str, str]],
) -> None:
    machine = detect(tree(tmp_path), may)
    assert rules(check_devices(machine)) == devices
    assert rules(check_access(machine, tmp_path, STRANGER)) == access


def test_a_missing_permission_is_told_once_for_all_it_locks_out(tmp_path: Path) -> None:
    machine = detect(trees.apu_and_card(tmp_path), FENCED)
    found = one(check_access(machine, tmp_path, STRANGER), "no-permission")
    assert "gfx1151" in found.reason
    assert "gfx1201" in found.reason
    assert "/dev/kfd may not be opened" in found.reason
    assert "usermod -aG render" in found.fix


def test_a_group_that_was_joined_after_this_session_began(tmp_path: Path) -> None:
    machine = detect(trees.strix_halo(tmp_path), FENCED)
    found = one(check_access(machine, tmp_path, SOMEBODY), "no-permission")
    assert "somebody is in the group render by now" in found.fix
    gid = (tmp_path / "dev/kfd").stat().st_gid
    inside = User(1000, "somebody", frozenset({gid}), "/home/somebody")
    found = one(check_access(machine, tmp_path, inside), "no-permission")
    assert "usermod" in found.fix  # the group is not what is missing


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        (trees.plain, []),
        (trees.strix_halo, []),
        (trees.strix_halo_unfixed, [("warning", "cwsr")]),
        (trees.strix_halo_dkms, [("warning", "cwsr"), ("note", "driver-from-outside")]),
        (trees.apu_and_card, [("warning", "cwsr")]),
        (trees.strix_point, []),
        (trees.instinct, []),
    ],
)
def test_what_the_kernel_lacks(
    tmp_path: Path, tree: Tree, expected: list[tuple[str, str]]
) -> None:
    machine = detect(tree(tmp_path), OPEN)
    assert rules(check_kernel(machine, tmp_path, -1)) == expected


def test_what_an_npu_needs_of_the_system(tmp_path: Path) -> None:
    machine = detect(trees.npu_ready(tmp_path), OPEN)
    write(tmp_path, "proc/cmdline", "root=/dev/sda quiet amd_iommu=off\n")
    found = check_kernel(machine, tmp_path, 8 << 20)
    assert rules(found) == [("warning", "memlock"), ("warning", "iommu-off")]
    assert one(found, "memlock").evidence[0].value == "8192"
    write(tmp_path, "proc/cmdline", "root=/dev/sda quiet amd_iommu=on\n")
    assert rules(check_kernel(machine, tmp_path, -1)) == []


def test_variables_that_lead_engines_away(tmp_path: Path) -> None:
    machine = detect(trees.strix_halo(tmp_path), OPEN)
    environ = {
        "ROCM_PATH": "/opt/rocm-6.4",
        "HSA_OVERRIDE_GFX_VERSION": "11.0.0",
        "LD_LIBRARY_PATH": "/opt/rocm/lib:/usr/local/lib",
        "HIP_VISIBLE_DEVICES": "-1",
        "ROCR_VISIBLE_DEVICES": "0",
        "CUDA_VISIBLE_DEVICES": "",
    }
    found = check_shadowing(environ, tmp_path, machine)
    assert rules(found) == [
        ("warning", "variable"),
        ("warning", "variable"),
        ("note", "linker-path"),
        ("warning", "devices-hidden"),
        ("note", "devices-chosen"),
    ]
    assert str(found[0].evidence[0]) == "$ROCM_PATH: /opt/rocm-6.4"
    assert "unset HIP_VISIBLE_DEVICES" in one(found, "devices-hidden").fix
    assert rules(check_shadowing({}, tmp_path, machine)) == []
    plain = detect(trees.plain(tmp_path / "plain"), OPEN)
    idle = {"HIP_VISIBLE_DEVICES": "", "ROCM_PATH": "/opt/rocm"}
    assert rules(check_shadowing(idle, tmp_path / "plain", plain)) == []


def test_a_rocm_of_the_system(tmp_path: Path) -> None:
    machine = detect(trees.strix_halo(tmp_path), OPEN)
    write(tmp_path, "opt/rocm-6.4.1/lib/libamdhip64.so.6")
    write(tmp_path, "opt/rocm-6.4.1/.info/version", "6.4.1-83\n")
    found = one(check_shadowing({}, tmp_path, machine), "system-rocm")
    assert str(found.evidence[0]) == "/opt/rocm-6.4.1: ROCm 6.4.1-83"
    assert "every program finds it" not in found.reason
    write(tmp_path, "etc/ld.so.conf.d/10-rocm-opencl.conf", "/opt/rocm-6.4.1/lib\n")
    found = one(check_shadowing({}, tmp_path, machine), "system-rocm")
    assert "every program finds it" in found.reason
    assert found.evidence[1].path == "/etc/ld.so.conf.d/10-rocm-opencl.conf"


def test_memory_and_limits(tmp_path: Path) -> None:
    machine = detect(trees.plain(tmp_path), OPEN)
    enough, few = Limits(65536, -1), Limits(1024, -1)
    write(tmp_path, "proc/meminfo", "MemTotal: 64000000 kB\nMemAvailable: 32000000 kB\n")
    assert rules(check_memory(machine, tmp_path, enough)) == [("note", "memory-limit")]
    write(
        tmp_path,
        "proc/meminfo",
        "MemTotal: 1000000 kB\nMemAvailable: 100000 kB\nSwapTotal: 1000000 kB\nSwapFree: 9 kB\n",
    )
    write(tmp_path, "proc/sys/vm/overcommit_memory", "2\n")
    assert rules(check_memory(machine, tmp_path, few)) == [
        ("warning", "little-memory"),
        ("warning", "swap-full"),
        ("warning", "overcommit"),
        ("warning", "few-files"),
    ]
    assert rules(check_memory(machine, tmp_path, Limits(-1, -1)))[-1] == ("warning", "overcommit")


def test_whether_engines_get_cgroups(tmp_path: Path) -> None:
    assert rules(check_cgroups(tmp_path)) == [("note", "no-cgroups")]
    group = tmp_path / "mounted" / "user.slice"
    write(group, "cgroup.procs")
    write(tmp_path, "proc/self/cgroup", "0::/user.slice\n")
    mount = f"41 31 0:38 / {tmp_path}/mounted rw - cgroup2 cgroup2 rw\n"
    write(tmp_path, "proc/self/mountinfo", mount)
    (found,) = check_cgroups(tmp_path)
    assert (found.level, str(group) in found.reason) == ("ok", True)
    assert [file.name for file in group.iterdir()] == ["cgroup.procs"], "it changes nothing"
