"""`Newcomers`: a newly installed engine as it would be started, before anybody relies on it.

It lies in its staging folder, nobody has configured anything for it, and the only model it is sure
to be able to run is the one that its recipe asks it with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Final

from lemonade.catalog import SHIPPED_SOURCE, BackendSpec, Catalog, ModelSpec
from lemonade.core.bundle import Bundle
from lemonade.core.inference import JsonObject
from lemonade.core.process import Endpoint
from lemonade.core.records import dataclass
from lemonade.hardware import Machine
from lemonade.installer import compile_cache
from lemonade.planning import InstallPlan, LaunchFacts, check_options, resolve_options

NAME: Final = "canary"
"""What the engine is told its model is called; also its name in logs."""

_NOTHING: Final[JsonObject] = {}


@dataclass(frozen=True, slots=True)
class Newcomers:
    """What a launch depends on besides the engine itself."""

    catalog: Catalog
    machine: Machine
    environ: Mapping[str, str] = field(repr=False)

    def facts(
        self, plan: InstallPlan, bundle: Bundle, endpoint: Endpoint, api_key: str = ""
    ) -> LaunchFacts:
        """As a load with the recipe's canary would be planned, whatever anybody configured."""
        recipe = self.catalog.recipe(plan.backend.recipe)
        canary = recipe.canary
        files: dict[str, tuple[Path, ...]] = {}
        if canary is not None:
            files[recipe.checkpoints[0]] = (self.catalog.shipped_model_file(canary.model),)
        options = resolve_options(
            recipe,
            request=check_options(recipe, canary.options if canary is not None else {}),
            saved=_NOTHING,
            declared=_NOTHING,
            section=_NOTHING,
            variant=plan.backend.variant,
            ctx_size=-1,
        )
        return LaunchFacts(
            model=ModelSpec(
                name=NAME,
                origin="builtin",
                recipe=recipe.id,
                checkpoints={"main": canary.model} if canary is not None else {},
                labels=(canary.mode,) if canary is not None else (),
                source=SHIPPED_SOURCE,
            ),
            served_name=NAME,
            recipe=recipe,
            backend=self._backend(plan),
            bundle=bundle,
            overlay=self.catalog.overlay_dir(plan.backend),
            files=files,
            machine=self.machine,
            options=options,
            endpoint=endpoint,
            api_key=api_key,
            log_file=None,
            environ=self.environ,
            # What it compiles now need not be compiled at the first load.
            compile_cache=compile_cache(plan.target.parents[2], bundle),
        )

    def _backend(self, plan: InstallPlan) -> BackendSpec:
        """The descriptor, with the environment that the plan says."""
        backend = self.catalog.backend(plan.backend)
        if plan.release is None:
            return backend
        return backend.model_copy(update={"environment": dict(plan.release.environment)})
