"""A start: looked at beforehand, put off after failures, made, and perhaps made again.

There is a second one with what the engine said would work, or where its port was taken.
"""

from __future__ import annotations

import logging
from typing import Final

from lemonade.core.errors import ChildError
from lemonade.core.process import FOREIGN_SERVER
from lemonade.residency.attempt import Attempt
from lemonade.residency.failures import Failures
from lemonade.residency.fitted import equip
from lemonade.residency.loading import Ingredients, Loader, LoadPlan
from lemonade.residency.resident import Resident
from lemonade.residency.revival import Pause

log = logging.getLogger(__name__)

_LINES: Final = 400
"""How far back the reason may stand: tracebacks of several processes come after it."""


async def vet(
    loader: Loader, resident: Resident, plan: LoadPlan, ingredients: Ingredients
) -> None:
    """Look at the command line, and keep what whoever asked for it should know.

    Raises:
        LemonadeError: there is no such command line.
    """
    told = await loader.vet(plan, ingredients.bundle)
    known, resident.notices = resident.notices, (*loader.check(plan, ingredients), *told)
    for notice in set(resident.notices).difference(known):
        log.info("%s: %s", resident.served_name, notice)


async def rest(
    loader: Loader, failures: Failures, pause: Pause, attempt: Attempt, plan: LoadPlan
) -> None:
    """Wait out the pause after failures, unless somebody insists."""
    resident = attempt.resident
    resident.fingerprint = loader.fingerprint(plan)
    seconds = failures.wait(resident.fingerprint)
    if seconds > 0 and not attempt.insisted:
        resident.step = "resting after a failure"
        await pause(seconds)


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
