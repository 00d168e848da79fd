"""Slots: who has to leave so that a model may be loaded, among those who are here."""

from __future__ import annotations

from collections.abc import Iterable

from lemonade.core.errors import EverythingPinned
from lemonade.planning import Demand, EvictionPlan, ResidentFacts, plan_eviction, slot_policy
from lemonade.residency.resident import Resident


def plan_room(
    wanted: Resident, serving: Iterable[Resident], loading: Iterable[Resident], limit: int
) -> EvictionPlan | None:
    """Who leaves for `wanted`, by key; `None` if that must be asked again when a load settles.

    A load that holds a slot cannot be asked to leave, and one who has promised to leave for
    another does not count any more: the slot is the other's already. A resident of the same model
    is replaced, not evicted, and passes its slot on.

    Args:
        wanted: on its way.
        serving: those who may be used.
        loading: those on their way, with or without a slot.
        limit: slots for each type of model; -1 is no limit.

    Raises:
        EverythingPinned: those who would have to leave are pinned.
    """
    free = [r for r in serving if r.promised_to is None and r.key != wanted.key]
    fixed = [r for r in loading if r.claims and r is not wanted]
    # Whose engine has ended gives its slot back in a moment: nobody else leaves instead.
    facts = [_facts(r, pinned=r.pinned and not r.ending) for r in free] + [
        _facts(r, pinned=True) for r in fixed
    ]
    demand = Demand(
        model=wanted.key,
        type=wanted.spec.type,
        slots=slot_policy(wanted.recipe, wanted.backend),
        devices=wanted.devices,
    )
    try:
        return plan_eviction(demand, facts, limit)
    except EverythingPinned:
        # A load under way holds its slot only until it is ready, and may then be evicted.
        if fixed:
            return None
        raise


def _facts(resident: Resident, *, pinned: bool) -> ResidentFacts:
    return ResidentFacts(
        model=resident.key,
        type=resident.spec.type,
        slots=slot_policy(resident.recipe, resident.backend),
        devices=resident.devices,
        pinned=pinned,
        last_use=0.0 if resident.ending else resident.last_use,
        busy=resident.leases > 0 and not resident.ending,
    )
