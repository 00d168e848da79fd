"""A backend's support matrix against a machine: the device it would use, or the rule that refuses.

A row is compared key by key in a fixed order. Every refusal names what is needed and what is here,
the places where that was read, and what can be done about it; so a device without access is never
called absent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final, Literal

from lemonade.catalog.backend import RunsOnSpec
from lemonade.core.records import dataclass
from lemonade.hardware.facts import Evidence, Gpu, Machine, Npu

Device = Gpu | Npu

_SYSTEMS: Final = {"linux": "Linux", "windows": "Windows", "macos": "macOS"}
_VENDORS: Final = {"gfx": "amd", "sm_": "nvidia"}
"""Who makes the GPUs whose families begin so."""

_MAKERS: Final = {"gfx": "AMD", "sm_": "NVIDIA"}
_MANY: Final = 3

_CWSR_FAMILIES: Final = frozenset({"gfx1151"})
"""Those whose queues hang if ROCm must guess how much it takes to save them."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a row, or a whole matrix, does not fit.

    Attributes:
        rule: what refused, for programs: `os`, `cpu`, `cpu-features`, `gpu-absent`, `gpu-family`,
            `gpu-unknown`, the same of `npu`, `cwsr`, or the rule of a device's problem.
        reason: the same for people, as a sentence.
        evidence: what was read.
        fix: what can be done, as a sentence; empty if nothing can, short of another machine.
    """

    rule: str
    reason: str
    evidence: tuple[Evidence, ...]
    fix: str = ""


def best_device(rows: Sequence[RunsOnSpec], machine: Machine) -> Device | None:
    """The device a backend of these rows would compute on; `None` is the processor.

    A GPU of its own is preferred to an integrated one if the backend can use both; of NVIDIA's the
    newest architecture; among equals it is the one the driver lists first.
    """
    found = [
        device
        for row in rows
        if _first_miss(row, machine) is None
        for device in (*_ready(row, machine), *_usable(row.npu, machine.npus))
    ]
    order = [*machine.gpus, *machine.npus]
    return min(found, key=lambda d: (*rank(d), order.index(d)), default=None)


def chosen_there(rows: Sequence[RunsOnSpec], machine: Machine) -> bool:
    """Whether a row that fits is one where the backend is taken without being named."""
    return any(row.automatic and _first_miss(row, machine) is None for row in rows)


def refusal(rows: Sequence[RunsOnSpec], machine: Machine) -> Refusal | None:
    """Why none of the rows fits; `None` if one does.

    The reason comes from the rows that came nearest, so that nobody is told about Arm who has the
    wrong GPU.
    """
    misses = [_first_miss(row, machine) for row in rows]
    if any(miss is None for miss in misses):
        return None
    order = list(_REASONS)
    nearest = max((miss for miss in misses if miss), key=order.index, default="os")
    missed = [row for row, miss in zip(rows, misses, strict=True) if miss == nearest]
    return _REASONS[nearest](missed, machine)


def matches(pattern: str, family: str) -> bool:
    """Whether a family is one of the pattern's.

    `gfx110X` stands for gfx1100 to gfx110f, `gfx*` for whatever begins so.
    """
    if pattern.endswith("*"):
        return family.startswith(pattern[:-1])
    if pattern.endswith("X"):
        return len(family) == len(pattern) and family.startswith(pattern[:-1])
    return family == pattern


def lacking(gpu: Gpu, machine: Machine) -> tuple[Refusal, ...]:
    """Everything that backends may need for that GPU and the system does not do."""
    refusals = (check(gpu, machine) for check in _NEEDS.values())
    return tuple(refused for refused in refusals if refused is not None)


def either(words: Sequence[str]) -> str:
    """`a`, `a or b`, `a, b or c`."""
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} or {words[-1]}"


# ---- does it fit


def _first_miss(row: RunsOnSpec, machine: Machine) -> str | None:
    if row.os and machine.os not in row.os:
        return "os"
    if row.cpu and machine.cpu.family not in row.cpu:
        return "cpu"
    if _missing_features(row, machine):
        return "cpu-features"
    if row.npu and not _usable(row.npu, machine.npus):
        return "npu"
    if row.gpu and not _usable(row.gpu, machine.gpus):
        return "gpu"
    if row.gpu and not _ready(row, machine):
        return "needs"
    return None


def _missing_features(row: RunsOnSpec, machine: Machine) -> list[str]:
    if machine.cpu.family != "x86_64":
        return []
    return [feature for feature in row.cpu_features if feature not in machine.cpu.features]


def _usable(families: Sequence[str], devices: Sequence[Device]) -> list[Device]:
    return [d for d in devices if d.problem is None and _is_one_of(d.family, families)]


def _ready(row: RunsOnSpec, machine: Machine) -> list[Device]:
    """The usable GPUs that have all the row needs beside."""
    return [
        gpu
        for gpu in _usable(row.gpu, machine.gpus)
        if not any(_NEEDS[need](gpu, machine) for need in row.needs)
    ]


def rank(device: Device) -> tuple[bool, int]:
    """Lower is better. A number of NVIDIA's says which is newer; one of AMD's says nothing."""
    number = device.family.removeprefix("sm_")
    newness = int(number) if number.isdigit() else 0
    return (isinstance(device, Gpu) and device.integrated, -newness)


def _is_one_of(family: str, patterns: Sequence[str]) -> bool:
    return any(matches(pattern, family) for pattern in patterns)


# ---- why it does not


def _wrong_os(rows: Sequence[RunsOnSpec], machine: Machine) -> Refusal:
    systems = _distinct(_SYSTEMS.get(name, name) for row in rows for name in row.os)
    here = _SYSTEMS.get(machine.os, machine.os)
    return Refusal(
        "os",
        f"It needs {either(systems)}; this is {here}.",
        (Evidence("the operating system", machine.os_version or machine.os),),
    )


def _wrong_cpu(rows: Sequence[RunsOnSpec], machine: Machine) -> Refusal:
    families = _distinct(name for row in rows for name in row.cpu)
    return Refusal(
        "cpu",
        f"It needs a processor of the kind {either(families)}; this is {machine.cpu.family}.",
        (Evidence("/proc/cpuinfo", f"{machine.cpu.name} ({machine.cpu.family})"),),
    )


def _wrong_features(rows: Sequence[RunsOnSpec], machine: Machine) -> Refusal:
    row = min(rows, key=lambda row: len(_missing_features(row, machine)))
    missing = ", ".join(_missing_features(row, machine))
    return Refusal(
        "cpu-features",
        f"It needs the CPU features {', '.join(row.cpu_features)}; this CPU "
        f"({machine.cpu.name}) lacks {missing}.",
        (Evidence("/proc/cpuinfo", f"flags without {missing}"),),
        "In a virtual machine, pass the host's processor through; on the machine itself there "
        "is no way around it.",
    )


def _wrong_gpu(rows: Sequence[RunsOnSpec], machine: Machine) -> Refusal:
    families = _distinct(name for row in rows for name in row.gpu)
    vendors = {vendor for start, vendor in _VENDORS.items() for f in families if f[:3] == start}
    near = [gpu for gpu in machine.gpus if gpu.vendor in vendors or not vendors]
    unknown = [gpu for gpu in near if gpu.problem is None and not gpu.family]
    needed = f"It needs a GPU of {either(families)}"
    refused = _wrong_device("gpu", needed, families, near, machine)
    if refused.rule == "gpu-family" and unknown:
        return Refusal(
            "gpu-unknown",
            f"{needed}; of {unknown[0].name} it is not known what it is.",
            _seen(unknown[:1]),
            "Install nvidia-smi, which is part of the driver's tools (nvidia-utils), or "
            "nvidia-ml-py beside Lemonade, and start the server again.",
        )
    return refused


def _wrong_npu(rows: Sequence[RunsOnSpec], machine: Machine) -> Refusal:
    families = _distinct(name for row in rows for name in row.npu)
    needed = f"It needs an NPU of {either(families)}"
    return _wrong_device("npu", needed, families, machine.npus, machine)


def _makers(families: Sequence[str]) -> list[str]:
    """Who makes GPUs of these families, if they are many: who has none cares for no names."""
    if len(families) <= _MANY and not any(family.endswith("*") for family in families):
        return []
    return [maker for start, maker in _MAKERS.items() if any(f[:3] == start for f in families)]


def _wrong_device(
    kind: Literal["gpu", "npu"],
    needed: str,
    families: Sequence[str],
    near: Sequence[Device],
    machine: Machine,
) -> Refusal:
    """`near` are those that could be of the families, as far as the bus tells."""
    here: Sequence[Device] = machine.gpus if kind == "gpu" else machine.npus
    failed = [text for text in machine.problems if f"{kind.upper()}s" in text]
    if not here and failed:  # not to be called absent: nobody could look
        return Refusal(f"{kind}-unknown", f"{needed}. {' '.join(failed)}", ())
    if not here:
        seen = (Evidence("/sys/bus/pci/devices", f"no {kind.upper()}"),)
        if makers := _makers(families):
            needed = f"It needs a GPU of {either(makers)}"
        return Refusal(f"{kind}-absent", f"{needed}; this machine has none.", seen)
    for device in near:
        problem = device.problem
        if problem and (not device.family or _is_one_of(device.family, families)):
            return Refusal(
                problem.rule,
                f"{needed}; there is {device.name}, but: {problem.reason}",
                (problem.evidence,),
                problem.fix,
            )
    found = _distinct(f"{d.name} ({d.family or 'of an unknown family'})" for d in here)
    return Refusal(
        f"{kind}-family", f"{needed}; this machine has {', '.join(found)}.", _seen(here)
    )


def _lacks(rows: Sequence[RunsOnSpec], machine: Machine) -> Refusal:
    refusals = (
        _NEEDS[need](gpu, machine)
        for row in rows
        for gpu in _usable(row.gpu, machine.gpus)
        for need in row.needs
    )
    return next(refused for refused in refusals if refused is not None)


def _lacks_cwsr(device: Device, machine: Machine) -> Refusal | None:
    """The kernel must export both sizes; which kernels do is not known by their version."""
    if not isinstance(device, Gpu) or device.family not in _CWSR_FAMILIES:
        return None
    sizes = {"cwsr_size": device.cwsr_bytes, "ctl_stack_size": device.ctl_stack_bytes}
    missing = [name for name, size in sizes.items() if size is None]
    if not missing:
        return None
    where = device.seen.path if device.seen else "KFD's properties"
    evidence = [
        Evidence(where, f"no {' and no '.join(missing)}"),
        Evidence("/proc/sys/kernel/osrelease", machine.kernel),
    ]
    fix = "Start Linux 6.18.4 or newer, or your distribution's kernel that has the fix."
    if device.driver_version:  # only a driver from outside the kernel's tree has a version
        evidence.append(Evidence("/sys/module/amdgpu/version", device.driver_version))
        fix = (
            f"Remove amdgpu-dkms ({device.driver_version}), which takes the place of the kernel's "
            "own driver, and start Linux 6.18.4 or newer."
        )
    return Refusal(
        "cwsr",
        f"The kernel lacks a fix that {device.name} ({device.family}) needs: it does not say "
        f"{' and '.join(missing)}, and computing would hang.",
        tuple(evidence),
        fix,
    )


_NEEDS: Final[dict[str, Callable[[Device, Machine], Refusal | None]]] = {"cwsr": _lacks_cwsr}

_REASONS: Final[dict[str, Callable[[Sequence[RunsOnSpec], Machine], Refusal]]] = {
    "os": _wrong_os,
    "cpu": _wrong_cpu,
    "cpu-features": _wrong_features,
    "npu": _wrong_npu,
    "gpu": _wrong_gpu,
    "needs": _lacks,
}
"""In this order a row is compared; the later it fails, the nearer it came."""


def _seen(devices: Sequence[Device]) -> tuple[Evidence, ...]:
    return tuple(device.seen for device in devices if device.seen is not None)


def _distinct(words: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(words))
