"""Who must leave so that a model may be loaded.

Slots are counted per type of model; how an engine shares the machine beyond that is its recipe's
slot policy, or its backend's where that is another:

- `standard`: takes a slot of its type.
- `exclusive-npu`: takes a slot, and the NPU for itself: nobody else may use it meanwhile.
- `coexist-by-type`: takes a slot, shares the NPU with its like, but one of a type at a time.
- `unmetered`: runs elsewhere; takes no slot, and never makes anyone leave.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from lemonade.catalog.backend import BackendSpec, SlotPolicy
from lemonade.catalog.recipe import RecipeSpec
from lemonade.core.errors import EverythingPinned
from lemonade.core.inference import ModelType
from lemonade.core.records import dataclass

UNLIMITED: Final = -1
_NPU: Final = "npu"


@dataclass(frozen=True, slots=True)
class ResidentFacts:
    """A model that holds a slot.

    Attributes:
        model: unique among residents.
        devices: what it computes on: `cpu`, `gpu`, `npu`.
        pinned: may not be asked to leave.
        last_use: seconds on any clock that all residents share.
        busy: whether requests are running.
    """

    model: str
    type: ModelType
    slots: SlotPolicy
    devices: tuple[str, ...]
    pinned: bool
    last_use: float
    busy: bool


@dataclass(frozen=True, slots=True)
class Demand:
    """A model that wants a slot."""

    model: str
    type: ModelType
    slots: SlotPolicy
    devices: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class EvictionPlan:
    """Who leaves, in this order, and why: a sentence, empty if nobody does."""

    stop: tuple[str, ...]
    reason: str


def slot_policy(recipe: RecipeSpec, backend: BackendSpec | None) -> SlotPolicy:
    """How a resident shares the machine; its backend may not be known yet."""
    own = backend.slots if backend is not None else None
    return own or recipe.slots


def plan_eviction(
    wanted: Demand, residents: Sequence[ResidentFacts], max_per_type: int
) -> EvictionPlan:
    """Choose the fewest residents to stop, the least recently used first.

    A busy resident counts as in use now, so an idle one goes before it. A resident of the wanted
    model itself is about to be replaced: it is neither counted nor named.

    Args:
        wanted: what wants a slot.
        residents: who holds one.
        max_per_type: slots for each type of model; -1 is no limit.

    Raises:
        EverythingPinned: those who would have to leave are pinned.
    """
    if wanted.slots == "unmetered":
        return EvictionPlan((), "")
    others = [r for r in residents if r.model != wanted.model and r.slots != "unmetered"]
    in_the_way = [r for r in others if _excludes(wanted, r)]
    pinned = [r for r in in_the_way if r.pinned]
    if pinned:
        raise _all_pinned(wanted, pinned, "they use the NPU, which it cannot share")
    stop = sorted(in_the_way, key=_staleness)
    reason = f"{wanted.model} needs the NPU" if stop else ""

    rivals = [r for r in others if r.type is wanted.type and r not in in_the_way]
    excess = 0 if max_per_type == UNLIMITED else len(rivals) + 1 - max_per_type
    if excess > 0:
        movable = sorted((r for r in rivals if not r.pinned), key=_staleness)
        if len(movable) < excess:
            raise _all_pinned(
                wanted,
                [r for r in rivals if r.pinned],
                f"at most {max_per_type} of the type '{wanted.type}' may be loaded",
            )
        stop += movable[:excess]
        limit = f"at most {max_per_type} of the type '{wanted.type}' may be loaded"
        reason = f"{reason}, and {limit}" if reason else f"{limit}, and {wanted.model} is wanted"
    return EvictionPlan(tuple(r.model for r in stop), reason)


def _excludes(wanted: Demand, resident: ResidentFacts) -> bool:
    """Whether the two cannot be there together, whatever the number of slots."""
    if resident.slots == "coexist-by-type" and wanted.slots == "coexist-by-type":
        return resident.type is wanted.type
    if _NPU not in resident.devices or _NPU not in wanted.devices:
        return False
    return "exclusive-npu" in (resident.slots, wanted.slots)


def _staleness(resident: ResidentFacts) -> tuple[bool, float, str]:
    return (resident.busy, resident.last_use, resident.model)


def _all_pinned(wanted: Demand, pinned: Sequence[ResidentFacts], why: str) -> EverythingPinned:
    names = sorted(r.model for r in pinned)
    one = len(names) == 1
    return EverythingPinned(
        f"There is no room for {wanted.model}: {', '.join(names)} "
        f"{'is' if one else 'are'} pinned, and {why}.",
        remedy=f"Unload {'it' if one else 'one of them'} (`lemonade unload {names[0]}`), load it "
        "again without the pin, or raise the setting max_loaded_models.",
        facts={"pinned": names, "type": str(wanted.type), "model": wanted.model},
    )
