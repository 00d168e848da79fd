"""Engines of an earlier server become residents of this one, without being loaded again.

Each is a load that consists of a question: is it well? Who asks for its model meanwhile waits for
the answer. If it is not, or the model is not what it was, the engine is ended and the model is
loaded when somebody asks for it, as always.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from lemonade.catalog import Catalog, ModelRegistry
from lemonade.core.bus import Bus
from lemonade.core.errors import ChildError, LemonadeError, NotLoaded
from lemonade.core.events import ChildNotAdopted
from lemonade.core.process import ProcessSpec
from lemonade.installer import VersionLease, lease_again
from lemonade.jobs import TaskOwner
from lemonade.planning import EffectiveOptions
from lemonade.residency.attempt import Attempt
from lemonade.residency.holding import Holding
from lemonade.residency.keeping import FITTED, SPEC, KeptModel
from lemonade.residency.local import LocalPlacement
from lemonade.residency.pool import Pool
from lemonade.residency.resident import Resident
from lemonade.residency.selections import Selections
from lemonade.residency.wishes import LoadRequest
from lemonade.supervisor import Heir

log = logging.getLogger(__name__)


class Adopter(TaskOwner):
    """Made by the composition root after the pool."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        registry: ModelRegistry,
        selections: Selections,
        placement: LocalPlacement,
        pool: Pool,
        bus: Bus,
    ) -> None:
        super().__init__()
        self._catalog = catalog
        self._registry = registry
        self._selections = selections
        self._placement = placement
        self._pool = pool
        self._bus = bus

    async def _end_all(self) -> None:
        """What is being declined is bounded."""

    async def take(self, heirs: Iterable[Heir]) -> None:
        """Begin to take them over."""
        for heir in tuple(heirs):
            try:
                resident, spec, kept = self._restore(heir)
            except (LemonadeError, ValueError) as error:
                why = error.message if isinstance(error, LemonadeError) else _first_line(error)
                self._tasks.create_task(self._placement.decline(heir, why))
                continue
            adopted = await self._placement.adopt(heir, spec, api_key=kept.api_key)
            resident.instance, port = adopted
            arrive = partial(self._arrive, heir=heir, kept=kept)
            self._pool.take_in(resident, port, arrive)

    def _restore(self, heir: Heir) -> tuple[Resident, ProcessSpec, KeptModel]:
        """The resident that it was.

        Raises:
            LemonadeError: there is no such model or recipe any more.
            ValueError: it cannot be told what it was, or that has changed.
        """
        kept = KeptModel.model_validate(dict(heir.facts))
        spec = SPEC.validate_python(kept.spec)
        model = self._registry.resolve(kept.served_name)
        if model.model_dump(mode="json") != kept.model:
            raise ValueError("the model is declared otherwise now")
        recipe = self._catalog.recipe(model.recipe)
        backends = map(self._selections.described, self._catalog.backends_of(model.recipe))
        backend = next((one for one in backends if one.id == kept.backend), None)
        if backend is None:
            raise ValueError(f"there is no backend {kept.backend} any more")
        resident = Resident(
            model,
            kept.served_name,
            recipe,
            request=LoadRequest(kept.options, pinned=kept.pinned),
            pinned=kept.pinned,
            kept=kept.kept,
            backend=backend,
            options=EffectiveOptions(kept.values, kept.origins),
            adapters=FITTED.validate_python(kept.adapters),
            context=kept.context,
            fingerprint=kept.fingerprint,
            notices=kept.notices,
            adopted=True,
            since=kept.since,
            step="taken over from an earlier server",
        )
        return resident, spec, kept

    async def _arrive(self, attempt: Attempt, *, heir: Heir, kept: KeptModel) -> None:
        """Return when it may be used.

        Raises:
            NotLoaded: it may not. What is left of it is for the caller to end.
        """
        instance, port = attempt.resident.instance, attempt.port
        assert instance is not None
        assert port is not None
        try:
            if kept.lock:
                attempt.port = Holding(port, _leased(Path(kept.lock)))
            await instance.ready()
        except (ChildError, NotLoaded) as error:
            child, name = heir.record.child, kept.served_name
            why = "it is not well" if isinstance(error, ChildError) else error.message
            log.warning("%s is not taken over: %s", name, why)
            self._bus.publish(ChildNotAdopted(child, name, why))
            raise NotLoaded(f"{name} could not be taken over: {why}.") from error


def _leased(lock: Path) -> VersionLease:
    version = lease_again(lock)
    if version is None:
        raise NotLoaded("the version of its engine has been removed")
    return version


def _first_line(error: ValueError) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
