"""A device whose memory did not come back is not planned with, on recorded machines."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from lemonade.core.process import DeviceHold
from lemonade.hardware import Machine, detect, device_memory
from lemonade.hardware.facts import Gpu
from lemonade.planning import (
    Remainder,
    in_the_way,
    judge,
    quarantined_devices,
    visible_devices,
    without,
)
from lemonade.planning.matrix import best_device
from tests.unit.hardware.trees import FENCED, amd_gpu, strix_halo, write
from tests.unit.planning.examples import MACHINE, backend
from tests.unit.planning.test_held import two_instincts

GIB = 1 << 30
DEAD = 4242


def left(device: str, gib: float, pid: int = DEAD, **changes: object) -> Remainder:
    hold = DeviceHold(pid, device, int(gib * GIB))
    return Remainder("Qwen3", replace(hold, **changes))  # type: ignore[arg-type]


def nvidia(*names: str) -> Machine:
    gpus = [Gpu("nvidia", name, "sm_86", integrated=False, uuid=f"GPU-{name}") for name in names]
    return replace(MACHINE, gpus=tuple(gpus))


def usable(machine: Machine) -> Machine:
    """A recorded machine whose devices this user may open."""
    return replace(machine, gpus=tuple(replace(gpu, problem=None) for gpu in machine.gpus))


def test_what_kfd_remembers_of_the_dead_is_found_on_the_bus(tmp_path: Path) -> None:
    two_instincts(tmp_path)
    nodes = sorted((tmp_path / "sys/class/kfd/kfd/topology/nodes").iterdir())
    gpus = [node for node in nodes if "gfx_target_version 9" in (node / "properties").read_text()]
    for number, node in enumerate(gpus):
        write(node, "gpu_id", f"{51230 + number}\n")
    write(tmp_path, f"sys/class/kfd/kfd/proc/{DEAD}/vram_51231", f"{20 * GIB}\n")
    (hold,) = device_memory([DEAD], root=tmp_path)
    machine = usable(detect(tmp_path, FENCED))
    assert hold.device == machine.gpus[1].pci_address
    (one,) = quarantined_devices(machine, [Remainder("Qwen3", hold)])
    assert (one.device, one.bytes) == (machine.gpus[1], 20 * GIB)


def test_the_reason_and_the_remedy_name_who_holds_it() -> None:
    machine = nvidia("RTX")
    dead = left("nvidia:0", 1)
    stuck = left("nvidia:0", 23, pid=99, program="/opt/vllm/bin/python3", start_ticks=5)
    (one,) = quarantined_devices(machine, [dead, stuck])
    assert "25.8 GB of RTX did not come back when Qwen3 was unloaded" in one.reason
    assert "pid 4242 (dead), pid 99 (python3)" in one.reason
    assert "--force" in one.fix
    (problem,) = [gpu.problem for gpu in without(machine, [one]).gpus]
    assert problem is not None
    assert (problem.rule, problem.reason, problem.fix) == ("quarantined", one.reason, one.fix)


@pytest.mark.parametrize(
    ("device", "gib"), [("nvidia:0", 0.01), ("nvidia:7x", 0), ("0000:99:00.0", 20), ("kfd:1", 20)]
)
def test_a_little_and_what_is_elsewhere_do_not_matter(device: str, gib: float) -> None:
    machine = nvidia("RTX")
    assert quarantined_devices(machine, [left(device, gib)]) == ()
    assert without(machine, ()) is machine


def test_the_only_gpu_refuses_and_the_processor_is_no_substitute(tmp_path: Path) -> None:
    machine = usable(detect(strix_halo(tmp_path), FENCED))
    found = quarantined_devices(machine, [left(machine.gpus[0].pci_address, 20)])
    rocm, cpu = backend("llamacpp-rocm"), backend("vllm-cpu")
    assert in_the_way(rocm, machine, found) == found[0]
    assert in_the_way(backend("llamacpp-vulkan"), machine, found) == found[0]
    assert in_the_way(cpu, machine, found) is None
    assert in_the_way(rocm, machine, ()) is None
    verdict = judge(rocm, without(machine, found))
    assert (verdict.supported, verdict.rule, verdict.fix) == (False, "quarantined", found[0].fix)


@pytest.mark.parametrize("bad", [0, 1])
def test_another_of_its_kind_serves_instead(bad: int) -> None:
    machine, cuda = nvidia("A", "B"), backend("llamacpp-cuda")
    found = quarantined_devices(machine, [left(f"nvidia:{bad}", 20)])
    assert in_the_way(cuda, machine, found) is None
    now = without(machine, found)
    good = machine.gpus[1 - bad]
    assert best_device(cuda.runs_on, now) == good
    seen = visible_devices({}, cuda, now, own_program=False)
    assert dict(seen.variables) == {"CUDA_VISIBLE_DEVICES": good.uuid}
    assert machine.gpus[bad].name in seen.notice
    chosen = visible_devices({"CUDA_VISIBLE_DEVICES": "0"}, cuda, now, own_program=False)
    assert dict(chosen.variables) == {"CUDA_VISIBLE_DEVICES": "0"}, "somebody has decided"


def test_amds_are_counted(tmp_path: Path) -> None:
    machine = usable(detect(two_instincts(tmp_path), FENCED))
    found = quarantined_devices(machine, [left(machine.gpus[0].pci_address, 20)])
    seen = visible_devices({}, backend("vllm-rocm"), without(machine, found), own_program=False)
    assert dict(seen.variables) == {"HIP_VISIBLE_DEVICES": "1"}


def test_one_of_another_family_would_take_another_engine(tmp_path: Path) -> None:
    root = strix_halo(tmp_path)
    amd_gpu(
        root, 129, 120001, address="0000:85:00.0", device="0x7550", vram=16 * GIB, discrete=True
    )
    machine = usable(detect(root, FENCED))
    rocm = backend("llamacpp-rocm")
    best = best_device(rocm.runs_on, machine)
    assert isinstance(best, Gpu)
    assert len({gpu.family for gpu in machine.gpus}) == 2
    found = quarantined_devices(machine, [left(best.pci_address, 10)])
    assert in_the_way(rocm, machine, found) == found[0]


def test_a_backend_that_cannot_be_kept_from_it_is_refused() -> None:
    machine = nvidia("A", "B")
    found = quarantined_devices(machine, [left("nvidia:0", 20)])
    cuda = backend("llamacpp-cuda")
    assert in_the_way(cuda.model_copy(update={"visible_by": ""}), machine, found) == found[0]
