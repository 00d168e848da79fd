"""Does a backend run on this machine, and which of a recipe's backends is taken.

Every "no" is a sentence with its evidence: what is needed, what is here, and what to do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from lemonade.catalog.backend import BackendSpec
from lemonade.catalog.recipe import RecipeSpec
from lemonade.core.errors import UnknownBackend, UnsupportedHere
from lemonade.core.ids import BackendId
from lemonade.core.records import dataclass
from lemonade.hardware.facts import Evidence, Gpu, Machine
from lemonade.planning.matrix import Device, best_device, chosen_there, rank, refusal

_LIST: Final = "`lemonade backends --all` shows what runs here and why the rest does not."
_AUTOMATIC: Final = frozenset({"", "auto"})
_ANOTHER_MACHINE: Final = frozenset(
    {
        "os",
        "cpu",
        "cpu-features",
        *(f"{kind}-{what}" for kind in ("gpu", "npu") for what in ("absent", "family", "unknown")),
    }
)
"""Rules that say it takes another machine, or that nobody knows what this one is."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a backend runs on a machine.

    Attributes:
        rule: what refused it, for programs (`planning.matrix.Refusal`); empty if nothing did.
        reason: why not, as a sentence; empty if it does.
        evidence: what was read, and where.
        fix: what to do about it, as a sentence; empty if nothing can be done.
        device: what it would compute on; `None` is the processor.
        automatic: whether it may be taken when nobody named it and it is not installed.
    """

    backend: BackendId
    supported: bool
    rule: str = ""
    reason: str = ""
    evidence: tuple[Evidence, ...] = ()
    fix: str = ""
    device: Device | None = None
    automatic: bool = True

    @property
    def actionable(self) -> bool:
        """Whether all it takes is here, and somebody has to do `fix` before it can be used."""
        return not self.supported and bool(self.fix) and self.rule not in _ANOTHER_MACHINE

    @property
    def remedy(self) -> str:
        """For an error that ends with this verdict: the fix, or where to look for another way."""
        return "" if self.supported else self.fix or _LIST


Candidate = tuple[BackendSpec, Verdict, bool]
"""A backend, the verdict on it, and whether it is installed."""


def judge(backend: BackendSpec, machine: Machine) -> Verdict:
    """Whether the backend runs on the machine; one matching row of its matrix is enough."""
    refused = refusal(backend.runs_on, machine)
    if refused is None:
        device = best_device(backend.runs_on, machine)
        automatic = chosen_there(backend.runs_on, machine)
        return Verdict(backend.backend_id, supported=True, device=device, automatic=automatic)
    return Verdict(
        backend.backend_id,
        supported=False,
        rule=refused.rule,
        reason=refused.reason,
        evidence=refused.evidence,
        fix=refused.fix,
    )


def judge_for(backend: BackendSpec, machine: Machine, checkpoint: str) -> Verdict:
    """The same for one model, by the name of its main checkpoint."""
    verdict = judge(backend, machine)
    if not verdict.supported or backend.runs(checkpoint):
        return verdict
    return Verdict(
        backend.backend_id,
        supported=False,
        rule="made-for-another",
        reason=f"{backend.title} cannot run it: the model was made for other devices.",
    )


def deciding_gpu(backend: BackendSpec, machine: Machine) -> Gpu | None:
    """The GPU a bundle is made for: the one it would compute on, if that is one.

    Where the backend does not run at all and is wanted nevertheless, the best that can be used.
    """
    device = best_device(backend.runs_on, machine)
    if isinstance(device, Gpu):
        return device
    usable = [gpu for gpu in machine.gpus if gpu.family and gpu.problem is None]
    return min(usable, key=rank, default=None)


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
        why = why_not(candidate, prefer_system=prefer_system)
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
                    facts={"rule": verdict.rule, "evidence": [str(e) for e in verdict.evidence]},
                )
            return spec
    names = [spec.backend_id.variant for spec, _, _ in candidates]
    raise UnknownBackend(
        f"{recipe.title} has no backend '{wanted}'.",
        remedy=f"It has {', '.join(names)}; empty picks the best of them." if names else "",
        facts={"near": names, "requested": wanted},
    )


def why_not(candidate: Candidate, *, prefer_system: bool) -> str:
    """Why a backend that nobody named is not taken, as a sentence; empty if it may be."""
    spec, verdict, installed = candidate
    if not verdict.supported:
        return verdict.reason
    if not spec.pin.fetched and not installed:
        return f"{spec.pin.executable} is not on this machine."
    if spec.pin.source == "system" and not prefer_system:
        return "It is here, but prefer_system is off."
    if not verdict.automatic and not installed:
        return "It runs here, but is only taken once it is named or installed."
    return ""
