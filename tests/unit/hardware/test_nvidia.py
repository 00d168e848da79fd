"""NVIDIA's GPUs: who is asked, in which order, and what is made of the answers.

The answers are recorded; no GPU of NVIDIA's was at hand.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from lemonade.hardware import Instruments, detect, real_instruments
from lemonade.hardware.instruments import run_program
from lemonade.hardware.nvml import COMMAND, read_nvidia_smi
from tests.serving import survivors
from tests.unit.hardware import trees
from tests.unit.hardware.trees import MEMORY, NVIDIA_SMI, base, nvidia_gpu, printing

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the files of Linux")

MIB = 1 << 20


class NotThere(Exception):
    """As NVIDIA's library says it."""


@dataclass
class Memory:
    total: int


@dataclass
class Pci:
    busId: bytes | str  # noqa: N815 - NVIDIA's name


class Library:
    """Speaks as NVIDIA's library does, of GPUs it was told of."""

    # ruff: disable[N802] - NVIDIA's names
    NVMLError = NotThere

    def __init__(self, *rows: tuple[str, tuple[int, int], int | None, str], **more: bool) -> None:
        self.rows = rows
        self.works = more.get("works", True)
        self.old = more.get("old", False)
        self.open = 0

    def _say(self, text: str) -> str | bytes:
        return text.encode() if self.old else text

    def nvmlInit(self) -> None:
        if not self.works:
            raise NotThere
        self.open += 1

    def nvmlShutdown(self) -> None:
        self.open -= 1

    def nvmlSystemGetDriverVersion(self) -> str | bytes:
        return self._say("580.126.09")

    def nvmlDeviceGetCount(self) -> int:
        return len(self.rows)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> object:
        if not self.rows[index][0]:
            raise NotThere
        return index

    def _row(self, handle: object) -> tuple[str, tuple[int, int], int | None, str]:
        assert isinstance(handle, int)
        return self.rows[handle]

    def nvmlDeviceGetName(self, handle: object) -> str | bytes:
        return self._say(self._row(handle)[0])

    def nvmlDeviceGetUUID(self, handle: object) -> str | bytes:
        return self._say(f"GPU-{handle}")

    def nvmlDeviceGetCudaComputeCapability(self, handle: object) -> tuple[int, int]:
        return self._row(handle)[1]

    def nvmlDeviceGetMemoryInfo(self, handle: object) -> Memory:
        total = self._row(handle)[2]
        if total is None:
            raise NotThere
        return Memory(total)

    def nvmlDeviceGetPciInfo(self, handle: object) -> Pci:
        return Pci(self._say(self._row(handle)[3]))

    # ruff: enable[N802]


RTX_3090 = ("NVIDIA GeForce RTX 3090", (8, 6), 24576 * MIB, "00000000:01:00.0")
RTX_5090 = ("NVIDIA GeForce RTX 5090", (12, 0), 32607 * MIB, "00000000:02:00.0")


@pytest.mark.parametrize(
    "tree", [trees.plain, trees.arm, trees.strix_halo, trees.container, trees.npu_ready]
)
def test_nobody_is_asked_where_there_is_none(tmp_path: Path, tree: trees.Tree) -> None:
    def library() -> None:
        raise AssertionError("NVIDIA's library was asked for")

    programs, asked = printing(NVIDIA_SMI)
    machine = detect(tree(tmp_path), Instruments(run=programs.run, nvml=library))
    assert asked == []
    assert [gpu for gpu in machine.gpus if gpu.vendor == "nvidia"] == []


def test_nobody_is_asked_without_the_driver(tmp_path: Path) -> None:
    nvidia_gpu(base(tmp_path), "0000:01:00.0", "", "0x2204", driver="nouveau")
    nvidia_gpu(tmp_path, "0000:02:00.0", "", "0x2204", driver="")
    instruments, asked = printing(NVIDIA_SMI)
    problems = [gpu.problem for gpu in detect(tmp_path, instruments).gpus]
    assert asked == []
    assert [p.rule for p in problems if p] == ["driver-other", "driver-missing"]
    assert [p.reason for p in problems if p] == [
        "The driver nouveau is bound to it, not nvidia.",
        "NVIDIA's driver is not loaded.",
    ]
    assert all(p.fix for p in problems if p)


def test_the_program_is_asked(tmp_path: Path) -> None:
    instruments, asked = printing(NVIDIA_SMI)
    first, second = detect(trees.nvidia_mixed(tmp_path), instruments).gpus
    assert asked == [COMMAND]
    assert (first.family, second.family) == ("sm_86", "sm_120")
    assert (first.vram_bytes, first.pool_bytes) == (24576 * MIB, 24576 * MIB)
    assert first.uuid == "GPU-6d3e7c35-5f1b-4f6b-9a68-0d6f1c0e9d11"
    assert (first.driver_version, second.pci_address) == ("570.86.15", "0000:02:00.0")
    assert (first.integrated, first.problem, str(first.seen)) == (
        False,
        None,
        "nvidia-smi: compute capability 8.6",
    )


@pytest.mark.parametrize("old", [False, True])
def test_the_library_comes_first(tmp_path: Path, *, old: bool) -> None:
    library = Library(RTX_3090, RTX_5090, old=old)
    programs, asked = printing(NVIDIA_SMI)
    instruments = Instruments(run=programs.run, nvml=lambda: library)
    found = detect(trees.nvidia_mixed(tmp_path), instruments).gpus
    assert asked == []
    assert library.open == 0
    assert [(gpu.name, gpu.family, gpu.vram_bytes, gpu.pci_address) for gpu in found] == [
        ("NVIDIA GeForce RTX 3090", "sm_86", 24576 * MIB, "0000:01:00.0"),
        ("NVIDIA GeForce RTX 5090", "sm_120", 32607 * MIB, "0000:02:00.0"),
    ]
    assert {gpu.driver_version for gpu in found} == {"580.126.09"}


def test_a_library_that_does_not_work(tmp_path: Path) -> None:
    programs, asked = printing(NVIDIA_SMI)
    instruments = Instruments(run=programs.run, nvml=lambda: Library(works=False))
    assert len(detect(trees.nvidia_mixed(tmp_path), instruments).gpus) == 2
    assert asked == [COMMAND]


def test_a_gpu_that_does_not_answer_hides_no_other(tmp_path: Path) -> None:
    library = Library(("", (0, 0), 0, ""), RTX_5090)
    instruments = Instruments(nvml=lambda: library)
    answering, silent = detect(trees.nvidia_mixed(tmp_path), instruments).gpus
    assert answering.family == "sm_120"
    assert (silent.name, silent.family) == ("NVIDIA GeForce RTX 3090", "")
    assert silent.problem is not None
    assert silent.problem.rule == "device-missing"


@pytest.mark.parametrize("printed", [None, "", "No devices were found\n", "Failed to initialize"])
def test_files_are_left_if_nobody_answers(tmp_path: Path, printed: str | None) -> None:
    instruments, asked = printing(printed)
    first, _ = detect(trees.nvidia_mixed(tmp_path), instruments).gpus
    assert asked == [COMMAND]
    assert (first.name, first.driver_version) == ("NVIDIA GeForce RTX 3090", "570.86.15")
    assert (first.family, first.vram_bytes, first.problem) == ("", 0, None)


def test_a_container_that_was_not_given_them(tmp_path: Path) -> None:
    trees.nvidia_mixed(tmp_path)
    (tmp_path / "dev/nvidiactl").unlink()
    first, _ = detect(tmp_path).gpus
    assert first.problem is not None
    assert first.problem.rule == "device-missing"
    assert "`--gpus all`" in first.problem.fix


def test_a_gpu_that_uses_the_machines_memory(tmp_path: Path) -> None:
    nvidia_gpu(base(tmp_path), "000f:01:00.0", "NVIDIA GB10", "0x2e12")
    line = "0, GPU-2d, NVIDIA GB10, 12.1, 580.126.09, [N/A], 0000000F:01:00.0\n"
    (by_program,) = detect(tmp_path, printing(line)[0]).gpus
    library = Library(("NVIDIA GB10", (12, 1), None, "0000000F:01:00.0"))
    (by_library,) = detect(tmp_path, Instruments(nvml=lambda: library)).gpus
    for gpu in (by_program, by_library):
        assert (gpu.family, gpu.integrated, gpu.vram_bytes) == ("sm_121", True, 0)
        assert (gpu.pool_bytes, gpu.pci_address) == (MEMORY, "000f:01:00.0")


def test_what_is_not_known_is_empty() -> None:
    rows = read_nvidia_smi(
        "0, [N/A], Tesla K80, [Not Supported], 470.1, 11441, 00010000:01:00.0\n"
    )
    assert rows is not None
    assert (rows[0].uuid, rows[0].capability, rows[0].pci_address) == ("", "", "10000:01:00.0")


# ---- starting the program


def script(folder: Path, name: str, text: str) -> Path:
    program = folder / name
    program.write_text(f"#!/bin/sh\n{text}\n")
    program.chmod(0o755)
    return program


def test_a_program_on_the_path_is_run(tmp_path: Path) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    lines = NVIDIA_SMI.replace("\n", "\\n")
    script(folder, "nvidia-smi", f'[ "$2" = --format=csv,noheader,nounits ] && printf "{lines}"')
    real = real_instruments({"PATH": str(folder)})
    found = detect(trees.nvidia_mixed(tmp_path), Instruments(run=real.run)).gpus
    assert [gpu.family for gpu in found] == ["sm_86", "sm_120"]
    assert real.run is not None
    assert real.run(("no-such-program-anywhere",), 5) is None


def test_programs_that_fail(tmp_path: Path) -> None:
    assert run_program((str(script(tmp_path, "good", "echo well")),), 30) == "well\n"
    assert run_program((str(script(tmp_path, "bad", "echo well; exit 9")),), 30) is None
    assert run_program((str(tmp_path / "missing"),), 30) is None
    assert run_program((str(tmp_path),), 30) is None
    assert run_program((str(script(tmp_path, "env", "echo $SECRET$LC_ALL")),), 30) == "C\n"


def test_a_program_that_hangs_is_ended(tmp_path: Path) -> None:
    hanging = script(tmp_path, "hanging", "sleep 1000 & sleep 1000")
    assert run_program((str(hanging),), 0.1) is None
    assert not survivors(tmp_path)
