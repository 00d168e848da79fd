"""What `system-info` says of devices on machines that are not here."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from lemonade.gateway.system import _devices
from lemonade.hardware import Instruments, detect
from tests.unit.hardware import trees
from tests.unit.hardware.trees import FENCED, NVIDIA_SMI, printing

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the files of Linux")


def test_an_apu_and_a_card(tmp_path: Path) -> None:
    machine = detect(trees.apu_and_card(tmp_path), Instruments(may_open=lambda _: True))
    first, second = json.loads(json.dumps(_devices(machine)))["amd_gpu"]
    assert first == {
        "name": "AMD GPU gfx1151",
        "available": True,
        "family": "gfx1151",
        "integrated": True,
        "vram_gb": 64.0,
        "virtual_mem_gb": 31.2,
        "pci_address": "0000:c3:00.0",
    }
    assert (second["family"], second["integrated"]) == ("gfx1201", False)


def test_what_cannot_be_used_says_why_and_what_helps(tmp_path: Path) -> None:
    trees.strix_halo(tmp_path)
    trees.npu(tmp_path)
    devices = _devices(detect(tmp_path, FENCED))
    for row, node in (
        (devices["amd_gpu"][0], "/dev/kfd"),
        (devices["amd_npu"], "/dev/accel/accel0"),
    ):
        assert row["available"] is False
        assert row["error"] == f"{node} may not be opened by this user."
        assert "`sudo usermod -aG render $USER`" in row["action"]
        assert row["evidence"] == [{"path": node, "value": "mode 0660, group render"}]


def test_gpus_of_nvidia(tmp_path: Path) -> None:
    machine = detect(trees.nvidia_mixed(tmp_path), printing(NVIDIA_SMI)[0])
    first, second = _devices(machine)["nvidia_gpu"]
    assert first == {
        "name": "NVIDIA GeForce RTX 3090",
        "available": True,
        "family": "sm_86",
        "integrated": False,
        "vram_gb": 24.0,
        "driver_version": "570.86.15",
        "pci_address": "0000:01:00.0",
        "uuid": "GPU-6d3e7c35-5f1b-4f6b-9a68-0d6f1c0e9d11",
        "index": 0,
        "compute_capability": "8.6",
    }
    assert (second["index"], second["compute_capability"]) == (1, "12.0")


def test_a_plain_machine(tmp_path: Path) -> None:
    devices = _devices(detect(trees.plain(tmp_path)))
    assert (devices["amd_gpu"], devices["nvidia_gpu"]) == ([], [])
    assert "amd_npu" not in devices
