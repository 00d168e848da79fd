"""What other models hold of devices that a load will need, measured before its context is planned.

Two loads that start at the same time do not see what the other will take; the engine that comes
too late says so and ends.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace

from lemonade.core.process import DeviceHold
from lemonade.residency.loading import Ingredients, LoadPlan
from lemonade.residency.resident import Phase, Resident


async def with_others(
    plan: LoadPlan, ingredients: Ingredients, residents: Iterable[Resident]
) -> Ingredients:
    """Add what those hold who stay while it is loaded."""
    return replace(ingredients, held=await held_beside(plan, residents))


async def held_beside(
    plan: LoadPlan, residents: Iterable[Resident], leaving: Collection[str] = ()
) -> tuple[DeviceHold, ...]:
    """What those hold who stay; nothing is looked at where it makes no difference.

    Args:
        plan: the load.
        residents: everybody.
        leaving: keys of those who will make room for it.
    """
    held: list[DeviceHold] = []
    if plan.recipe.context is None or plan.backend.devices == ("cpu",):
        return ()
    gone = {plan.spec.canonical_name, *leaving}
    for resident in residents:
        stays = resident.key not in gone and resident.phase is not Phase.DRAINING
        if stays and resident.instance is not None and not resident.ending:
            held += await resident.instance.device_memory()
    return tuple(held)
