"""`Learner`: a newly installed engine is asked which arguments it knows, before its first load.

Some engines take half a minute to print their help. Whoever installs one waits anyway; whoever
loads a model with arguments of their own would wait for nothing else.
"""

from __future__ import annotations

import logging
from typing import Final

from lemonade.core.bundle import Bundle
from lemonade.core.errors import LemonadeError
from lemonade.core.process import Endpoint
from lemonade.installer import KnownFlags, TrialListener
from lemonade.planning import InstallPlan, plan_asking
from lemonade.residency.newcomers import Newcomers

log = logging.getLogger(__name__)

STEP: Final = "learn its arguments"
_NOWHERE: Final = Endpoint("127.0.0.1", 0)
"""It is not to listen."""


class Learner:
    """Asks bundles in their staging folder. Made by the composition root for the installer."""

    def __init__(self, newcomers: Newcomers, flags: KnownFlags) -> None:
        self._newcomers = newcomers
        self._flags = flags

    async def __call__(self, plan: InstallPlan, bundle: Bundle, tell: TrialListener) -> None:
        """Have its arguments kept with it, or say that they could not be learnt.

        It is not held against the engine: it will be asked again when a load has arguments.
        Does nothing where the recipe does not know how to ask, or this machine is not one it runs
        on. Whoever is cancelled waits for the end of what was started.
        """
        recipe = self._newcomers.catalog.recipe(plan.backend.recipe)
        if recipe.help is None or not (plan.verdict is None or plan.verdict.supported):
            return
        tell(STEP, "")
        why = ""
        try:
            program, env = plan_asking(self._newcomers.facts(plan, bundle, _NOWHERE))
            known = await self._flags.of(bundle, program, env, recipe.help)
        except LemonadeError as error:
            known, why = None, f": {error.message.removesuffix('.')}"
        if known is None:
            said = (
                f"Which arguments {plan.backend} {plan.version} knows could not be learnt{why}. "
                "It is asked again at the first load with arguments."
            )
            log.warning("%s", said)
            tell(STEP, said)
