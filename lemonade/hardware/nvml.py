"""NVIDIA's own report about its GPUs: through its library (NVML), or through its program.

Both are the same facts from the same place; only the way differs. The program is older than the
bindings and always installed with the driver's tools, the bindings are quicker. Sources: NVIDIA's
NVML API reference; `nvidia-smi --help-query-gpu`.
"""

from __future__ import annotations

import contextlib
import csv
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from lemonade.core.records import dataclass

_FIELDS: Final = (
    "index", "uuid", "name", "compute_cap", "driver_version", "memory.total", "pci.bus_id"
)  # fmt: skip

COMMAND: Final = (
    "nvidia-smi",
    f"--query-gpu={','.join(_FIELDS)}",
    "--format=csv,noheader,nounits",
)

_MIB: Final = 1 << 20


class MemoryInfo(Protocol):
    """`total` in bytes."""

    total: int


class PciInfo(Protocol):
    """`busId`: `00000000:01:00.0`."""

    busId: str | bytes  # noqa: N815 - NVIDIA's name


class ProcessInfo(Protocol):
    """A process, and the bytes it holds; `None` where the driver does not tell."""

    pid: int
    usedGpuMemory: int | None  # noqa: N815 - NVIDIA's name


class Nvml(Protocol):
    """The part of `pynvml` we call. Old bindings give bytes where newer ones give strings."""

    # ruff: disable[N802, D102] - NVIDIA's names, documented there
    NVMLError: type[Exception]

    def nvmlInit(self) -> None: ...
    def nvmlShutdown(self) -> None: ...
    def nvmlSystemGetDriverVersion(self) -> str | bytes: ...
    def nvmlDeviceGetCount(self) -> int: ...
    def nvmlDeviceGetHandleByIndex(self, index: int) -> object: ...
    def nvmlDeviceGetName(self, handle: object) -> str | bytes: ...
    def nvmlDeviceGetUUID(self, handle: object) -> str | bytes: ...
    def nvmlDeviceGetCudaComputeCapability(self, handle: object) -> Sequence[int]: ...
    def nvmlDeviceGetMemoryInfo(self, handle: object) -> MemoryInfo: ...
    def nvmlDeviceGetComputeRunningProcesses(self, handle: object) -> Sequence[ProcessInfo]: ...
    def nvmlDeviceGetPciInfo(self, handle: object) -> PciInfo: ...

    # ruff: enable[N802, D102]


@dataclass(frozen=True, slots=True)
class NvidiaRow:
    """One GPU in NVIDIA's words.

    Attributes:
        source: who said it: `NVML` or `nvidia-smi`.
        capability: `8.6`, or empty.
        memory_bytes: its own; `None` where it has none and uses the machine's.
        pci_address: `0000:01:00.0`, as the kernel writes it.
    """

    source: str
    uuid: str
    name: str
    capability: str
    driver_version: str
    memory_bytes: int | None
    pci_address: str


def ask_nvml(nvml: Nvml) -> tuple[NvidiaRow, ...] | None:
    """All GPUs the library offers this process; `None` if it does not work here."""
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return None
    try:
        version = _string(nvml.nvmlSystemGetDriverVersion())
        rows = (_nvml_row(nvml, index, version) for index in range(nvml.nvmlDeviceGetCount()))
        return tuple(row for row in rows if row is not None)
    except nvml.NVMLError:
        return None
    finally:
        with contextlib.suppress(nvml.NVMLError):
            nvml.nvmlShutdown()


def read_nvidia_smi(printed: str) -> tuple[NvidiaRow, ...] | None:
    """What `COMMAND` printed; `None` if it is not what was asked for."""
    rows = []
    for words in csv.reader(printed.splitlines(), skipinitialspace=True):
        if len(words) != len(_FIELDS):
            return None
        _, uuid, name, capability, version, memory, address = (_known(word) for word in words)
        rows.append(
            NvidiaRow(
                source="nvidia-smi",
                uuid=uuid,
                name=name,
                capability=capability,
                driver_version=version,
                memory_bytes=int(memory) * _MIB if memory.isdigit() else None,
                pci_address=_address(address),
            )
        )
    return tuple(rows)


def first_answer(*questions: Callable[[], tuple[NvidiaRow, ...] | None]) -> tuple[NvidiaRow, ...]:
    """The first answer that names a GPU; empty if none does."""
    for question in questions:
        if rows := question():
            return rows
    return ()


def _nvml_row(nvml: Nvml, index: int, driver_version: str) -> NvidiaRow | None:
    """`None` for a GPU that does not answer: it must not hide the others."""
    try:
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        major, minor = nvml.nvmlDeviceGetCudaComputeCapability(handle)
        return NvidiaRow(
            source="NVML",
            uuid=_string(nvml.nvmlDeviceGetUUID(handle)),
            name=_string(nvml.nvmlDeviceGetName(handle)),
            capability=f"{major}.{minor}",
            driver_version=driver_version,
            memory_bytes=_nvml_memory(nvml, handle),
            pci_address=_address(_string(nvml.nvmlDeviceGetPciInfo(handle).busId)),
        )
    except nvml.NVMLError:
        return None


def _nvml_memory(nvml: Nvml, handle: object) -> int | None:
    try:
        return int(nvml.nvmlDeviceGetMemoryInfo(handle).total)
    except nvml.NVMLError:  # not supported: a GPU that uses the machine's memory
        return None


def address_of(nvml: Nvml, handle: object) -> str:
    """Where it is on the bus; empty if the library does not say."""
    try:
        return _address(_string(nvml.nvmlDeviceGetPciInfo(handle).busId))
    except nvml.NVMLError:
        return ""


def _string(text: str | bytes) -> str:
    return text.decode(errors="replace") if isinstance(text, bytes) else text


def _known(word: str) -> str:
    """`[N/A]`, `[Not Supported]` and their like say nothing."""
    return "" if word.startswith("[") else word.strip()


def _address(text: str) -> str:
    """NVIDIA writes eight digits of the PCI domain, the kernel four (or more, if it has more)."""
    domain, _, rest = text.lower().partition(":")
    return f"{domain.lstrip('0').rjust(4, '0')}:{rest}" if rest else ""
