"""The pool: lease a model; join its load, start one, or make room first.

One writer, the event loop: between two awaits nothing changes, so there is no lock. A warm model's
lease is granted without waiting for anything, whatever else is being loaded or stopped.

Loads belong to the pool. A caller that leaves stops waiting, no more; a load nobody waits for any
longer is given up after a moment, since somebody pressed Ctrl-C.

Room is made as late as possible. Where memory allows, a new engine is started beside those it
replaces, and they are drained only when it is ready: a load that fails has evicted nobody. Where
it does not, they go first, and are loaded again if the new one fails.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Final, Self

from lemonade.catalog import ModelRegistry, ModelSpec
from lemonade.core.bus import Bus
from lemonade.core.errors import (
    ChildError,
    EverythingPinned,
    LemonadeError,
    NotLoaded,
    QueueFull,
    ShuttingDown,
)
from lemonade.core.events import LoadFailed, ModelLoaded, ModelUnloaded
from lemonade.core.progress import Progress, ProgressListener
from lemonade.planning import Demand, ResidentFacts, plan_eviction
from lemonade.residency.loading import Ingredients, Loader, LoadPlan, LoadRequest
from lemonade.residency.placement import Instance, PortLease
from lemonade.residency.resident import Lease, Phase, Resident

log = logging.getLogger(__name__)

MAX_WAITERS: Final = 2048
"""How many requests may wait for one load; beyond that they are told to come back (503)."""

LINGER: Final = 2.0
"""Seconds a load goes on after its last waiter has left: a client that reconnects finds it."""


class Pool:
    """Owns every resident. An async context manager: leaving it ends all engines, in parallel.

    Made by the composition root after the supervisor, and ended before it.
    """

    def __init__(
        self,
        *,
        registry: ModelRegistry,
        loader: Loader,
        bus: Bus,
        max_per_type: Callable[[], int],
        linger: float = LINGER,
    ) -> None:
        self._registry = registry
        self._loader = loader
        self._bus = bus
        self._max_per_type = max_per_type
        self._linger_seconds = linger
        self._tasks = asyncio.TaskGroup()
        self._serving: dict[str, Resident] = {}
        self._loading: dict[str, Resident] = {}
        self._draining: set[Resident] = set()
        self._load_tasks: dict[Resident, asyncio.Task[None]] = {}
        self._listeners: dict[Resident, list[ProgressListener]] = {}
        self._requests: dict[Resident, LoadRequest] = {}
        self._kept: set[Resident] = set()
        self._changed = asyncio.Event()
        self._closed = False

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()
        await self._tasks.__aexit__(kind, error, trace)

    # ---- what others ask

    async def lease(self, name: str) -> Lease:
        """The right to use a model; loads it first if need be.

        Raises:
            UnknownModel: nobody declared it.
            LemonadeError: whatever the load failed with.
            ShuttingDown: the server is on its way out.
        """
        spec = self._registry.resolve(name)
        while True:
            resident = self._serving.get(spec.canonical_name)
            if resident is not None:
                return Lease(resident)
            await self._wait(self._joined(spec))

    async def load(
        self,
        name: str,
        request: LoadRequest,
        *,
        keep: bool = False,
        listen: ProgressListener | None = None,
    ) -> Resident:
        """Load with options; nothing happens if it is loaded with just these.

        Different options replace the running engine once the new one is ready.

        Args:
            name: of the model, in any accepted form.
            request: options and pin.
            keep: go on even if nobody waits any longer (a preload).
            listen: told how downloads and installation go on.

        Raises:
            LemonadeError: it is refused or failed; the model that ran before still runs.
        """
        spec = self._registry.resolve(name)
        served = self._registry.public_name(spec)
        self._check_open()
        plan = self._loader.plan(spec, served, request)
        current = self._serving.get(spec.canonical_name)
        if current is not None and _same(current, plan):
            if request.pinned is not None:
                current.pinned = request.pinned
            current.last_use = time.monotonic()
            return current
        pending = self._loading.get(spec.canonical_name)
        if pending is not None and not _same(pending, plan):
            await self._cancel(pending, "another load of it with other options was asked for")
            pending = None
        resident = pending or self._begin(plan, request)
        if keep:
            self._kept.add(resident)
        if request.pinned is not None:
            resident.pinned = request.pinned
        if listen is not None:
            self._listeners.setdefault(resident, []).append(listen)
        try:
            await self._wait(resident)
        finally:
            if listen is not None and listen in self._listeners.get(resident, ()):
                self._listeners[resident].remove(listen)
        for victim in tuple(self._draining):
            if victim.leases == 0:
                await victim.gone.wait()
        return resident

    async def unload(self, name: str) -> None:
        """Drain a model, end its engine, and return when nothing of it is left.

        Raises:
            UnknownModel: nobody declared it.
            NotLoaded: it is neither loaded nor on its way.
        """
        spec = self._registry.resolve(name)
        pending = self._loading.get(spec.canonical_name)
        if pending is not None:
            await self._cancel(pending, "it was unloaded while loading")
        resident = self._serving.get(spec.canonical_name)
        if resident is not None:
            self._retire(resident, "unloaded on request")
        leaving = [r for r in self._draining if r.key == spec.canonical_name]
        if resident is None and pending is None and not leaving:
            raise NotLoaded(
                f"{self._registry.public_name(spec)} is not loaded.",
                remedy="`lemonade ps` shows what is.",
            )
        for one in leaving:
            await one.gone.wait()

    async def unload_all(self, why: str = "everything was unloaded on request") -> None:
        """Drain and end all residents, in parallel; loads under way are given up."""
        for pending in tuple(self._loading.values()):
            await self._cancel(pending, why)
        for resident in tuple(self._serving.values()):
            self._retire(resident, why)
        for resident in tuple(self._draining):
            await resident.gone.wait()

    async def unload_where(self, wanted: Callable[[Resident], bool], why: str) -> tuple[str, ...]:
        """Unload those of whom `wanted` is true; their names."""
        chosen = [r for r in self._serving.values() if wanted(r)]
        for pending in [r for r in self._loading.values() if wanted(r)]:
            await self._cancel(pending, why)
        for resident in chosen:
            self._retire(resident, why)
        for resident in chosen:
            await resident.gone.wait()
        return tuple(r.served_name for r in chosen)

    def pin(self, name: str, *, pinned: bool) -> None:
        """Keep a loaded model from being evicted, or allow it again.

        Raises:
            NotLoaded: it is not loaded.
        """
        spec = self._registry.resolve(name)
        resident = self._serving.get(spec.canonical_name)
        if resident is None:
            raise NotLoaded(f"{self._registry.public_name(spec)} is not loaded.")
        resident.pinned = pinned
        self._pulse()

    def find(self, name: str) -> Resident | None:
        """The serving resident of that name, if there is one."""
        return self._serving.get(self._registry.resolve(name).canonical_name)

    def residents(self) -> tuple[Resident, ...]:
        """Everything that holds or is about to hold memory: serving, loading, draining."""
        return (*self._serving.values(), *self._loading.values(), *self._draining)

    @property
    def most_recent(self) -> Resident | None:
        """The serving resident used last."""
        return max(self._serving.values(), key=lambda r: r.last_use, default=None)

    async def close(self) -> None:
        """Take no more requests; end all engines at once, without waiting for their requests."""
        if self._closed:
            return
        self._closed = True
        for task in tuple(self._load_tasks.values()):
            task.cancel()
        everybody = [*self._serving.values(), *self._draining]
        for resident in tuple(self._serving.values()):
            self._retire(resident, "the server is shutting down")
        for resident in everybody:
            resident.idle.set()
        for resident in everybody:
            await resident.gone.wait()

    def hurry(self) -> None:
        """Kill all engines at once; `close` is under way and somebody is impatient."""
        for resident in self.residents():
            if resident.instance is not None:
                self._tasks.create_task(self._kill(resident.instance))

    async def _kill(self, instance: Instance) -> None:
        await instance.stop(now=True)

    # ---- loads

    def _joined(self, spec: ModelSpec) -> Resident:
        """The load of a model that is under way, or a new one."""
        pending = self._loading.get(spec.canonical_name)
        if pending is not None:
            return pending
        self._check_open()
        request = LoadRequest()
        plan = self._loader.plan(spec, self._registry.public_name(spec), request)
        return self._begin(plan, request)

    def _begin(self, plan: LoadPlan, request: LoadRequest) -> Resident:
        self._check_open()
        old = self._serving.get(plan.spec.canonical_name)
        resident = Resident(
            plan.spec,
            plan.served_name,
            plan.recipe,
            pinned=bool(request.pinned) or (old is not None and old.pinned),
            backend=plan.backend,
            options=plan.options,
        )
        self._loading[resident.key] = resident
        self._requests[resident] = request
        self._load_tasks[resident] = self._tasks.create_task(
            self._load(resident, plan), name=f"load {plan.served_name}"
        )
        return resident

    async def _wait(self, resident: Resident) -> None:
        """Until a load has ended; raises its error."""
        if resident.waiters >= MAX_WAITERS:
            raise QueueFull(
                f"{resident.waiters} requests wait for {resident.served_name} already.",
                remedy="Try again when it is loaded.",
            )
        resident.waiters += 1
        try:
            await resident.settled.wait()
        finally:
            resident.waiters -= 1
            if resident.waiters == 0 and not resident.settled.is_set():
                self._tasks.create_task(self._linger(resident))
        if resident.error is not None:
            error = resident.error
            raise type(error)(error.message, remedy=error.remedy, facts=error.facts) from error

    async def _linger(self, resident: Resident) -> None:
        """Give up a load that nobody wants any longer."""
        try:
            async with asyncio.timeout(self._linger_seconds):
                await resident.settled.wait()
        except TimeoutError:
            if resident.waiters == 0 and resident not in self._kept and not self._closed:
                await self._cancel(resident, "nobody waits for it any longer")

    async def _cancel(self, resident: Resident, why: str) -> None:
        task = self._load_tasks.get(resident)
        if task is None:
            return
        resident.why = why
        task.cancel()
        await resident.gone.wait()

    async def _load(self, resident: Resident, plan: LoadPlan) -> None:
        """One load from plan to lease. Ends in a state, never in an exception."""
        evicted: list[Resident] = []
        port: PortLease | None = None
        try:
            resident.step = "fetching"
            ingredients = await self._loader.ingredients(plan, self._teller(resident))
            # Refused arguments must show before anybody has to leave.
            self._loader.check(plan, ingredients.files)
            resident.step = "waiting for room"
            victims = await self._make_room(resident, plan, ingredients, evicted)
            resident.step = "starting"
            instance, port = await self._loader.start(plan, ingredients)
            resident.instance = instance
            await instance.ready()
        except asyncio.CancelledError:
            await self._give_up(resident, port, _cancelled(resident, closed=self._closed))
            self._restore(evicted)
            # The task group cancels us only when the pool itself is left; then go quietly too.
        except LemonadeError as error:
            await self._give_up(resident, port, error)
            self._restore(evicted)
        except Exception as error:  # a bug in one load must not take the other models down
            log.exception("%s: loading failed unexpectedly", resident.served_name)
            await self._give_up(
                resident, port, ChildError(f"Loading {resident.served_name} failed: {error}")
            )
            self._restore(evicted)
        else:
            self._serve(resident, victims, port)

    def _teller(self, resident: Resident) -> ProgressListener:
        def tell(progress: Progress) -> None:
            resident.step = f"fetching {progress.file}"
            for listener in tuple(self._listeners.get(resident, ())):
                listener(progress)

        return tell

    def _serve(self, resident: Resident, victims: list[Resident], port: PortLease) -> None:
        """From now on leases are granted. No await in here: nobody sees half of it."""
        old = self._serving.get(resident.key)
        if old is not None and old not in victims:
            victims = [*victims, old]
        for victim in victims:
            if victim.phase is Phase.SERVING:
                self._retire(victim, f"{resident.served_name} took its place")
        self._forget_load(resident)
        resident.phase = Phase.SERVING
        resident.step = "ready"
        resident.last_use = time.monotonic()
        self._serving[resident.key] = resident
        resident.settled.set()
        self._tasks.create_task(self._watch(resident, port), name=f"watch {resident.served_name}")
        took = time.monotonic() - resident.created
        assert resident.backend is not None
        log.info("%s: loaded in %.1f s", resident.served_name, took)
        self._bus.publish(ModelLoaded(resident.served_name, resident.backend.backend_id, took))
        self._pulse()

    async def _give_up(
        self, resident: Resident, port: PortLease | None, error: LemonadeError
    ) -> None:
        """End what was started; tell the waiters only when nothing of it is left."""
        resident.step = "stopping"
        try:
            if resident.instance is not None:
                await resident.instance.stop(now=True)
        finally:
            if port is not None:
                port.release()
            for other in self._serving.values():
                if other.promised_to is resident:
                    other.promised_to = None
            self._forget_load(resident)
            resident.phase = Phase.GONE
            resident.error = error
            resident.settled.set()
            resident.gone.set()
            log.warning("%s: not loaded: %s", resident.served_name, error.message)
            self._bus.publish(LoadFailed(resident.served_name, error.message))
            self._pulse()

    def _forget_load(self, resident: Resident) -> None:
        if self._loading.get(resident.key) is resident:
            del self._loading[resident.key]
        self._load_tasks.pop(resident, None)
        self._listeners.pop(resident, None)
        self._kept.discard(resident)

    def _restore(self, evicted: list[Resident]) -> None:
        """Load again those who had to leave for a load that failed."""
        for victim in evicted:
            busy = victim.key in self._serving or victim.key in self._loading
            if self._closed or busy:
                continue
            request = self._requests.get(victim, LoadRequest())
            request = LoadRequest(request.options, pinned=victim.pinned)
            try:
                plan = self._loader.plan(victim.spec, victim.served_name, request)
            except LemonadeError as error:
                log.warning("%s cannot be loaded again: %s", victim.served_name, error)
                continue
            log.info("%s: loading it again, since what replaced it failed", victim.served_name)
            self._kept.add(self._begin(plan, request))

    # ---- room

    async def _make_room(
        self, resident: Resident, plan: LoadPlan, ingredients: Ingredients, evicted: list[Resident]
    ) -> list[Resident]:
        """Claim a slot. Returns those who leave when `resident` is ready.

        Those who had to leave at once are put into `evicted`, also if this is cancelled half-way.
        """
        victims = await self._claim(resident)
        beside = self._loader.fits_beside(plan, ingredients)
        leaving = [r for r in self._draining if r.key == resident.key]
        if not beside:
            old = self._serving.get(resident.key)
            for victim in [*victims, *([old] if old is not None else [])]:
                evicted.append(victim)
                self._retire(victim, f"{resident.served_name} needs its place")
            victims = []
            leaving = list(self._draining)
        for one in leaving:
            await one.gone.wait()
        return victims

    async def _claim(self, resident: Resident) -> list[Resident]:
        """Take a slot, or wait for one that another load is about to settle.

        Raises:
            EverythingPinned: nobody may be asked to leave.
        """
        while True:
            movable = {
                r.key: r
                for r in self._serving.values()
                if r.promised_to is None and r.key != resident.key
            }
            fixed = [r for r in self._loading.values() if r.claims and r is not resident]
            facts = [_facts(r, pinned=r.pinned) for r in movable.values()]
            facts += [_facts(r, pinned=True) for r in fixed]
            demand = Demand(
                model=resident.key,
                type=resident.spec.type,
                slots=resident.recipe.slots,
                devices=resident.devices,
            )
            try:
                plan = plan_eviction(demand, facts, self._max_per_type())
            except EverythingPinned:
                # A load that is under way holds a slot only until it is ready or has failed.
                if not fixed:
                    raise
                await self._changed.wait()
                continue
            resident.claims = True
            victims = [movable[key] for key in plan.stop]
            for victim in victims:
                victim.promised_to = resident
                log.info("%s will make room: %s", victim.served_name, plan.reason)
            return victims

    # ---- leaving

    def _retire(self, resident: Resident, why: str) -> None:
        """Grant no more leases; end it when the running requests have finished."""
        if self._serving.get(resident.key) is resident:
            del self._serving[resident.key]
        resident.phase = Phase.DRAINING
        resident.why = why
        self._draining.add(resident)
        self._tasks.create_task(self._drain(resident), name=f"drain {resident.served_name}")
        self._pulse()

    async def _drain(self, resident: Resident) -> None:
        await resident.idle.wait()
        assert resident.instance is not None
        await resident.instance.stop()
        # `_watch` sees the end and says so.

    async def _watch(self, resident: Resident, port: PortLease) -> None:
        """Follow a serving engine to its end, asked for or not."""
        assert resident.instance is not None
        try:
            report = await resident.instance.ended()
        finally:
            port.release()
            if self._serving.get(resident.key) is resident:
                del self._serving[resident.key]
            expected = resident.phase is Phase.DRAINING
            resident.phase = Phase.GONE
            self._draining.discard(resident)
            self._requests.pop(resident, None)
            resident.gone.set()
            self._pulse()
        why = resident.why if expected else f"its engine {report.sentence()}"
        level = logging.INFO if expected else logging.ERROR
        log.log(level, "%s: unloaded: %s", resident.served_name, why)
        self._bus.publish(ModelUnloaded(resident.served_name, why))

    def _pulse(self) -> None:
        """Wake everybody who waits for a slot."""
        self._changed.set()
        self._changed = asyncio.Event()

    def _check_open(self) -> None:
        if self._closed:
            raise ShuttingDown("The server is shutting down.", remedy="Try again in a moment.")


def _same(resident: Resident, plan: LoadPlan) -> bool:
    """Whether a resident runs, or will run, just what the plan wants."""
    if resident.backend is None or resident.options is None:
        return False
    return resident.backend.id == plan.backend.id and _comparable(
        resident.options.values
    ) == _comparable(plan.options.values)


def _comparable(values: Mapping[str, object]) -> dict[str, object]:
    return {key: value for key, value in values.items() if key != "pinned"}


def _facts(resident: Resident, *, pinned: bool) -> ResidentFacts:
    return ResidentFacts(
        model=resident.key,
        type=resident.spec.type,
        slots=resident.recipe.slots,
        devices=resident.devices,
        pinned=pinned,
        last_use=resident.last_use,
        busy=resident.leases > 0,
    )


def _cancelled(resident: Resident, *, closed: bool) -> LemonadeError:
    if closed:
        return ShuttingDown("The server is shutting down.", remedy="Try again in a moment.")
    why = resident.why or "it was cancelled"
    return NotLoaded(f"Loading {resident.served_name} was given up: {why}.")
