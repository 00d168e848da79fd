"""Support matrices of the field against whole machines: what runs, on which device, and if not,
which rule refused, on what evidence, and what helps."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lemonade.catalog.backend import BackendSpec, RunsOnSpec
from lemonade.hardware import Instruments, Machine, detect
from lemonade.planning import Verdict, judge
from lemonade.planning.matrix import matches
from tests.unit.hardware import trees
from tests.unit.hardware.trees import FENCED, NVIDIA_SMI, printing
from tests.unit.planning.examples import backend

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the files of Linux")

Tree = Callable[[Path], Path]

ROCM = ("gfx1150", "gfx1151", "gfx103X", "gfx110X", "gfx120X", "gfx90a", "gfx942")
MATRICES: dict[str, list[dict[str, object]]] = {
    "rocm": [{"os": ["linux"], "gpu": ROCM, "needs": ["cwsr"]}],
    "rocm-without-needs": [{"os": ["linux"], "gpu": ROCM}],
    "vulkan": [
        {"os": ["linux"], "gpu": ["gfx*"]},
        {"os": ["linux"], "cpu": ["x86_64", "arm64"]},
    ],
    "cuda": [{"os": ["linux"], "gpu": ["sm_75", "sm_86", "sm_120", "sm_121"]}],
    "npu": [{"os": ["linux"], "npu": ["XDNA2"]}],
    "cpu": [{"os": ["linux"], "cpu": ["x86_64"], "cpu_features": ["avx2"]}],
}


def spec(variant: str) -> BackendSpec:
    rows = tuple(RunsOnSpec.model_validate(row) for row in MATRICES[variant])
    return backend().model_copy(update={"id": f"mill:{variant}", "runs_on": rows})


def machine(tree: Tree, root: Path, *, fenced: bool = False) -> Machine:
    programs, _ = printing(NVIDIA_SMI)
    opens = FENCED if fenced else Instruments(may_open=lambda _: True)
    return detect(tree(root), Instruments(may_open=opens.may_open, run=programs.run))


def verdict(variant: str, tree: Tree, root: Path, *, fenced: bool = False) -> Verdict:
    return judge(spec(variant), machine(tree, root, fenced=fenced))


@pytest.mark.parametrize(
    ("tree", "variant", "device"),
    [
        (trees.plain, "cpu", ""),
        (trees.plain, "vulkan", ""),
        (trees.arm, "vulkan", ""),
        (trees.container, "cpu", ""),
        (trees.strix_halo, "rocm", "gfx1151"),
        (trees.strix_halo, "vulkan", "gfx1151"),
        (trees.strix_halo_unfixed, "rocm-without-needs", "gfx1151"),
        (trees.strix_halo_unfixed, "vulkan", "gfx1151"),
        (trees.strix_point, "rocm", "gfx1150"),
        (trees.rdna3, "rocm", "gfx1100"),
        (trees.rdna4, "rocm", "gfx1201"),
        (trees.instinct, "rocm", "gfx942"),
        (trees.desktop, "rocm", "gfx1100"),
        (trees.apu_and_card, "rocm", "gfx1201"),
        (trees.apu_and_card, "rocm-without-needs", "gfx1201"),
        (trees.npu_ready, "npu", "XDNA2"),
        (trees.nvidia_mixed, "cuda", "sm_120"),
    ],
)
def test_what_runs(tmp_path: Path, tree: Tree, variant: str, device: str) -> None:
    found = verdict(variant, tree, tmp_path)
    assert found.supported
    assert (found.device.family if found.device else "") == device
    assert (found.rule, found.reason, found.evidence, found.fix, found.remedy) == (
        "", "", (), "", ""
    )  # fmt: skip


@pytest.mark.parametrize(
    ("tree", "variant", "rule", "reason", "evidence"),
    [
        (
            trees.plain,
            "rocm",
            "gpu-absent",
            "this machine has none.",
            ["/sys/bus/pci/devices: no GPU"],
        ),
        (trees.plain, "npu", "npu-absent", "has none.", ["/sys/bus/pci/devices: no NPU"]),
        (
            trees.arm,
            "cpu",
            "cpu",
            "It needs a processor of the kind x86_64; this is arm64.",
            ["/proc/cpuinfo: Arm processor 0x41:0xd0c (arm64)"],
        ),
        (
            trees.strix_halo_unfixed,
            "rocm",
            "cwsr",
            "does not say cwsr_size and ctl_stack_size",
            [
                "/sys/class/kfd/kfd/topology/nodes/1/properties: "
                "no cwsr_size and no ctl_stack_size",
                "/proc/sys/kernel/osrelease: 6.17.0-5-generic",
            ],
        ),
        (
            trees.strix_halo_dkms,
            "rocm",
            "cwsr",
            "The kernel lacks a fix that AMD GPU gfx1151 (gfx1151) needs",
            [
                "/sys/class/kfd/kfd/topology/nodes/1/properties: "
                "no cwsr_size and no ctl_stack_size",
                "/proc/sys/kernel/osrelease: 6.18.4",
                "/sys/module/amdgpu/version: 6.16.13",
            ],
        ),
        (
            trees.strix_halo,
            "cuda",
            "gpu-family",
            "this machine has AMD GPU gfx1151 (gfx1151).",
            ["/sys/class/kfd/kfd/topology/nodes/1/properties: gfx_target_version 110501"],
        ),
        (
            trees.nvidia_mixed,
            "rocm",
            "gpu-family",
            "NVIDIA GeForce RTX 3090 (sm_86), NVIDIA GeForce RTX 5090 (sm_120).",
            ["nvidia-smi: compute capability 8.6", "nvidia-smi: compute capability 12.0"],
        ),
        (
            trees.container,
            "rocm",
            "device-missing",
            "there is AMD GPU gfx1151, but: /dev/kfd is missing.",
            ["/dev/kfd: No such file or directory"],
        ),
        (
            trees.npu_without_driver,
            "npu",
            "driver-missing",
            "there is AMD XDNA2 NPU, but: The driver amdxdna is not loaded.",
            ["/sys/bus/pci/devices/0000:c5:00.1/driver: No such file or directory"],
        ),
        (
            trees.npu_in_container,
            "npu",
            "device-missing",
            "but: /dev/accel/accel0 is missing.",
            ["/dev/accel/accel0: No such file or directory"],
        ),
    ],
)
def test_what_does_not_run(
    tmp_path: Path, tree: Tree, variant: str, rule: str, reason: str, evidence: list[str]
) -> None:
    found = verdict(variant, tree, tmp_path)
    assert not found.supported
    assert found.rule == rule
    assert reason in found.reason
    assert [str(one) for one in found.evidence] == evidence
    assert found.remedy
    assert found.device is None


@pytest.mark.parametrize(
    ("tree", "variant", "node"),
    [
        (trees.strix_halo, "rocm", "/dev/kfd"),
        (trees.rdna4, "rocm", "/dev/kfd"),
        (trees.npu_ready, "npu", "/dev/accel/accel0"),
    ],
)
def test_without_permission_is_not_without_device(
    tmp_path: Path, tree: Tree, variant: str, node: str
) -> None:
    found = verdict(variant, tree, tmp_path, fenced=True)
    assert found.rule == "no-permission"
    assert found.reason.endswith(f"but: {node} may not be opened by this user.")
    assert [str(one) for one in found.evidence] == [f"{node}: mode 0660, group render"]
    assert "`sudo usermod -aG render $USER`" in found.fix
    assert found.remedy == found.fix


def test_the_fix_for_a_driver_in_the_way(tmp_path: Path) -> None:
    assert "Remove amdgpu-dkms (6.16.13)" in verdict("rocm", trees.strix_halo_dkms, tmp_path).fix


def test_a_gpu_nobody_described(tmp_path: Path) -> None:
    found = judge(spec("cuda"), detect(trees.nvidia_mixed(tmp_path)))
    assert found.rule == "gpu-unknown"
    assert "of NVIDIA GeForce RTX 3090 it is not known what it is." in found.reason
    assert "nvidia-smi" in found.fix
    assert [one.value for one in found.evidence] == ["no compute capability"]


def test_what_could_not_be_looked_for_is_not_called_absent(tmp_path: Path) -> None:
    plain = detect(trees.plain(tmp_path))
    assert judge(spec("rocm"), plain).rule == "gpu-absent"
    blind = replace(plain, problems=("AMD GPUs could not be detected: no.",))
    found = judge(spec("rocm"), blind)
    assert found.rule == "gpu-unknown"
    assert found.reason.endswith("or gfx942. AMD GPUs could not be detected: no.")
    assert judge(spec("npu"), blind).rule == "npu-absent"


def test_a_card_in_reserve_takes_over(tmp_path: Path) -> None:
    """A card that may not be opened leaves the work to the integrated GPU."""
    trees.strix_halo(tmp_path)
    trees.rdna4(tmp_path, 129)
    closed = Instruments(may_open=lambda path: path.name != "renderD129")
    found = judge(spec("rocm"), detect(tmp_path, closed))
    assert found.supported
    assert found.device is not None
    assert found.device.family == "gfx1151"


@pytest.mark.parametrize(
    ("pattern", "family", "fits"),
    [
        ("gfx103X", "gfx1030", True),
        ("gfx103X", "gfx1036", True),
        ("gfx103X", "gfx1100", False),
        ("gfx110X", "gfx1103", True),
        ("gfx110X", "gfx1150", False),
        ("gfx120X", "gfx1201", True),
        ("gfx120X", "gfx12010", False),
        ("gfx*", "gfx90a", True),
        ("gfx*", "sm_86", False),
        ("sm_120", "sm_12", False),
    ],
)
def test_families(pattern: str, family: str, *, fits: bool) -> None:
    assert matches(pattern, family) is fits
