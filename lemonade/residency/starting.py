"""A start, and a second one: with what the engine said would work, or where its port was taken."""

from __future__ import annotations

import logging
from typing import Final

from lemonade.core.errors import ChildError
from lemonade.core.process import FOREIGN_SERVER
from lemonade.residency.attempt import Attempt
from lemonade.residency.fitted import equip
from lemonade.residency.loading import Ingredients, Loader, LoadPlan

log = logging.getLogger(__name__)

_LINES: Final = 400
"""How far back the reason may stand: tracebacks of several processes come after it."""


async def start_ready(
    loader: Loader, attempt: Attempt, plan: LoadPlan, ingredients: Ingredients
) -> None:
    """Start the engine and return when it may be used; it and its port are in the attempt.

    Raises:
        ChildError: it did not become ready. What is left of it is for the caller to end.
        UpstreamError: it is ready, but does not take an adapter that it must have.
    """
    resident, moved = attempt.resident, False
    while True:
        resident.step = "starting"
        instance, attempt.port = await loader.start(plan, ingredients)
        resident.instance = instance
        instance.heed_steps(attempt.tell_step)
        try:
            await instance.ready()
        except ChildError as error:
            if error.facts.get("how") == FOREIGN_SERVER and not moved:
                moved = True
                log.warning("%s: %s Trying another port.", resident.served_name, error.message)
                await instance.stop(now=True)
                attempt.port.release()
                continue
            again = loader.again(plan, instance.tail(_LINES))
            if again is None:
                raise
        else:
            await equip(instance, plan.recipe, resident.adapters, exact=plan.exact)
            return
        plan = again
        notice = (
            "The engine had no room for the context it was asked for and ended; it runs with "
            f"{plan.context_limit} tokens, which it said would fit."
        )
        log.warning("%s: %s", resident.served_name, notice)
        resident.notices += (notice,)
        await instance.stop(now=True)
        attempt.port.release()
