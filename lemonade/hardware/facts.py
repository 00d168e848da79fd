"""What a machine is: frozen, JSON-able, and without a method that looks."""

from __future__ import annotations

from typing import Final, Literal

from lemonade.core.records import dataclass

ProblemRule = Literal[
    "driver-missing",
    "driver-other",
    "no-compute",
    "device-missing",
    "no-permission",
    "quarantined",
]
"""In this order a device is looked at: it is on the bus, it has its driver, the driver works it,
its node is in `/dev`, and this user may open that. The last is found out by using it: memory that
an engine held did not come back."""

QUARANTINED: Final[ProblemRule] = "quarantined"


@dataclass(frozen=True, slots=True)
class Evidence:
    """Something that was read.

    Attributes:
        path: where; a file as the machine names it, or the program that was asked.
        value: what it said, or that there was nothing.
    """

    path: str
    value: str

    def __str__(self) -> str:
        return f"{self.path}: {self.value}"


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a device that is there cannot be used.

    Attributes:
        rule: what is wrong, for programs.
        reason: the same for people, as a sentence.
        evidence: what was read.
        fix: what to do about it, as a sentence.
    """

    rule: ProblemRule
    reason: str
    evidence: Evidence
    fix: str

    def __str__(self) -> str:
        return self.reason


@dataclass(frozen=True, slots=True)
class Cpu:
    """The processor.

    Attributes:
        name: as the kernel names it.
        family: `x86_64`, `arm64` or `unknown`.
        cores: physical.
        threads: logical, those this process may use.
        features: flags as /proc/cpuinfo names them.
    """

    name: str
    family: str
    cores: int
    threads: int
    features: frozenset[str]


@dataclass(frozen=True, slots=True)
class Gpu:
    """A graphics processor.

    Attributes:
        vendor: who made it.
        name: as the driver gives it.
        family: `gfx1151` (AMD) or `sm_86` (NVIDIA); empty when unknown.
        integrated: shares memory with the processor.
        vram_bytes: own memory (or carve-out); 0 when unknown.
        shared_bytes: system memory it may map (GTT); 0 when none.
        pci_address: `0000:c3:00.0`, or empty.
        render_node: `/dev/dri/renderD128`, or empty.
        uuid: what the vendor's visibility variable takes (`GPU-…`), or empty.
        driver_version: or empty.
        cwsr_bytes: what the driver says it needs to save the waves of a compute queue; `None` if
            it does not say.
        ctl_stack_bytes: the part of that for the control stack; `None` if it does not say.
        seen: where `family` was read.
        problem: why it cannot be used; `None` when it can.
    """

    vendor: Literal["amd", "nvidia"]
    name: str
    family: str
    integrated: bool
    vram_bytes: int = 0
    shared_bytes: int = 0
    pci_address: str = ""
    render_node: str = ""
    uuid: str = ""
    driver_version: str = ""
    cwsr_bytes: int | None = None
    ctl_stack_bytes: int | None = None
    seen: Evidence | None = None
    problem: Problem | None = None

    @property
    def pool_bytes(self) -> int:
        """The memory one model can have on it; 0 when unknown.

        A board of its own has its VRAM. What it may map beside that is main memory at the other
        end of a bus, and does not count. An integrated one has two views of the same chips, the
        carve-out and what it may map of the rest, and an allocation lies in one of them: the
        larger counts, and never their sum, which may be more than the machine has.
        """
        if self.integrated:
            return max(self.vram_bytes, self.shared_bytes)
        return self.vram_bytes


@dataclass(frozen=True, slots=True)
class Npu:
    """A neural processor.

    Attributes:
        name: as the driver gives it.
        family: `XDNA2`, or empty when unknown.
        pci_address: `0000:c5:00.1`, or empty.
        device_node: `/dev/accel/accel0`, or empty.
        firmware: its version, or empty.
        seen: where `family` was read.
        problem: why it cannot be used; `None` when it can.
    """

    name: str
    family: str
    pci_address: str = ""
    device_node: str = ""
    firmware: str = ""
    seen: Evidence | None = None
    problem: Problem | None = None


@dataclass(frozen=True, slots=True)
class RocmRoot:
    """A ROCm that this system has.

    Attributes:
        path: its root.
        version: as its files say; empty if they say nothing.
        named: whether the operator named it, in `ROCM_PATH`.
    """

    path: str
    version: str
    named: bool = False


@dataclass(frozen=True, slots=True)
class Machine:
    """One look at the machine.

    Attributes:
        os: `linux`, `windows` or `macos`.
        os_version: for people.
        kernel: release of the kernel.
        memory_bytes: physical memory, or the container's limit if that is less.
        problems: detectors that could not answer, as sentences.
        rocm: where ROCm was installed by others.
    """

    os: str
    os_version: str
    kernel: str
    cpu: Cpu
    memory_bytes: int
    gpus: tuple[Gpu, ...] = ()
    npus: tuple[Npu, ...] = ()
    problems: tuple[str, ...] = ()
    rocm: tuple[RocmRoot, ...] = ()
