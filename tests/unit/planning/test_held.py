"""What other models hold of a GPU shortens a context and lowers a share, on recorded machines."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lemonade.core.process import DeviceHold
from lemonade.hardware import Machine, detect, device_memory
from lemonade.planning.held import free_on, held_on
from tests.unit.hardware.trees import FENCED, amd_gpu, desktop, instinct, strix_halo, write
from tests.unit.planning.test_transformers_config import LLAMA_3_1_8B
from tests.unit.planning.test_vllm_launch import GIB, flag, gpu, machine, options, plan

OTHER = 4242
GRAPHICS = """pos:\t0
drm-driver:\tamdgpu
drm-client-id:\t{client}
drm-pdev:\t{address}
drm-memory-vram:\t{kib} KiB
drm-memory-gtt: \t0 KiB
"""


def hold(root: Path, address: str, gib: int, pid: int = OTHER) -> None:
    """Let a process hold memory of a GPU, as the kernel would tell of it."""
    text = GRAPHICS.format(client=1, address=address, kib=gib * GIB >> 10)
    write(root, f"proc/{pid}/fdinfo/9", text)


def look(root: Path, pid: int = OTHER) -> tuple[DeviceHold, ...]:
    return device_memory([pid], root=root)


def seen(root: Path) -> Machine:
    return detect(root, FENCED)


def two_instincts(root: Path) -> Path:
    amd_gpu(
        instinct(root), 129, 90402, address="0000:85:00.0", device="0x74a1",
        vram=206_142_726_144, discrete=True,
    )  # fmt: skip
    return root


def on(found: Machine, held: tuple[DeviceHold, ...], **changes: Any) -> Any:
    """Plan for a machine with what others hold, whoever may open its devices."""
    placed = [
        replace(
            gpu(one.family, gib=one.pool_bytes // GIB, integrated=one.integrated),
            pci_address=one.pci_address,
        )
        for one in found.gpus
    ]
    given = {"config": LLAMA_3_1_8B, "weights_bytes": 15 * GIB, "machine": machine(*placed)}
    return plan(*placed, held=held, **(given | changes))


# ---- whose memory it is


def test_of_a_recorded_machine(tmp_path: Path) -> None:
    found = seen(two_instincts(tmp_path))
    first, second = found.gpus
    hold(tmp_path, "0000:85:00.0", 40)
    held = look(tmp_path)
    assert [(one.pid, one.bytes) for one in held] == [(OTHER, 40 * GIB)]
    assert (held_on(first, held, found), held_on(second, held, found)) == (0, 40 * GIB)
    assert free_on(second, held, found) == second.pool_bytes - 40 * GIB
    assert free_on(first, held, found) == first.pool_bytes


def test_the_small_gpu_beside_a_card_is_another_one(tmp_path: Path) -> None:
    found = seen(desktop(tmp_path))
    hold(tmp_path, "0000:13:00.0", 1)
    held = look(tmp_path)
    on_each = {one.pci_address: held_on(one, held, found) for one in found.gpus}
    assert on_each.pop("0000:13:00.0") == GIB
    assert set(on_each.values()) == {0}


def test_what_amds_compute_driver_numbers_may_be_any_of_its_gpus(tmp_path: Path) -> None:
    found = seen(two_instincts(tmp_path))
    write(tmp_path, f"sys/class/kfd/kfd/proc/{OTHER}/vram_51230", f"{3 * GIB}\n")
    held = look(tmp_path)
    assert [one.device for one in held] == ["kfd:51230"]
    assert [held_on(one, held, found) for one in found.gpus] == [3 * GIB, 3 * GIB]


def test_nvidias_numbers_count_its_own_gpus() -> None:
    found = machine(gpu("gfx1100"), gpu("sm_89"), gpu("sm_120"))
    held = (DeviceHold(1, "nvidia:1", GIB), DeviceHold(2, "nvidia:7", 5))
    assert [held_on(one, held, found) for one in found.gpus] == [0, 5, GIB + 5]


@pytest.mark.parametrize("device", ["0000:ff:00.0", "xe", ""])
def test_another_device_is_none_of_ours(tmp_path: Path, device: str) -> None:
    found = seen(instinct(tmp_path))
    assert held_on(found.gpus[0], (DeviceHold(1, device, GIB),), found) == 0


# ---- what that means for a launch


def test_a_context_is_as_long_as_what_is_left_of_the_memory(tmp_path: Path) -> None:
    found = seen(strix_halo(tmp_path))
    alone = on(found, ())
    (one,) = found.gpus
    hold(tmp_path, one.pci_address, one.pool_bytes // GIB - 24)
    beside = on(found, look(tmp_path))
    assert int(flag(alone, "--max-model-len") or 0) == 131072
    left = 24 * GIB - 15 * GIB - 3 * GIB // 2
    assert int(flag(beside, "--max-model-len") or 0) == left // (128 << 10) // 128 * 128
    assert "that other models hold" in beside.context.because
    assert alone.context.budget_bytes > left == beside.context.budget_bytes


def test_the_engine_is_told_its_share_of_what_is_left(tmp_path: Path) -> None:
    found = seen(instinct(tmp_path))
    assert flag(on(found, ()), "--gpu-memory-utilization") is None
    (one,) = found.gpus
    hold(tmp_path, one.pci_address, 100)
    command = on(found, look(tmp_path))
    share = float(flag(command, "--gpu-memory-utilization") or 0)
    pool = one.pool_bytes // GIB * GIB
    assert share * pool <= pool - 100 * GIB - (1 << 29)
    assert share * pool >= pool - 100 * GIB - (1 << 29) - pool / 100
    (added,) = [a for a in command.arguments.arguments if a.origin == "share-beside-others"]
    assert "107.4 GB" in added.because


def test_a_small_neighbour_lowers_nothing_below_the_usual(tmp_path: Path) -> None:
    found = seen(instinct(tmp_path))
    hold(tmp_path, found.gpus[0].pci_address, 1)
    assert flag(on(found, look(tmp_path)), "--gpu-memory-utilization") == "0.9"


def test_who_names_a_share_decides(tmp_path: Path) -> None:
    found = seen(instinct(tmp_path))
    hold(tmp_path, found.gpus[0].pci_address, 100)
    said = options("--gpu-memory-utilization 0.8")
    command = on(found, look(tmp_path), options=said)
    assert flag(command, "--gpu-memory-utilization") == "0.8"


def test_a_cache_of_its_own_size_does_not_help_without_the_share(tmp_path: Path) -> None:
    found = seen(strix_halo(tmp_path))
    (one,) = found.gpus
    hold(tmp_path, one.pci_address, one.pool_bytes // GIB - 30)
    command = on(found, look(tmp_path))
    assert flag(command, "--kv-cache-memory-bytes") is not None
    assert flag(command, "--gpu-memory-utilization") is not None


def test_where_nothing_is_left_the_engine_says_so_itself(tmp_path: Path) -> None:
    found = seen(instinct(tmp_path))
    (one,) = found.gpus
    hold(tmp_path, one.pci_address, one.pool_bytes // GIB)
    command = on(found, look(tmp_path))
    assert flag(command, "--gpu-memory-utilization") is None
    assert command.context.budget_bytes == 0


def test_a_model_is_shared_by_more_gpus_where_others_are(tmp_path: Path) -> None:
    found = seen(two_instincts(tmp_path))
    large = {"weights_bytes": 120 * GIB}
    assert flag(on(found, (), **large), "--tensor-parallel-size") is None
    hold(tmp_path, found.gpus[0].pci_address, 100)
    command = on(found, look(tmp_path), **large)
    assert flag(command, "--tensor-parallel-size") == "2"
    share = float(flag(command, "--gpu-memory-utilization") or 0)
    assert share < 0.5, "the fuller of the two decides"


def test_on_a_processor_it_makes_no_difference() -> None:
    held = (DeviceHold(1, "nvidia:0", 100 * GIB),)
    assert plan(where="vllm-cpu", held=held).words == plan(where="vllm-cpu").words
