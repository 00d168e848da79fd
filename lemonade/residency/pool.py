"""The pool: lease a model; join its load, start one, or make room first.

A warm model's lease is granted without waiting for anything, whatever else is being loaded or
stopped.

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
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from lemonade.catalog import ModelRegistry
from lemonade.core.bus import Bus
from lemonade.core.errors import ChildError, LemonadeError, NotLoaded, QueueFull, ShuttingDown
from lemonade.core.events import LoadFailed
from lemonade.core.progress import Progress, ProgressListener
from lemonade.residency.loading import Ingredients, Loader, LoadPlan
from lemonade.residency.placement import Instance, PortLease
from lemonade.residency.resident import Lease, Phase, Resident
from lemonade.residency.residents import Residents
from lemonade.residency.room import plan_room
from lemonade.residency.wishes import LoadRequest

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
        self._residents = Residents(self._tasks, bus)
        self._load_tasks: dict[Resident, asyncio.Task[None]] = {}
        self._listeners: dict[Resident, list[ProgressListener]] = {}
        self._kept: set[Resident] = set()
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
        # The group is not told of an error: it would wrap it into a group of its own.
        await self._tasks.__aexit__(None, None, None)

    # ---- what others ask

    async def lease(self, name: str) -> Lease:
        """The right to use a model; loads it first if need be.

        Raises:
            UnknownModel: nobody declared it.
            LemonadeError: whatever the load failed with.
            ShuttingDown: the server is on its way out.
        """
        spec = self._registry.resolve(name)
        key = spec.canonical_name
        while True:
            resident = self._residents.serving.get(key)
            if resident is not None:
                return Lease(resident)
            pending = self._residents.loading.get(key)
            if pending is None:
                served = self._registry.public_name(spec)
                request = LoadRequest()
                pending = self._begin(self._loader.plan(spec, served, request), request)
            await self._wait(pending)

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
        self._check_open()
        plan = self._loader.plan(spec, self._registry.public_name(spec), request)
        current = self._residents.serving.get(spec.canonical_name)
        pending = self._residents.loading.get(spec.canonical_name)
        if pending is not None and not _same(pending, plan):
            await self._cancel(pending, "another load of it with other options was asked for")
            pending = None
        if pending is None and current is not None and _same(current, plan):
            current.last_use = time.monotonic()
            resident = current
        else:
            resident = pending or self._begin(plan, request)
        if request.pinned is not None:
            resident.pinned = request.pinned
        if keep and resident.phase is Phase.LOADING:
            self._kept.add(resident)
        await self._follow(resident, listen)
        for victim in tuple(self._residents.draining):
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
        key = spec.canonical_name
        pending = self._residents.loading.get(key)
        if pending is not None:
            await self._cancel(pending, "it was unloaded while loading")
        resident = self._residents.serving.get(key)
        if resident is not None:
            self._residents.retire(resident, "unloaded on request")
        leaving = [r for r in self._residents.draining if r.key == key]
        if pending is None and not leaving:
            raise NotLoaded(
                f"{self._registry.public_name(spec)} is not loaded.",
                remedy="`lemonade ps` shows what is.",
            )
        for one in leaving:
            await one.gone.wait()

    async def unload_where(self, wanted: Callable[[Resident], bool], why: str) -> tuple[str, ...]:
        """Unload those of whom `wanted` is true; loads of such are given up. Their names."""
        for pending in [r for r in self._residents.loading.values() if wanted(r)]:
            await self._cancel(pending, why)
        return await self._residents.retire_where(wanted, why)

    def pin(self, name: str, *, pinned: bool) -> None:
        """Keep a loaded model from being evicted, or allow it again.

        Raises:
            NotLoaded: it is not loaded.
        """
        resident = self.find(name)
        if resident is None:
            raise NotLoaded(f"{name} is not loaded.", remedy="`lemonade ps` shows what is.")
        resident.pinned = pinned
        self._residents.pulse()

    def find(self, name: str) -> Resident | None:
        """The serving resident of that name, if there is one."""
        return self._residents.serving.get(self._registry.resolve(name).canonical_name)

    def residents(self) -> tuple[Resident, ...]:
        """Everything that holds or is about to hold memory: serving, loading, draining."""
        return self._residents.everybody()

    @property
    def most_recent(self) -> Resident | None:
        """The serving resident used last."""
        return self._residents.most_recent

    async def close(self) -> None:
        """Take no more requests; end all engines at once, without waiting for their requests."""
        self._closed = True
        for task in tuple(self._load_tasks.values()):
            task.cancel()
        for resident in tuple(self._residents.serving.values()):
            self._residents.retire(resident, "the server is shutting down")
        leaving = tuple(self._residents.draining)
        for resident in leaving:
            resident.idle.set()
        for resident in leaving:
            await resident.gone.wait()

    def hurry(self) -> None:
        """Kill all engines at once; `close` is under way and somebody is impatient."""
        for resident in self._residents.everybody():
            if resident.instance is not None:
                self._tasks.create_task(_kill(resident.instance))

    # ---- waiting

    async def _follow(self, resident: Resident, listen: ProgressListener | None) -> None:
        listeners = self._listeners.setdefault(resident, [])
        if listen is not None:
            listeners.append(listen)
        try:
            await self._wait(resident)
        finally:
            if listen is not None:
                listeners.remove(listen)
            if not listeners:
                self._listeners.pop(resident, None)

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
        if task is not None:
            resident.why = why
            task.cancel()
            await resident.gone.wait()

    # ---- loads

    def _begin(self, plan: LoadPlan, request: LoadRequest) -> Resident:
        self._check_open()
        old = self._residents.serving.get(plan.spec.canonical_name)
        resident = Resident(
            plan.spec,
            plan.served_name,
            plan.recipe,
            request=request,
            pinned=bool(request.pinned) or (old is not None and old.pinned),
            backend=plan.backend,
            options=plan.options,
        )
        self._residents.loading[resident.key] = resident
        self._load_tasks[resident] = self._tasks.create_task(
            self._load(resident, plan), name=f"load {plan.served_name}"
        )
        return resident

    async def _load(self, resident: Resident, plan: LoadPlan) -> None:
        """One load from plan to lease. Ends in a state, never in an exception."""
        evicted: list[Resident] = []
        port: PortLease | None = None
        try:
            resident.step = "fetching"
            ingredients = await self._loader.ingredients(plan, self._teller(resident))
            # A command line that cannot be must show before anybody has to leave.
            self._loader.check(plan, ingredients.files)
            victims = await self._make_room(resident, plan, ingredients, evicted)
            resident.step = "starting"
            instance, port = await self._loader.start(plan, ingredients)
            resident.instance = instance
            await instance.ready()
        except asyncio.CancelledError:
            # Cancelled by us, for a reason that the waiters are told; so it ends here.
            await self._give_up(resident, port, self._cancelled(resident))
            self._restore(evicted)
        except LemonadeError as error:
            await self._give_up(resident, port, error)
            self._restore(evicted)
        except Exception as error:  # a bug in one load must not take the other models down
            log.exception("%s: loading failed unexpectedly", resident.served_name)
            broken = ChildError(f"Loading {resident.served_name} failed unexpectedly: {error}")
            await self._give_up(resident, port, broken)
            self._restore(evicted)
        else:
            self._settle(resident, victims, port)

    def _teller(self, resident: Resident) -> ProgressListener:
        def tell(progress: Progress) -> None:
            resident.step = f"fetching {progress.file}"
            for listener in tuple(self._listeners.get(resident, ())):
                listener(progress)

        return tell

    async def _make_room(
        self, resident: Resident, plan: LoadPlan, ingredients: Ingredients, evicted: list[Resident]
    ) -> list[Resident]:
        """Claim a slot. Returns those who leave when `resident` is ready.

        Those who had to leave at once are put into `evicted`, also if this is cancelled half-way.
        """
        resident.step = "waiting for room"
        victims = await self._claim(resident)
        leaving = [r for r in self._residents.draining if r.key == resident.key]
        if not self._loader.fits_beside(plan, ingredients):
            old = self._residents.serving.get(resident.key)
            for victim in [*victims, *([old] if old is not None else [])]:
                evicted.append(victim)
                self._residents.retire(victim, f"{resident.served_name} needs its place")
            victims = []
            leaving = list(self._residents.draining)
        for one in leaving:
            await one.gone.wait()
        return victims

    async def _claim(self, resident: Resident) -> list[Resident]:
        """Take a slot, or wait for one that another load is about to settle."""
        everybody = self._residents
        while True:
            room = plan_room(
                resident,
                everybody.serving.values(),
                everybody.loading.values(),
                self._max_per_type(),
            )
            if room is None:
                await everybody.change()
                continue
            resident.claims = True
            victims = [everybody.serving[key] for key in room.stop]
            for victim in victims:
                victim.promised_to = resident
                log.info("%s will make room: %s", victim.served_name, room.reason)
            return victims

    def _settle(self, resident: Resident, victims: list[Resident], port: PortLease) -> None:
        """The engine is ready: those it replaces leave, and it serves."""
        old = self._residents.serving.get(resident.key)
        for victim in [*victims, *([old] if old is not None else [])]:
            if victim.phase is Phase.SERVING:
                self._residents.retire(victim, f"{resident.served_name} took its place")
        self._forget_load(resident)
        self._residents.serve(resident, port)

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
            for other in self._residents.serving.values():
                if other.promised_to is resident:
                    other.promised_to = None
            self._forget_load(resident)
            resident.phase = Phase.GONE
            resident.error = error
            resident.settled.set()
            resident.gone.set()
            log.warning("%s: not loaded: %s", resident.served_name, error.message)
            self._bus.publish(LoadFailed(resident.served_name, error.message))
            self._residents.pulse()

    def _forget_load(self, resident: Resident) -> None:
        if self._residents.loading.get(resident.key) is resident:
            del self._residents.loading[resident.key]
        self._load_tasks.pop(resident, None)
        self._kept.discard(resident)

    def _restore(self, evicted: list[Resident]) -> None:
        """Load again those who had to leave for a load that came to nothing."""
        for victim in evicted:
            here = victim.key in self._residents.serving or victim.key in self._residents.loading
            if self._closed or here:
                continue
            request = LoadRequest(victim.request.options, pinned=victim.pinned)
            try:
                plan = self._loader.plan(victim.spec, victim.served_name, request)
            except LemonadeError as error:
                log.warning("%s cannot be loaded again: %s", victim.served_name, error)
                continue
            log.info("%s: loading it again, since what replaced it failed", victim.served_name)
            self._kept.add(self._begin(plan, request))

    def _cancelled(self, resident: Resident) -> LemonadeError:
        if self._closed:
            return ShuttingDown("The server is shutting down.", remedy="Try again in a moment.")
        why = resident.why or "it was cancelled"
        return NotLoaded(f"Loading {resident.served_name} was given up: {why}.")

    def _check_open(self) -> None:
        if self._closed:
            raise ShuttingDown("The server is shutting down.", remedy="Try again in a moment.")


async def _kill(instance: Instance) -> None:
    await instance.stop(now=True)


def _same(resident: Resident, plan: LoadPlan) -> bool:
    """Whether a resident runs, or will run, just what the plan wants."""
    if resident.backend is None or resident.options is None:
        return False
    # Only the recipe's own options reach the engine; the common ones say how long it may stay.
    return resident.backend.id == plan.backend.id and all(
        resident.options.values.get(option.name) == plan.options.values.get(option.name)
        for option in plan.recipe.option
    )
