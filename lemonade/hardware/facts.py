"""What a machine is: frozen, JSON-able, and without a method that looks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


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
        render_node: `/dev/dri/renderD128`, or empty.
        driver_version: or empty.
        problem: why it cannot be used; empty when it can.
    """

    vendor: Literal["amd", "nvidia"]
    name: str
    family: str
    integrated: bool
    vram_bytes: int = 0
    shared_bytes: int = 0
    render_node: str = ""
    driver_version: str = ""
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Npu:
    """A neural processor.

    Attributes:
        name: as the driver gives it.
        family: `XDNA2`, or empty when unknown.
        problem: why it cannot be used; empty when it can.
    """

    name: str
    family: str
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Machine:
    """One look at the machine.

    Attributes:
        os: `linux`, `windows` or `macos`.
        os_version: for people.
        kernel: release of the kernel.
        memory_bytes: physical memory, or the container's limit if that is less.
        problems: detectors that could not answer, as sentences.
    """

    os: str
    os_version: str
    kernel: str
    cpu: Cpu
    memory_bytes: int
    gpus: tuple[Gpu, ...] = ()
    npus: tuple[Npu, ...] = ()
    problems: tuple[str, ...] = ()
