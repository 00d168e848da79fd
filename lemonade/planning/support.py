"""Does a backend run on this machine, and which of a recipe's backends is taken.

Every "no" is a sentence with its evidence: what is needed and what is here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from lemonade.catalog.backend import BackendSpec, RunsOnSpec
from lemonade.catalog.recipe import RecipeSpec
from lemonade.core.errors import UnknownBackend, UnsupportedHere
from lemonade.core.ids import BackendId
from lemonade.hardware.facts import Gpu, Machine, Npu

_LIST: Final = "`lemonade backends --all` shows what runs here and why the rest does not."
_AUTOMATIC: Final = frozenset({"", "auto"})
_SYSTEMS: Final = {"linux": "Linux", "windows": "Windows", "macos": "macOS"}


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a backend runs on a machine.

    Attributes:
        reason: why not, as a sentence; empty if it does.
        remedy: what to do about it; may be empty.
    """

    backend: BackendId
    supported: bool
    reason: str = ""
    remedy: str = ""


Candidate = tuple[BackendSpec, Verdict, bool]
"""A backend, the verdict on it, and whether it is installed."""


def judge(backend: BackendSpec, machine: Machine) -> Verdict:
    """Whether the backend runs on the machine.

    One matching row of its support matrix is enough. If none matches, the reason comes from the
    rows that came nearest, so that nobody is told about Arm who has the wrong GPU.
    """
    misses = [_first_miss(row, machine) for row in backend.runs_on]
    if any(miss is None for miss in misses):
        return Verdict(backend.backend_id, supported=True)
    rows = list(zip(backend.runs_on, misses, strict=True))
    nearest = max((miss for miss in misses if miss), key=_STAGES.index, default="os")
    reason = _REASONS[nearest]([row for row, miss in rows if miss == nearest], machine)
    return Verdict(backend.backend_id, supported=False, reason=reason, remedy=_LIST)


def choose_backend(
    recipe: RecipeSpec,
    candidates: Sequence[Candidate],
    wanted: str,
    *,
    prefer_system: bool,
) -> BackendSpec:
    """The backend to use.

    `wanted` is a variant's name, perhaps with its recipe: it is that one or an error. Empty or
    `auto` leaves it to us: the first supported one by preference, an installed one before one that
    would have to be installed. What Lemonade cannot install is taken only if it is there, and a
    `system` program only if the operator prefers those.

    Raises:
        UnknownBackend: the recipe has no such variant.
        UnsupportedHere: the named one, or none at all, runs here; the message holds the reasons.
    """
    ordered = sorted(candidates, key=lambda candidate: candidate[0].preference)
    if wanted not in _AUTOMATIC:
        return _named(recipe, ordered, wanted)
    reasons: list[str] = []
    usable: list[Candidate] = []
    for candidate in ordered:
        why = _why_not(candidate, prefer_system=prefer_system)
        if why:
            reasons.append(f"{candidate[0].id}: {why}")
        else:
            usable.append(candidate)
    if usable:
        return next((spec for spec, _, installed in usable if installed), usable[0][0])
    raise UnsupportedHere(
        f"No backend of {recipe.title} runs on this machine. {' '.join(reasons)}".rstrip(),
        remedy=_LIST,
        facts={"reasons": reasons},
    )


def _named(recipe: RecipeSpec, candidates: Sequence[Candidate], wanted: str) -> BackendSpec:
    variant = wanted.removeprefix(f"{recipe.id}:")
    for spec, verdict, _ in candidates:
        if spec.backend_id.variant == variant:
            if not verdict.supported:
                raise UnsupportedHere(
                    f"{spec.id} does not run on this machine. {verdict.reason}",
                    remedy=verdict.remedy,
                )
            return spec
    names = [spec.backend_id.variant for spec, _, _ in candidates]
    raise UnknownBackend(
        f"{recipe.title} has no backend '{wanted}'.",
        remedy=f"It has {', '.join(names)}; empty picks the best of them." if names else "",
        facts={"near": names, "requested": wanted},
    )


def _why_not(candidate: Candidate, *, prefer_system: bool) -> str:
    spec, verdict, installed = candidate
    if not verdict.supported:
        return verdict.reason
    if not spec.pin.fetched and not installed:
        return f"{spec.pin.executable} is not on this machine."
    if spec.pin.source == "system" and not prefer_system:
        return "It is here, but prefer_system is off."
    return ""


# ---- rows and machines

_STAGES: Final = ("os", "cpu", "cpu_features", "npu", "gpu")
"""In this order a row is compared; the later it fails, the nearer it came."""


def _first_miss(row: RunsOnSpec, machine: Machine) -> str | None:
    if row.os and machine.os not in row.os:
        return "os"
    if row.cpu and machine.cpu.family not in row.cpu:
        return "cpu"
    if _missing_features(row, machine):
        return "cpu_features"
    if row.npu and not any(_usable(npu, row.npu) for npu in machine.npus):
        return "npu"
    if row.gpu and not any(_usable(gpu, row.gpu) for gpu in machine.gpus):
        return "gpu"
    return None


def _missing_features(row: RunsOnSpec, machine: Machine) -> list[str]:
    if machine.cpu.family != "x86_64":
        return []
    return [feature for feature in row.cpu_features if feature not in machine.cpu.features]


def _usable(device: Gpu | Npu, families: Sequence[str]) -> bool:
    return not device.problem and any(_matches(family, device.family) for family in families)


def deciding_gpu(backend: BackendSpec, machine: Machine) -> Gpu | None:
    """The GPU a bundle is made for: a usable one that the backend runs on, if there is any.

    A discrete one comes before an integrated one, and the newest before older ones of its kind.
    """
    families = [family for row in backend.runs_on for family in row.gpu]
    usable = [gpu for gpu in machine.gpus if gpu.family and not gpu.problem]
    fitting = [gpu for gpu in usable if any(_matches(f, gpu.family) for f in families)]
    return max(fitting or usable, key=_rank, default=None)


def _rank(gpu: Gpu) -> tuple[bool, int]:
    number = gpu.family.removeprefix("sm_")
    # Of NVIDIA's the number says which is newer; of AMD's the first one listed counts.
    return (not gpu.integrated, int(number) if number.isdigit() else 0)


def _matches(pattern: str, family: str) -> bool:
    """`gfx110X` stands for gfx1100 to gfx110f, `sm_*` for all of NVIDIA's."""
    if pattern.endswith("*"):
        return family.startswith(pattern[:-1])
    if pattern.endswith("X"):
        return len(family) == len(pattern) and family.startswith(pattern[:-1])
    return family == pattern


def _wrong_os(rows: Sequence[RunsOnSpec], machine: Machine) -> str:
    systems = _distinct(_SYSTEMS.get(name, name) for row in rows for name in row.os)
    return f"It needs {_either(systems)}; this is {_SYSTEMS.get(machine.os, machine.os)}."


def _wrong_cpu(rows: Sequence[RunsOnSpec], machine: Machine) -> str:
    families = _distinct(name for row in rows for name in row.cpu)
    return f"It needs a processor of the kind {_either(families)}; this is {machine.cpu.family}."


def _wrong_features(rows: Sequence[RunsOnSpec], machine: Machine) -> str:
    row = min(rows, key=lambda row: len(_missing_features(row, machine)))
    return (
        f"It needs the CPU features {', '.join(row.cpu_features)}; this CPU "
        f"({machine.cpu.name}) lacks {', '.join(_missing_features(row, machine))}."
    )


def _wrong_gpu(rows: Sequence[RunsOnSpec], machine: Machine) -> str:
    families = _distinct(name for row in rows for name in row.gpu)
    return _wrong_device("a GPU", families, machine.gpus)


def _wrong_npu(rows: Sequence[RunsOnSpec], machine: Machine) -> str:
    families = _distinct(name for row in rows for name in row.npu)
    return _wrong_device("an NPU", families, machine.npus)


_MAKERS: Final = {"gfx*": "AMD", "sm_*": "NVIDIA"}
_MANY: Final = 3


def _any_of(pattern: str, families: Sequence[str]) -> bool:
    return any(_matches(pattern, family) for family in families)


def _wrong_device(kind: str, families: Sequence[str], here: Sequence[Gpu | Npu]) -> str:
    needed = f"It needs {kind} of {_either([_MAKERS.get(name, name) for name in families])}"
    if not here:
        if len(families) > _MANY:  # who has none at all does not care for their names
            makers = [_MAKERS[name] for name in _MAKERS if _any_of(name, families)]
            needed = f"It needs {kind} of {_either(makers)}"
        return f"{needed}; this machine has none."
    broken = [device for device in here if device.problem]
    fitting = [d for d in broken if not d.family or any(_matches(f, d.family) for f in families)]
    if fitting:
        return f"{needed}; there is {fitting[0].name}, but: {fitting[0].problem}"
    found = _distinct(f"{d.name} ({d.family or 'of an unknown family'})" for d in here)
    return f"{needed}; this machine has {', '.join(found)}."


_REASONS: Final = {
    "os": _wrong_os,
    "cpu": _wrong_cpu,
    "cpu_features": _wrong_features,
    "npu": _wrong_npu,
    "gpu": _wrong_gpu,
}


def _distinct(words: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(words))


def _either(words: Sequence[str]) -> str:
    """`a`, `a or b`, `a, b or c`."""
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} or {words[-1]}"
