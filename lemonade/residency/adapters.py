"""`Fitter`: adapters put upon models, whether they are loaded or not.

What comes of a change is one of four words (`Effect`). The model itself answers on in all of them
but `reload`, where an engine with the adapter is started beside the one that runs and takes its
place when it is ready, if memory allows both.

An adapter is known from the moment the engine has it; one that the engine refuses never was.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from enum import StrEnum
from pathlib import Path

from lemonade.catalog import (
    Adapter,
    AdapterRegistry,
    AdaptersSpec,
    Catalog,
    ModelRegistry,
    ModelSpec,
    RecipeSpec,
)
from lemonade.checkpoints import AdapterFacts, ModelStore, adapter_stamp, inspect_adapter
from lemonade.core.errors import AdapterUnsupported, LemonadeError, ShuttingDown, UpstreamError
from lemonade.core.records import dataclass
from lemonade.jobs import TaskOwner
from lemonade.planning import rank_for, takes_more
from lemonade.residency.adapter_fetching import AdapterFetching, as_model
from lemonade.residency.fitted import Fitted, free_handle, tell
from lemonade.residency.pool import Pool
from lemonade.residency.resident import Lease, Phase, Resident
from lemonade.residency.wishes import LoadRequest

log = logging.getLogger(__name__)


class Effect(StrEnum):
    """How a change came about, or would."""

    HOT = "hot"
    """The running engine was told."""
    SCALE_ONLY = "scale-only"
    """Nothing but how strongly requests apply it has changed."""
    RELOAD = "reload"
    """The engine learns of it when it is started: now, if the model is loaded."""
    UNSUPPORTED = "unsupported"
    """The engine cannot do it."""


@dataclass(frozen=True, slots=True)
class Change:
    """What came of a change.

    Attributes:
        adapter: as it is now; `None` if it is gone.
        loaded: whether an engine has it.
        message: the same as a sentence.
    """

    effect: Effect
    adapter: Adapter | None
    loaded: bool
    message: str


@dataclass(slots=True)
class _Turn:
    """Whoever changes the adapters of a model, one after the other."""

    lock: asyncio.Lock
    users: int = 0


class Fitter(TaskOwner):
    """Made by the composition root after the pool, and ended before it.

    A change that has begun is carried through, also if whoever asked for it has left.
    """

    def __init__(
        self,
        *,
        catalog: Catalog,
        models: ModelRegistry,
        adapters: AdapterRegistry,
        store: ModelStore,
        fetching: AdapterFetching,
        pool: Pool,
    ) -> None:
        super().__init__()
        self._catalog = catalog
        self._models = models
        self._adapters = adapters
        self._store = store
        self._fetching = fetching
        self._pool = pool
        self._turns: dict[str, _Turn] = {}

    async def _end_all(self) -> None:
        """They end by themselves: the pool is closed, and engines that are gone answer nobody."""

    # ---- what others ask

    async def load(self, model: str, wanted: Adapter) -> Change:
        """Put an adapter upon a model, or another in the place of the one of that name.

        Raises:
            UnknownModel: nobody declared it.
            AdapterUnsupported: its engine takes none, or none with a scale.
            BadAdapter: it is not there, or not for this model.
            LemonadeError: the engine did not take it; all is as it was.
        """
        spec = self._models.resolve(model)
        how = self._how(spec)
        self._adapters.check_name(spec, wanted.name)
        self._check_scale(spec, how, wanted.scale)

        async def deed() -> Change:
            recipe = self._catalog.recipe(spec.recipe)
            adapter = await self._fetching.fetched(spec, recipe, wanted)
            try:
                facts = await asyncio.to_thread(self._inspect, spec, how, adapter.path)
                adapter = replace(adapter, rank=facts.rank)
                rank_for(how, [adapter])
                return await self._load(spec, how, adapter, facts.stamp)
            except LemonadeError:
                with suppress(LemonadeError):  # what was fetched for nothing
                    await self.drop(spec, adapter)
                raise

        return await self._in_turn(spec.canonical_name, deed)

    async def scale(self, model: str, name: str, scale: float) -> Change:
        """Apply an adapter by more or less from the next request on.

        Raises:
            UnknownModel: there is no such model or adapter.
            AdapterUnsupported: the engine cannot.
        """
        spec = self._models.resolve(model)
        how = self._how(spec)

        async def deed() -> Change:
            adapter = self._known(spec, name)
            self._check_scale(spec, how, scale)
            adapter = replace(adapter, scale=scale)
            await asyncio.to_thread(self._adapters.put, spec.canonical_name, adapter)
            there = self.fitted(spec, name) is not None
            said = f"Requests for {self._whole(spec, name)} apply it by {scale:g} from now on."
            return Change(Effect.SCALE_ONLY, adapter, there, said)

        return await self._in_turn(spec.canonical_name, deed)

    async def unload(self, model: str, name: str) -> Change:
        """Take an adapter away. Requests that are being answered with it are answered to the end.

        Raises:
            UnknownModel: there is no such model or adapter.
        """
        spec = self._models.resolve(model)

        async def deed() -> Change:
            self._known(spec, name)
            # First of all nobody new may come.
            await asyncio.to_thread(self._adapters.erase, spec.canonical_name, name)
            return await self._unload(spec, name)

        return await self._in_turn(spec.canonical_name, deed)

    async def delete(self, model: str, name: str) -> Change:
        """The same, and remove what was fetched for it and nobody else uses.

        Raises:
            UnknownModel: there is no such model or adapter.
            NotDeletable, CheckpointError: it is forgotten, and its files are still here.
        """
        spec = self._models.resolve(model)
        adapter = self._known(spec, name)
        change = await self.unload(model, name)
        await self.drop(spec, adapter)
        return change

    async def drop(self, spec: ModelSpec, adapter: Adapter) -> None:
        """Remove what was fetched for an adapter that is forgotten.

        Raises:
            NotDeletable, CheckpointError: its files are still here.
        """
        others = [as_model(*one) for one in self._adapters.all() if one[1].checkpoint]
        await self._fetching.drop(spec, adapter, (*self._models.all(), *others))

    def fitted(self, spec: ModelSpec, name: str) -> Fitted | None:
        """The adapter as the model's engine has it; `None` if no engine has."""
        resident = self._pool.find(spec.canonical_name)
        there = None if resident is None else resident.adapters.get(name)
        return None if there is None or there.problem else there

    def effect_of(self, spec: ModelSpec, deed: str) -> Effect:
        """What `load`, `scale` or `unload` would come to, for an adapter like others."""
        recipe = self._catalog.recipes.get(spec.recipe)
        how = None if recipe is None else recipe.adapters
        if recipe is None or how is None or (deed == "scale" and not how.scales):
            return Effect.UNSUPPORTED
        if deed == "scale" or (deed == "unload" and not how.at_run_time):
            return Effect.SCALE_ONLY
        resident = self._pool.find(spec.canonical_name)
        if resident is None or resident.instance is None:
            return Effect.RELOAD
        like_others = Adapter("any", Path("/"))
        told = takes_more(recipe, resident.instance.spec, like_others)
        return Effect.HOT if told or deed == "unload" else Effect.RELOAD

    # ---- deeds

    async def _load(
        self, spec: ModelSpec, how: AdaptersSpec, adapter: Adapter, stamp: tuple[int, int]
    ) -> Change:
        key, whole = spec.canonical_name, self._whole(spec, adapter.name)
        lease = await self._lease(key)
        if lease is None:
            await asyncio.to_thread(self._adapters.put, key, adapter)
            said = f"The engine gets {whole} when the model is loaded."
            return Change(Effect.RELOAD, adapter, loaded=False, message=said)
        async with lease:
            resident = lease.resident
            there = resident.adapters.get(adapter.name)
            if _is(there, adapter, stamp):
                await asyncio.to_thread(self._adapters.put, key, adapter)
                effect = Effect.SCALE_ONLY if how.scales else Effect.HOT
                return Change(effect, adapter, loaded=True, message="The engine has it already.")
            if takes_more(resident.recipe, lease.instance.spec, adapter):
                await self._swap(lease, Fitted(adapter, "", stamp), there)
                await asyncio.to_thread(self._adapters.put, key, adapter)
                said = f"The running engine has {whole}."
                return Change(Effect.HOT, adapter, loaded=True, message=said)
        await self._reload(resident, adapter)
        await asyncio.to_thread(self._adapters.put, key, adapter)
        said = f"An engine with {whole} has taken the place of the one that ran."
        return Change(Effect.RELOAD, adapter, loaded=True, message=said)

    async def _swap(self, lease: Lease, new: Fitted, old: Fitted | None) -> None:
        """Have the engine read the new one, then use it, then forget the old one."""
        resident, recipe = lease.resident, lease.resident.recipe
        taken = [one.handle for one in resident.adapters.values()]
        handle = free_handle(resident.served_name, new.adapter.name, taken)
        new = replace(new, handle=handle)
        await tell(lease.instance, recipe, new)
        resident.adapters[new.adapter.name] = new
        self._pool.touch()
        if old is not None and not old.problem:
            await self._forget(lease, old)

    async def _forget(self, lease: Lease, old: Fitted) -> None:
        """Nobody can reach it any more; an engine that keeps it wastes memory, and no more."""
        try:
            await tell(lease.instance, lease.resident.recipe, old, forget=True)
        except UpstreamError as error:
            log.warning("%s: %s", lease.resident.served_name, error.message)

    async def _reload(self, resident: Resident, adapter: Adapter) -> None:
        known = {**self._adapters.of(resident.key), adapter.name: adapter}
        wanted = tuple(
            one for one in known.values() if one is adapter or adapter_stamp(one.path) is not None
        )
        request = LoadRequest(resident.request.options, adapters=wanted)
        await self._pool.load(resident.key, request, keep=resident.kept)

    async def _unload(self, spec: ModelSpec, name: str) -> Change:
        whole = self._whole(spec, name)
        lease = await self._lease(spec.canonical_name)
        if lease is None:
            said = f"{whole} is forgotten; the model is not loaded."
            return Change(Effect.RELOAD, None, loaded=False, message=said)
        async with lease:
            how = lease.resident.recipe.adapters
            there = lease.resident.adapters.get(name)
            if how is None or not how.at_run_time:
                said = f"{whole} is not applied any more; its memory is given back with the model."
                return Change(Effect.SCALE_ONLY, None, loaded=False, message=said)
            if there is not None:
                del lease.resident.adapters[name]
                self._pool.touch()
                if not there.problem:
                    await self._forget(lease, there)
            said = f"The running engine has forgotten {whole}."
            return Change(Effect.HOT, None, loaded=False, message=said)

    async def _lease(self, key: str) -> Lease | None:
        """The model if it is loaded, or once a load under way has ended; it is not loaded here."""
        phases = (Phase.LOADING, Phase.SERVING)
        coming = [r for r in self._pool.residents() if r.key == key and r.phase in phases]
        if not any(not r.ending and not r.called_off for r in coming):
            return None
        try:
            return await self._pool.lease(key)
        except ShuttingDown:
            raise
        except LemonadeError:  # the load has failed, which is the business of whoever asked for it
            return None

    # ---- what is looked at before

    def _how(self, spec: ModelSpec) -> AdaptersSpec:
        recipe: RecipeSpec = self._catalog.recipe(spec.recipe)
        if recipe.adapters is None:
            raise AdapterUnsupported(
                f"{recipe.title}, which runs {self._models.public_name(spec)}, takes no adapters.",
                remedy="Merge the adapter into the model, or choose a model whose engine does.",
                facts={"recipe": recipe.id},
            )
        return recipe.adapters

    def _check_scale(self, spec: ModelSpec, how: AdaptersSpec, scale: float) -> None:
        if scale == 1.0 or how.scales:
            return
        title = self._catalog.recipe(spec.recipe).title
        raise AdapterUnsupported(
            f"{title} applies adapters as they are: it knows no scale but 1.",
            remedy="Leave the scale out, or change lora_alpha in the adapter's configuration.",
            facts={"recipe": spec.recipe},
        )

    def _inspect(self, spec: ModelSpec, how: AdaptersSpec, path: Path) -> AdapterFacts:
        recipe = self._catalog.recipe(spec.recipe)
        files = (self._store.files(spec, recipe) or {}).get(recipe.checkpoints[0], ())
        return inspect_adapter(path, how.format, files[0] if files else None)

    def _known(self, spec: ModelSpec, name: str) -> Adapter:
        adapter = self._adapters.of(spec.canonical_name).get(name)
        if adapter is None:
            raise self._adapters.unknown(spec, name)
        return adapter

    def _whole(self, spec: ModelSpec, name: str) -> str:
        return f"{self._models.public_name(spec)}:{name}"

    # ---- one after the other

    async def _in_turn(self, key: str, deed: Callable[[], Awaitable[Change]]) -> Change:
        """Do it when those before have been done, in a task that nobody's leaving ends.

        Raises:
            LemonadeError: what the deed has raised.
        """
        turn = self._turns.setdefault(key, _Turn(asyncio.Lock()))
        turn.users += 1
        result: list[Change | LemonadeError] = []

        async def work() -> None:
            try:
                async with turn.lock:
                    result.append(await deed())
            except LemonadeError as error:
                result.append(error)
            except Exception as error:  # a bug in one change must not end the server
                log.exception("Changing the adapters of %s failed unexpectedly", key)
                result.append(LemonadeError(f"It failed unexpectedly: {error}."))
            finally:
                turn.users -= 1
                if not turn.users:
                    self._turns.pop(key, None)

        await asyncio.wait({self._tasks.create_task(work(), name=f"adapters of {key}")})
        if not result:
            raise ShuttingDown("The server is shutting down.", remedy="Try again in a moment.")
        outcome = result[0]
        if isinstance(outcome, LemonadeError):
            raise outcome
        return outcome


def _is(there: Fitted | None, adapter: Adapter, stamp: tuple[int, int]) -> bool:
    """Whether the engine has just this one, read from the files as they are."""
    return (
        there is not None
        and not there.problem
        and there.adapter.path == adapter.path
        and there.stamp == stamp
    )
