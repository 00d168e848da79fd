"""`Swapper`: engines follow the setting that says which build of a backend runs.

Whoever changes it is answered at once. Then, in the background, what is wanted is installed if
that is allowed, and each model that runs on the backend is loaded again with the options it has,
the old engine serving until the new one is ready. What fails leaves the old engine where it is,
and is kept to be shown.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from functools import partial

from lemonade.catalog import BackendSpec, Catalog
from lemonade.config import Configuration
from lemonade.core.errors import InstallForbidden, LemonadeError, NotLoaded
from lemonade.hardware import Machine
from lemonade.installer import Bundles, Installer
from lemonade.jobs import TaskOwner, outliving
from lemonade.planning import plan_install
from lemonade.residency.pool import Pool
from lemonade.residency.resident import Phase, Resident
from lemonade.residency.selections import Selections

log = logging.getLogger(__name__)

Choices = Mapping[str, object]
"""What decides the build of each backend, by its id; equal if nothing has changed."""


class Swapper(TaskOwner):
    """Owns what it does in the background. `async with` it; leaving ends that.

    Made by the composition root.
    """

    def __init__(
        self,
        *,
        catalog: Catalog,
        configuration: Configuration,
        machine: Machine,
        bundles: Bundles,
        selections: Selections,
        installer: Installer,
        pool: Pool,
    ) -> None:
        super().__init__()
        self._catalog = catalog
        self._configuration = configuration
        self._machine = machine
        self._bundles = bundles
        self._selections = selections
        self._installer = installer
        self._pool = pool
        self._swaps: dict[str, asyncio.Task[None]] = {}
        self._problems: dict[str, str] = {}

    async def _end_all(self) -> None:
        for task in tuple(self._swaps.values()):
            task.cancel()

    def problem(self, backend: BackendSpec) -> str:
        """Why the engines of a backend do not follow its setting; empty if they do."""
        return self._problems.get(backend.id, "")

    def choices(self) -> Choices:
        """What decides the builds as the settings are now."""
        return {
            spec.id: (self._selections.pin(spec), self._selections.described(spec).pin)
            for spec in self._catalog.backends.values()
        }

    def follow(self, before: Choices) -> None:
        """Have the engines of every backend whose build was decided anew follow, soon."""
        now = self.choices()
        for spec in self._catalog.backends.values():
            if before.get(spec.id) == now[spec.id]:
                continue
            self._problems.pop(spec.id, None)
            if (earlier := self._swaps.pop(spec.id, None)) is not None:
                earlier.cancel()  # the setting it follows is not in force any more
            swap = partial(self._swap, spec, earlier)
            task = self._tasks.create_task(outliving(swap, f"swapping {spec.id}"))
            self._swaps[spec.id] = task

    async def _swap(self, spec: BackendSpec, earlier: asyncio.Task[None] | None) -> None:
        if earlier is not None:
            await asyncio.wait({earlier})
        running = self._running(spec)
        if not running:
            return
        try:
            await self._have(spec)
        except (LemonadeError, OSError) as error:
            self._fail(spec, running, error)
            return
        for resident in running:
            try:
                await self._pool.renew(resident)
            except NotLoaded:
                continue  # somebody unloaded it, or loads it otherwise
            except (LemonadeError, OSError) as error:
                self._fail(spec, [resident], error)

    async def _have(self, spec: BackendSpec) -> None:
        """Have what is wanted on this disk."""
        selection = self._selections.of(spec)
        active = self._bundles.active(selection)
        if not selection.spec.pin.fetched or selection.path is not None:
            return
        if active is not None and selection.satisfied_by(active.version):
            return
        plan = plan_install(
            selection, self._machine, self._bundles.present(spec), self._bundles.root
        )
        settings = self._configuration.settings
        if plan.present is None and (settings.offline or settings.no_fetch_executables):
            key = "no_fetch_executables" if settings.no_fetch_executables else "offline"
            raise InstallForbidden(f"The setting '{key}' forbids fetching {plan.version}.")
        await self._installer.install(plan, lambda _: None)

    def _running(self, spec: BackendSpec) -> list[Resident]:
        return [
            resident
            for resident in self._pool.residents()
            if resident.phase is Phase.SERVING
            and resident.backend is not None
            and resident.backend.id == spec.id
        ]

    def _fail(self, spec: BackendSpec, running: Iterable[Resident], error: Exception) -> None:
        names = ", ".join(resident.served_name for resident in running)
        self._problems[spec.id] = (
            f"The setting was changed, and {names} could not be moved to it: {error}"
        )
        log.warning("%s: %s", spec.id, self._problems[spec.id])
