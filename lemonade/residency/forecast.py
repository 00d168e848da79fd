"""What would happen to others if a plan were carried out now, and whether it changes anything."""

from __future__ import annotations

from lemonade.planning import EvictionPlan
from lemonade.residency.fitted import covers
from lemonade.residency.loading import LoadPlan
from lemonade.residency.resident import Resident
from lemonade.residency.residents import Residents
from lemonade.residency.room import plan_room
from lemonade.residency.wishes import LoadRequest


def forecast(plan: LoadPlan, here: Residents, limit: int) -> EvictionPlan | str:
    """Who would leave; a sentence where nobody has to be asked.

    Raises:
        EverythingPinned: those who would have to leave are pinned.
    """
    current = here.serving.get(plan.spec.canonical_name)
    if current is not None and not current.ending and same(current, plan):
        return "It is loaded with just these options: nothing would happen."
    wanted = Resident(
        plan.spec,
        plan.served_name,
        plan.recipe,
        request=LoadRequest(),
        backend=plan.backend,
        options=plan.options,
    )
    room = plan_room(wanted, here.serving.values(), here.loading.values(), limit)
    if room is None:
        return "It would wait for a load that is under way, and ask again."
    if current is not None and not room.stop:
        return "It is loaded with other options, and would be replaced."
    return room


def same(resident: Resident, plan: LoadPlan) -> bool:
    """Whether a resident runs, or will run, just what the plan wants."""
    if resident.backend is None or resident.options is None:
        return False
    # Only the recipe's own options reach the engine; the common ones say how long it may stay.
    return (
        resident.backend.id == plan.backend.id
        and covers(resident.adapters, plan.adapters, exact=plan.exact)
        and all(
            resident.options.values.get(option.name) == plan.options.values.get(option.name)
            for option in plan.recipe.option
        )
    )
