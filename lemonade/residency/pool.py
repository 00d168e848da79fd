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
from collections.abc import Awaitable, Callable
from typing import Final

from lemonade.catalog import ModelRegistry
from lemonade.core.bus import Bus
from lemonade.core.errors import ChildError, LemonadeError, NotLoaded, QueueFull, ShuttingDown
from lemonade.core.events import LoadBegan, LoadFailed
from lemonade.core.process import ExitReport
from lemonade.core.progress import ProgressListener
from lemonade.jobs import TaskOwner
from lemonade.planning import EvictionPlan
from lemonade.residency.attempt import Arrive, Attempt
from lemonade.residency.beside import with_others
from lemonade.residency.circuit import Failing
from lemonade.residency.claims import Claims
from lemonade.residency.failures import Failures
from lemonade.residency.fitted import expected
from lemonade.residency.forecast import forecast, same
from lemonade.residency.loading import Ingredients, Loader, LoadPlan
from lemonade.residency.placement import PortLease
from lemonade.residency.resident import Lease, Phase, Resident
from lemonade.residency.residents import Residents
from lemonade.residency.revival import Pause, Revivals
from lemonade.residency.starting import rest, start_ready, vet
from lemonade.residency.wellness import HangPolicy
from lemonade.residency.wishes import LoadRequest

log = logging.getLogger(__name__)

MAX_WAITERS: Final = 2048
"""How many requests may wait for one load; beyond that they are told to come back (503)."""

LINGER: Final = 2.0
"""Seconds a load goes on after its last waiter has left: a client that reconnects finds it."""


class Pool(TaskOwner):
    """Owns every resident. An async context manager: leaving it ends all engines, in parallel.

    Made by the composition root after the supervisor, and ended before it.

    Attributes:
        left: models whose engines go on without us, since `close`.
        touch: says that something of a resident has changed.
    """

    def __init__(  # noqa: PLR0913 - everything it is made of
        self,
        *,
        registry: ModelRegistry,
        loader: Loader,
        bus: Bus,
        max_per_type: Callable[[], int],
        failures: Failures,
        linger: float = LINGER,
        pause: Pause = asyncio.sleep,
        hang: Callable[[], HangPolicy] = HangPolicy,
        keep: Callable[[], bool] = lambda: False,
    ) -> None:
        super().__init__()
        self._registry = registry
        self._loader = loader
        self._bus = bus
        self._linger_seconds = linger
        self._failures = failures
        self._pause = pause
        self._residents = Residents(self._tasks, bus, self._ended, hang)
        self.touch = self._residents.pulse
        self._max_per_type = max_per_type
        self._keep = keep
        self._claims = Claims(self._residents, max_per_type)
        self._revivals = Revivals(self._tasks, self._load_again, failures.wait, pause)
        self._attempts: dict[Resident, Attempt] = {}
        self._closed = False
        self.left: tuple[str, ...] = ()

    async def _end_all(self) -> None:
        await self.close()

    @property
    def changed(self) -> asyncio.Event:
        """Set when a resident has come, gone or changed after this was asked for."""
        return self._residents.changed

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
            self._check_open()
            if (ready := self.warm(key)) is not None:
                return Lease(ready)
            pending = self._residents.loading.get(key)
            leaving = self._residents.serving.get(key) or pending
            if leaving is not None and (leaving.ending or leaving.called_off):
                # A load whose engine has ended may be tried again: it is waited for to its end.
                await (leaving.settled if leaving is pending else leaving.gone).wait()
                continue
            if pending is None:
                served, request = self._registry.public_name(spec), LoadRequest()
                pending = self._begin(self._loader.plan(spec, served, request), request)
            lease = await self._lease_of(pending)
            if lease is not None:
                return lease

    def warm(self, key: str) -> Resident | None:
        """Who can answer at once, by canonical name; a lease of it may be made right away."""
        return self._residents.warm(key)

    def plan(self, name: str, request: LoadRequest) -> LoadPlan:
        """Plan a load that is not carried out.

        Raises:
            LemonadeError: it would be refused; nothing is touched.
        """
        spec = self._registry.resolve(name)
        self._check_open()
        return self._loader.plan(spec, self._registry.public_name(spec), request)

    def check(self, plan: LoadPlan) -> None:
        """Refuse to start what keeps failing.

        Raises:
            KeepsFailing, DeviceQuarantined: nothing of it is started now.
        """
        key, name = plan.spec.canonical_name, plan.served_name
        self._failures.check(plan.backend, key, name, lambda: self._loader.fingerprint(plan))

    def forecast(self, plan: LoadPlan) -> EvictionPlan | str:
        """Who would leave for it now; a sentence where nobody has to be asked.

        Raises:
            EverythingPinned: those who would have to leave are pinned.
        """
        return forecast(plan, self._residents, self._max_per_type())

    def name_of(self, key: str) -> str:
        """What people call a model that is here."""
        return self._registry.public_name(self._registry.resolve(key))

    async def load(
        self,
        name: str,
        request: LoadRequest,
        *,
        keep: bool = False,
        force: bool = False,
        listen: ProgressListener | None = None,
    ) -> Resident:
        """Load with options; nothing happens if it is loaded with just these.

        Different options replace the running engine once the new one is ready.

        Args:
            name: of the model, in any accepted form.
            request: options and pin.
            keep: go on even if nobody waits any longer, and load it again if it crashes (a
                preload).
            force: forget how often its engine has failed.
            listen: told how downloads and installation go on.

        Raises:
            LemonadeError: it is refused or failed; the model that ran before still runs.
        """
        spec = self._registry.resolve(name)
        await self._residents.arrival(spec.canonical_name)
        self._check_open()
        plan = self._loader.plan(spec, self._registry.public_name(spec), request)
        await self._loader.vet(plan)  # before another load of it has to give way
        self._check_open()
        if force:
            self._failures.reset(spec.canonical_name)
        resident = await self._join(plan, request)
        resident.kept = resident.kept or keep
        attempt = self._attempts.get(resident)
        if request.pinned is not None:
            self._residents.pin(resident, pinned=request.pinned)
        if attempt is None:
            await self._wait(resident)
        else:
            attempt.kept = attempt.kept or keep
            attempt.insisted = True
            await self._follow(attempt, listen)
        for victim in tuple(self._residents.draining):
            if victim.leases == 0:
                await victim.gone.wait()
        return resident

    async def renew(self, resident: Resident) -> None:
        """Load a serving model again as it is; its engine serves until the new one is ready.

        Raises:
            NotLoaded: it does not serve any more, or is being loaded otherwise.
            LemonadeError: the new one could not be loaded; the old one still serves.
        """
        self._check_open()
        key = resident.key
        if self._residents.serving.get(key) is not resident or key in self._residents.loading:
            raise NotLoaded(f"{resident.served_name} is not loaded as it was.")
        request = LoadRequest(resident.request.options, pinned=resident.pinned)
        plan = self._loader.plan(resident.spec, resident.served_name, request)
        pending = self._begin(plan, request)
        self._attempts[pending].kept = True
        await self._wait(pending)

    def take_in(self, resident: Resident, port: PortLease, arrive: Arrive) -> None:
        """Have a resident whose engine runs already.

        Args:
            resident: as it was, with its engine.
            port: where that listens.
            arrive: returns when it may be used.
        """
        # Who waits for it, and in vain, has it loaded.
        resident.claims = resident.superseded = True
        self._residents.loading[resident.key] = resident
        attempt = self._attempts[resident] = Attempt(resident, kept=True, port=port)
        name = f"take over {resident.served_name}"
        self._tasks.create_task(self._attempt(attempt, lambda: arrive(attempt)), name=name)

    async def unload(self, name: str) -> None:
        """Drain a model, end its engine, and return when nothing of it is left.

        Raises:
            UnknownModel: nobody declared it.
            NotLoaded: it is neither loaded nor on its way.
        """
        spec = self._registry.resolve(name)
        key = spec.canonical_name
        waiting = self._revivals.call_off(lambda one: one.key == key)
        pending = self._residents.loading.get(key)
        if pending is not None:
            # Not even if this load had replaced it: nobody wants the model now.
            self._attempts[pending].forgo(lambda victim: victim.key == key)
            await self._cancel(pending, "it was unloaded while loading")
        resident = self._residents.serving.get(key)
        if resident is not None:
            self._residents.retire(resident, "unloaded on request")
        leaving = [r for r in self._residents.draining if r.key == key]
        if pending is None and not leaving and not waiting:
            raise NotLoaded(
                f"{self._registry.public_name(spec)} is not loaded.",
                remedy="`lemonade ps` shows what is.",
            )
        for one in leaving:
            await one.gone.wait()

    async def unload_where(self, wanted: Callable[[Resident], bool], why: str) -> tuple[str, ...]:
        """Unload those of whom `wanted` is true; loads of such are given up. Their names."""
        self._revivals.call_off(wanted)
        for attempt in self._attempts.values():
            attempt.forgo(wanted)
        pending = [r for r in self._residents.loading.values() if wanted(r)]
        for one in pending:
            self._attempts[one].call_off(why)
        for one in pending:
            await one.gone.wait()
        return await self._residents.retire_where(wanted, why)

    def pin(self, name: str, *, pinned: bool) -> None:
        """Keep a loaded model from being evicted, or allow it again.

        Raises:
            NotLoaded: it is not loaded.
        """
        resident = self.find(name)
        if resident is None:
            raise NotLoaded(f"{name} is not loaded.", remedy="`lemonade ps` shows what is.")
        self._residents.pin(resident, pinned=pinned)

    def find(self, name: str) -> Resident | None:
        """The serving resident of that name, if there is one."""
        return self._residents.serving.get(self._registry.resolve(name).canonical_name)

    def step_of(self, name: str) -> str:
        """What a request for that model is waiting for, in a few words."""
        try:
            key = self._registry.resolve(name).canonical_name
        except LemonadeError:
            return "waiting"
        return self._residents.step_of(key)

    def residents(self) -> tuple[Resident, ...]:
        """Everything that holds or is about to hold memory: serving, loading, draining."""
        return self._residents.everybody()

    def failing(self) -> tuple[Failing, ...]:
        """Models whose engines failed lately."""
        return self._failures.failing()

    @property
    def most_recent(self) -> Resident | None:
        """The serving resident used last."""
        return self._residents.most_recent

    async def close(self, *, hand_over: bool = False, drain: float = 0.0) -> None:
        """Take no more requests; end all engines that do not go on without us.

        Args:
            hand_over: every engine that serves is to go on, since this process becomes another
                server; otherwise those do that may, if the server is to keep them.
            drain: seconds that answers of those may take. Others are ended at once.
        """
        self._closed = True
        self._revivals.call_off(lambda _: True)
        loading = tuple(self._attempts)
        for attempt in self._attempts.values():
            attempt.call_off("the server is shutting down")
        if hand_over or self._keep():
            self.left += await self._residents.leave(hand_over=hand_over, drain=drain)
        for resident in tuple(self._residents.serving.values()):
            self._residents.retire(resident, "the server is shutting down")
        leaving = tuple(self._residents.draining)
        for resident in leaving:
            resident.idle.set()
        for resident in (*loading, *leaving):
            await resident.gone.wait()

    def heed_leaving(self, hear: Callable[[Resident], None]) -> None:
        """Tell of each that leaves, before that is acted on: a lease taken then is waited for."""
        self._residents.leaving.append(hear)

    def hurry(self) -> None:
        """Kill all engines at once; `close` is under way and somebody is impatient."""
        self._residents.kill()

    # ---- waiting

    async def _follow(self, attempt: Attempt, listen: ProgressListener | None) -> None:
        if listen is not None:
            attempt.listeners.append(listen)
        try:
            await self._wait(attempt.resident)
        finally:
            if listen is not None:
                attempt.listeners.remove(listen)

    async def _lease_of(self, pending: Resident) -> Lease | None:
        """Wait for a load; `None` if nothing usable came of it, and the search begins anew.

        The lease is held from the beginning: where models take each other's places, everybody who
        has waited is answered before the engine leaves again.
        """
        lease = Lease(pending)
        usable = False
        try:
            await self._wait(pending)
            usable = pending.phase in (Phase.SERVING, Phase.DRAINING) and not pending.ending
        except NotLoaded:
            if not pending.superseded:
                raise
        finally:
            if not usable:
                lease.end()
        return lease if usable else None

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
            attempt = self._attempts.get(resident)
            if attempt is not None and not attempt.kept and resident.waiters == 0:
                await self._cancel(resident, "nobody waits for it any longer")

    async def _cancel(self, resident: Resident, why: str) -> None:
        attempt = self._attempts.get(resident)
        if attempt is not None:
            attempt.call_off(why)
            await resident.gone.wait()

    # ---- loads

    async def _join(self, plan: LoadPlan, request: LoadRequest) -> Resident:
        """Who serves, or will serve, just what the plan wants. Other loads of it give way."""
        key = plan.spec.canonical_name
        evicted: list[Resident] = []
        try:
            while (leaving := self._in_the_way(key, plan)) is not None:
                attempt = self._attempts.get(leaving)
                if attempt is not None:
                    evicted += attempt.hand_over_evicted()
                    leaving.superseded = True
                    attempt.call_off("another load of it with other options was asked for")
                await leaving.gone.wait()
        except asyncio.CancelledError:
            self._revivals.restore(evicted)
            raise
        pending = self._residents.loading.get(key)
        current = self._residents.serving.get(key)
        if pending is None and current is not None and same(current, plan):
            current.last_use = time.monotonic()
            self._revivals.restore(evicted)
            return current
        resident = pending or self._begin(plan, request)
        self._attempts[resident].evicted += evicted
        return resident

    def _in_the_way(self, key: str, plan: LoadPlan) -> Resident | None:
        """Whose end has to be awaited before the plan can be carried out."""
        pending = self._residents.loading.get(key)
        if pending is not None and (pending.called_off or not same(pending, plan)):
            return pending
        current = self._residents.serving.get(key)
        return current if current is not None and current.ending else None

    def _begin(self, plan: LoadPlan, request: LoadRequest) -> Resident:
        self._check_open()
        self.check(plan)
        old = self._residents.serving.get(plan.spec.canonical_name)
        resident = Resident(
            plan.spec,
            plan.served_name,
            plan.recipe,
            request=request,
            pinned=bool(request.pinned) or (old is not None and old.pinned),
            kept=old is not None and old.kept,
            backend=plan.backend,
            options=plan.options,
            adapters=expected(plan.recipe, plan.served_name, plan.adapters),
        )
        self._residents.loading[resident.key] = resident
        attempt = self._attempts[resident] = Attempt(resident)
        self._bus.publish(LoadBegan(plan.served_name))
        work = self._attempt(attempt, lambda: self._load(attempt, plan))
        self._tasks.create_task(work, name=f"load {plan.served_name}")
        return resident

    async def _load(self, attempt: Attempt, plan: LoadPlan) -> None:
        """From plan to an engine that is ready."""
        resident = attempt.resident
        resident.step = "fetching"
        ingredients = await self._loader.ingredients(plan, attempt.tell)
        # A command line that cannot be must show before anybody has to leave.
        await vet(self._loader, resident, plan, ingredients)
        await rest(self._loader, self._failures, self._pause, attempt, plan)
        victims = await self._make_room(attempt, plan, ingredients)
        ingredients = await with_others(plan, ingredients, self.residents())
        if ingredients.held:
            await vet(self._loader, resident, plan, ingredients)
        await start_ready(self._loader, attempt, plan, ingredients)
        attempt.victims = self._claims.confirmed(resident, victims)

    async def _attempt(self, attempt: Attempt, work: Callable[[], Awaitable[None]]) -> None:
        """One load from wish to lease. Ends in a state, never in an exception."""
        resident = attempt.resident
        try:
            attempt.begin()
            await work()
        except asyncio.CancelledError:
            # Cancelled by us, for a reason that the waiters are told; so it ends here.
            await self._give_up(attempt, self._cancelled(resident))
        except LemonadeError as error:
            await self._give_up(attempt, error)
        except Exception as error:  # a bug in one load must not take the other models down
            log.exception("%s: loading failed unexpectedly", resident.served_name)
            broken = ChildError(f"Loading {resident.served_name} failed unexpectedly: {error}")
            await self._give_up(attempt, broken)
        else:
            assert attempt.port is not None
            self._settle(resident, attempt.victims, attempt.port)

    async def _make_room(
        self, attempt: Attempt, plan: LoadPlan, ingredients: Ingredients
    ) -> list[Resident]:
        """Claim a slot. Returns those who leave when the engine is ready.

        Those who had to leave at once are in the attempt's `evicted`, also if it is called off.
        """
        resident = attempt.resident
        resident.step = "waiting for room"
        victims = await self._claims.claim(resident)
        leaving = [r for r in self._residents.draining if r.key == resident.key]
        if not self._loader.fits_beside(plan, ingredients):
            old = self._residents.serving.get(resident.key)
            for victim in [*victims, *([old] if old is not None else [])]:
                attempt.evicted.append(victim)
                self._residents.retire(victim, f"{resident.served_name} needs its place")
            victims = []
            leaving = list(self._residents.draining)
        for one in leaving:
            await one.gone.wait()
        return victims

    def _settle(self, resident: Resident, victims: list[Resident], port: PortLease) -> None:
        """The engine is ready: those it replaces leave, and it serves."""
        old = self._residents.serving.get(resident.key)
        for victim in [*victims, *([old] if old is not None else [])]:
            if victim.phase is Phase.SERVING:
                self._residents.retire(victim, f"{resident.served_name} took its place")
        self._forget_load(resident)
        self._residents.serve(resident, port)

    async def _give_up(self, attempt: Attempt, error: LemonadeError) -> None:
        """End what was started; tell the waiters only when nothing of it is left."""
        resident = attempt.resident
        attempt.end()
        step, resident.step = resident.step, "stopping"
        report: ExitReport | None = None
        try:
            if resident.instance is not None:
                report = resident.report = await resident.instance.stop(now=True)
        finally:
            if not self._closed:
                self._failures.start_failed(resident, step, error, report)
            if attempt.port is not None:
                attempt.port.release()
            self._claims.release(resident)
            self._forget_load(resident)
            resident.phase = Phase.GONE
            resident.error = error
            # In this order: a load that takes over has begun when those who waited look for it.
            resident.gone.set()
            resident.settled.set()
            log.warning("%s: not loaded: %s", resident.served_name, error.message)
            self._bus.publish(LoadFailed(resident.served_name, error.message))
            self._residents.pulse()
        self._revivals.restore(attempt.evicted)

    def _forget_load(self, resident: Resident) -> None:
        if self._residents.loading.get(resident.key) is resident:
            del self._residents.loading[resident.key]
        self._attempts.pop(resident, None)

    def _load_again(self, earlier: Resident) -> Resident | None:
        """A load like an earlier one that goes on by itself; `None` if there is no need.

        Raises:
            LemonadeError, OSError: it cannot be planned, or keeps failing.
        """
        here = earlier.key in self._residents.serving or earlier.key in self._residents.loading
        if self._closed or here:
            return None
        request = LoadRequest(earlier.request.options, pinned=earlier.pinned)
        plan = self._loader.plan(earlier.spec, earlier.served_name, request)
        resident = self._begin(plan, request)
        resident.kept = earlier.kept
        self._attempts[resident].kept = True
        return resident

    def _ended(self, resident: Resident, report: ExitReport, expected: bool) -> None:  # noqa: FBT001
        """An engine that served is gone; it is loaded again if it is wanted all the time."""
        self._failures.ended(resident, report, expected=expected)
        if not expected and not self._closed and (resident.pinned or resident.kept):
            self._revivals.add(resident)

    def _cancelled(self, resident: Resident) -> LemonadeError:
        if self._closed:
            return ShuttingDown("The server is shutting down.", remedy="Try again in a moment.")
        why = resident.why or "it was cancelled"
        return NotLoaded(f"Loading {resident.served_name} was given up: {why}.")

    def _check_open(self) -> None:
        if self._closed:
            raise ShuttingDown("The server is shutting down.", remedy="Try again in a moment.")
