"""Everybody who holds memory, or is about to: who serves, who comes, who leaves.

One writer, the event loop: between two awaits nothing changes, so there is no lock.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from lemonade.core.bus import Bus
from lemonade.core.events import ModelLoaded, ModelRetiring, ModelUnloaded
from lemonade.core.process import ExitReport
from lemonade.jobs import outliving
from lemonade.residency.counters import progress_of, scrape
from lemonade.residency.keeping import facts_of
from lemonade.residency.placement import Instance, PortLease
from lemonade.residency.policies import patience_with
from lemonade.residency.resident import Phase, Resident
from lemonade.residency.standstill import give_up_if_it_stands_still
from lemonade.residency.wellness import HangPolicy, Look, Patience, Wellness

log = logging.getLogger(__name__)

_METRICS_EVERY: Final = 60.0
"""Seconds between two readings of the metrics of an engine that works, if nobody else asks."""


Ended = Callable[[Resident, ExitReport, bool], None]
"""Told how an engine that served has ended, and whether it was meant to."""


Leaving = Callable[[Resident], None]


class Residents:
    """Takes residents from SERVING to GONE, and follows those whose engines end by themselves.

    Invariant: at most one resident of a model serves and at most one is loading; any number may
    be draining. Its tasks are born in the pool's group.
    """

    def __init__(
        self,
        tasks: asyncio.TaskGroup,
        bus: Bus,
        ended: Ended,
        hang: Callable[[], HangPolicy],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.serving: dict[str, Resident] = {}
        self.loading: dict[str, Resident] = {}
        self.draining: set[Resident] = set()
        self._tasks = tasks
        self._bus = bus
        self._ended = ended
        self._hang = hang
        self._clock = clock
        self._changed = asyncio.Event()
        self.leaving: list[Leaving] = []
        """Told synchronously when a resident grants no more leases, before anybody acts on it; and
        again when nothing of it is left."""
        self._followers: dict[Resident, tuple[asyncio.Task[None], asyncio.Task[None]]] = {}

    def everybody(self) -> tuple[Resident, ...]:
        """Serving first, then loading, then draining."""
        return (*self.serving.values(), *self.loading.values(), *self.draining)

    def warm(self, key: str) -> Resident | None:
        """Who serves that model and is not about to end."""
        resident = self.serving.get(key)
        return None if resident is None or resident.ending else resident

    @property
    def most_recent(self) -> Resident | None:
        """The serving resident used last."""
        return max(self.serving.values(), key=lambda r: r.last_use, default=None)

    @property
    def changed(self) -> asyncio.Event:
        """Set when anybody has come, gone or changed after this was asked for."""
        return self._changed

    async def change(self) -> None:
        """Return when anybody has come, gone or changed."""
        await self._changed.wait()

    def pulse(self) -> None:
        """Wake everybody who waits for a change."""
        self._changed.set()
        self._changed = asyncio.Event()

    def pin(self, resident: Resident, *, pinned: bool) -> None:
        """Never evict it, or whoever takes its place; or do again."""
        resident.pinned = pinned
        successor = self.loading.get(resident.key)
        if successor is not None:
            successor.pinned = pinned
        self.pulse()

    def step_of(self, key: str) -> str:
        """What a request for that model is waiting for, in a few words."""
        loading = self.loading.get(key)
        return f"loading: {loading.step}" if loading is not None else "waiting for the engine"

    async def arrival(self, key: str) -> None:
        """Wait for an engine that is being taken over to serve, or to have come to nothing."""
        while (coming := self.loading.get(key)) is not None and coming.adopted:
            await coming.settled.wait()

    def serve(self, resident: Resident, port: PortLease) -> None:
        """From now on leases are granted. No await in here: nobody sees half of it."""
        resident.phase = Phase.SERVING
        resident.step = "ready"
        resident.last_use = time.monotonic()
        resident.since = resident.since or time.time()
        resident.held = port
        self.serving[resident.key] = resident
        resident.settled.set()
        name = resident.served_name
        watch = self._tasks.create_task(self._watch(resident, port), name=f"watch {name}")
        guard = outliving(lambda: self._guard(resident), f"guard {name}")
        self._followers[resident] = (watch, self._tasks.create_task(guard, name=f"guard {name}"))
        watch.add_done_callback(lambda _: self._followers.pop(resident, None))
        if not resident.adopted:
            took = time.monotonic() - resident.created
            assert resident.backend is not None
            log.info("%s: loaded in %.1f s", name, took)
            self._bus.publish(ModelLoaded(name, resident.backend.backend_id, took))
        self.pulse()

    def kill(self) -> None:
        """End all engines at once, without waiting for that."""
        for resident in self.everybody():
            if resident.instance is not None:
                self._tasks.create_task(_kill(resident.instance))

    async def leave(self, *, hand_over: bool, drain: float) -> tuple[str, ...]:
        """Have the engines that can go on without us do so; whose. The others still serve.

        Args:
            hand_over: whether this process goes on as another program.
            drain: seconds that answers may take.
        """
        why = "is restarting" if hand_over else "has ended"
        why = f"The server {why} and has cut off the answer. Ask again."
        with suppress(TimeoutError):
            async with asyncio.timeout(drain):
                for resident in tuple(self.serving.values()):
                    await resident.idle.wait()
        left = []
        for resident in tuple(self.serving.values()):
            instance, facts = resident.instance, facts_of(resident)
            if instance is None or facts is None:
                continue
            await instance.keep(facts)
            if await instance.stay(why, hand_over=hand_over):
                log.info("%s: its engine goes on without us", resident.served_name)
                for task in (followers := self._followers[resident]):
                    task.cancel()
                await asyncio.wait(followers)
                left.append(resident.served_name)
        return tuple(left)

    def retire(self, resident: Resident, why: str) -> None:
        """Grant no more leases; end its engine when the running requests have finished."""
        if self.serving.get(resident.key) is resident:
            del self.serving[resident.key]
        resident.phase = Phase.DRAINING
        resident.why = why
        self.draining.add(resident)
        self._say_leaving(resident)
        self._bus.publish(ModelRetiring(resident.served_name, why))
        name = f"drain {resident.served_name}"
        self._tasks.create_task(outliving(lambda: self._drain(resident), name), name=name)
        self.pulse()

    def _say_leaving(self, resident: Resident) -> None:
        for hear in self.leaving:
            hear(resident)

    async def retire_where(self, wanted: Callable[[Resident], bool], why: str) -> tuple[str, ...]:
        """Retire those who serve and are wanted, in parallel; their names, once they are gone.

        Those who are leaving already are waited for too: their engines still run.
        """
        chosen = [r for r in self.serving.values() if wanted(r)]
        for resident in chosen:
            self.retire(resident, why)
        for resident in [r for r in self.draining if wanted(r)]:
            await resident.gone.wait()
        return tuple(r.served_name for r in chosen)

    async def _drain(self, resident: Resident) -> None:
        await resident.idle.wait()
        assert resident.instance is not None
        await resident.instance.stop()
        # `_watch` sees the end and says so.

    async def _guard(self, resident: Resident) -> None:
        """End an engine that hangs. What became of it is `_watch`'s business."""
        instance = resident.instance
        assert instance is not None
        wellness = Wellness()
        while not resident.gone.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(self._hang().look_every):
                    await resident.gone.wait()
            if resident.gone.is_set() or instance.ending:
                continue
            look = await self._look(resident, instance)
            hung = wellness.hangs(look, self._patience_with(resident))
            if hung and not instance.ending:
                log.error("%s: its engine %s", resident.served_name, hung)
                resident.hung = hung
                await instance.stop()

    def _patience_with(self, resident: Resident) -> Patience:
        instance, options = resident.instance, resident.options
        stall = instance.spec.probe.stall_timeout if instance is not None else 0.0
        values = options.values if options is not None else {}
        return patience_with(self._hang(), resident.recipe, values, stall_timeout=stall)

    async def _look(self, resident: Resident, instance: Instance) -> Look:
        if instance.healthy and resident.leases and _is_old(resident):
            await scrape(resident)  # for the record, should it fail
        if instance.healthy:
            return Look(self._clock(), healthy=True, requests=resident.leases)
        try:
            spent = await instance.cpu_seconds()
        except OSError:  # it is not to blame that we cannot see it
            return Look(self._clock(), healthy=True, requests=resident.leases)
        silence = instance.upstream.quiet
        made = await progress_of(resident)
        return Look(self._clock(), instance.healthy, resident.leases, silence, spent, made)

    async def _watch(self, resident: Resident, port: PortLease) -> None:
        """Follow an engine to its end, asked for or not."""
        assert resident.instance is not None
        report: ExitReport | None = None

        def watch() -> Awaitable[None]:
            return give_up_if_it_stands_still(resident, lambda: self._patience_with(resident))

        heeding = self._tasks.create_task(outliving(watch, "the watch for standstill"))
        try:
            report = resident.report = await resident.instance.ended()
        finally:
            heeding.cancel()
            port.release()
            if self.serving.get(resident.key) is resident:
                del self.serving[resident.key]
            expected = resident.phase is Phase.DRAINING and not resident.hung
            resident.phase = Phase.GONE
            self.draining.discard(resident)
            if report is not None:  # before anybody hears that it is gone
                self._ended(resident, report, expected)
            self._say_leaving(resident)
            resident.gone.set()
            self.pulse()
        cause = f". {report.diagnosis.cause}" if report.diagnosis is not None else ""
        how = resident.hung or report.sentence()
        why = resident.why if expected else f"its engine {how}{cause}"
        log.log(
            logging.INFO if expected else logging.ERROR,
            "%s: unloaded: %s",
            resident.served_name,
            why,
        )
        self._bus.publish(ModelUnloaded(resident.served_name, why))


def _is_old(resident: Resident) -> bool:
    return time.time() - resident.metrics_seen_at > _METRICS_EVERY


async def _kill(instance: Instance) -> None:
    await instance.stop(now=True)
