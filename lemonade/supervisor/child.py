"""One supervised child: one task from its spawn until nothing of it is left.

The task is the only writer of the child's state. It waits for the first of a signal and the
phase's deadline, asks `states.transition` what follows, and does that. Everybody else sends a
signal (`ask_to_stop`) or waits for a state (`ready`, `ended`); there are no locks, and whoever
stops waiting stops nothing else.
"""

from __future__ import annotations

import asyncio
import logging
import signal as os_signals
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Final

from lemonade.core import events
from lemonade.core.errors import LemonadeError, SpawnFailed
from lemonade.core.ids import ChildId
from lemonade.core.inference import JsonObject
from lemonade.core.logs import LogRecord
from lemonade.core.process import FOREIGN_SERVER, ExitReport, ProcessSpec, StartStep
from lemonade.supervisor.diagnosis import LOOKED_AT_LINES
from lemonade.supervisor.ending import End
from lemonade.supervisor.entry import Entry
from lemonade.supervisor.failures import log_end, not_ready, will_not_die
from lemonade.supervisor.health import HealthWatch, Probe
from lemonade.supervisor.holding import Holdings
from lemonade.supervisor.inheritance import Heir
from lemonade.supervisor.keeping import Keeping
from lemonade.supervisor.kernel import Witness
from lemonade.supervisor.kin import Family
from lemonade.supervisor.processes import ProcessFacts
from lemonade.supervisor.spawn import Process
from lemonade.supervisor.states import Action, ChildState, Phase, Signal, Step, begin, transition
from lemonade.supervisor.stopping import sweep
from lemonade.supervisor.strangers import Strangers
from lemonade.supervisor.surroundings import Surroundings
from lemonade.supervisor.vigil import AT_WORK, Vigil
from lemonade.supervisor.voice import Voice

log = logging.getLogger(__name__)

_ORPHAN_GRACE: Final = 2.0
"""Most seconds that descendants of a crashed child get to end: nobody uses them any more."""
_SIDE_LIMIT: Final = 5.0
"""Most seconds that a slow disk or /proc may hold up the end of a child."""
_ABANDON_LIMIT: Final = 0.5
"""Most seconds that the loop is held up for a killed process when its task is torn down."""
_INBOX: Final = 64
_WELL_WITHIN: Final = 30.0
"""Most seconds that one which was taken over may take to say that it is well."""


class Child:
    """A process of ours with all its descendants.

    Made by `Supervisor.start`; ends by itself, by `stop`, or with its supervisor. Its state may
    be read by anybody and is changed by its own task only.

    Attributes:
        id: which run of which child.
        spec: what it was started from.
        started_at: when, in seconds of the epoch.
        adopted: whether an earlier server has started it.
        stays: whether it is left alone when its supervisor is left.
        pipe: then, the reading end of its pipe, to be handed to who comes after us.
    """

    def __init__(
        self,
        child: ChildId,
        spec: ProcessSpec,
        probe: Probe,
        spawned: Process,
        around: Surroundings,
        heir: Heir | None = None,
    ) -> None:
        self.id = child
        self.spec = spec
        self.started_at = time.time() if heir is None else heir.started_at
        self.adopted = heir is not None
        self._around = around
        self._spawned = spawned
        self._family = Family(
            spawned.identity,
            spawned.mark,
            child,
            spawned.leaf,
            known=heir.record.descendants if heir is not None else (),
            executables=heir.record.executables if heir is not None else (),
        )
        self._voice = Voice(
            spec, spawned, around, self._progressed, heir.recalled if heir is not None else b""
        )
        self._output, self._steps = self._voice.output, self._voice.steps
        self._keeping = Keeping(self.id, spawned, around, self.started_at)
        self.holdings = Holdings(self._family, around.devices, around.beside)
        self._vigil = Vigil(spec.probe, self.holdings, lambda: self._output.printed_bytes)
        self._heed_step: Callable[[StartStep], None] | None = None
        self._entry = Entry(around, child, spec, spawned, self._family)
        self._strangers = Strangers(spec, self._family, around.beside, self.give_up)
        self._health = HealthWatch(
            spec.probe, probe, self._strangers.answer, around.watch_interval, self.give_up
        )
        self._loop = asyncio.get_running_loop()
        self._inbox: asyncio.Queue[Signal] = asyncio.Queue(_INBOX)
        self._state: ChildState = begin().state
        now, within = self._loop.time(), spec.probe.ready_within
        self._born = now - max(0.0, time.time() - self.started_at)
        self._deadline: float | None = now + (min(within, _WELL_WITHIN) if heir else within)
        self._died_at: float | None = None
        self._ask_until = 0.0
        self._give_up_at: float | None = None
        self._end = End()
        self._report: ExitReport | None = None
        self._witness: Witness | None = None
        self.stays = False
        self.pipe: int | None = None
        self._stop_wanted = False
        self._was_ready = False
        self._sweeping = False
        self._record_error: LemonadeError | None = None
        self._recorded = asyncio.Event()
        self._settled = asyncio.Event()
        self._over = asyncio.Event()
        self._hurry = asyncio.Event()

    # ---- for everybody

    @property
    def pid(self) -> int | None:
        """Number of the process that was spawned; `None` once that is given back."""
        return None if self._over.is_set() else self._spawned.pid

    @property
    def phase(self) -> Phase:
        """Where it stands."""
        return self._state.phase

    @property
    def step(self) -> StartStep:
        """Where its start is, as far as its output tells."""
        return self._steps.current

    @property
    def report(self) -> ExitReport | None:
        """How it ended; `None` before that."""
        return self._report

    @property
    def descendants(self) -> tuple[int, ...]:
        """Pids noticed below it, about a second old."""
        return tuple(known.identity.pid for known in self._family.descendants())

    def tail(self, lines: int) -> tuple[str, ...]:
        """The last lines it printed, oldest first; after its end too."""
        return self._output.tail(lines)

    def records(self) -> tuple[LogRecord, ...]:
        """All that is kept of what it printed, oldest first; after its end too."""
        return self._output.records()

    def follow(self) -> AsyncIterator[str]:
        """The lines it prints from now on, until it is gone."""
        return self._output.follow()

    def heed_steps(self, listen: Callable[[StartStep], None]) -> None:
        """Have one listener told where its start was and is, and whenever that changes."""
        self._heed_step = listen
        for step in tuple(self._steps.past):
            listen(step)

    async def ready(self) -> None:
        """Wait until it may be used.

        Raises:
            ExitedWhileStarting: it ended, or was stopped, before it was ready.
            NeverReady: it was not ready in time, and has been ended.
        """
        await self._settled.wait()
        if self._state.phase in (Phase.READY, Phase.UNHEALTHY):
            return
        raise not_ready(
            self.spec,
            await self.ended(),
            too_late=self._end.too_late,
            was_ready=self._was_ready,
            stalled=self._end.stalled,
            step=self.step,
        )

    async def ended(self) -> ExitReport:
        """Wait until nothing of it is left, or the report says what is."""
        await self._over.wait()
        assert self._report is not None
        return self._report

    async def stop(self, *, now: bool = False) -> ExitReport:
        """End it and all it has started; return when nothing of that is left.

        May be called by several at once and again, also with `now` while a slow stop is under
        way. Whoever stops waiting does not stop the stopping.

        Args:
            now: do not ask it first, kill.

        Raises:
            WouldNotDie: processes are alive in spite of SIGKILL.
        """
        self.ask_to_stop(now=now)
        report = await self.ended()
        if report.survivors:
            raise will_not_die(self.spec, report)
        return report

    def ask_to_stop(self, *, now: bool = False) -> None:
        """Begin to stop it, without waiting."""
        if self._over.is_set():
            return
        if not self._stop_wanted:
            self._stop_wanted = True
            self._tell(Signal.STOP)
        if now and not self._hurry.is_set():
            self._hurry.set()
            self._tell(Signal.DEADLINE)

    def doubt(self) -> None:
        """Have it asked for its health at once."""
        self._health.hurry.set()

    async def stands_still(self, patience: float) -> None:
        """Return when it has shown no sign of work for so many seconds.

        What it prints is none, since it may print that it was asked for its health.
        """
        policy = replace(self.spec.probe, stall_timeout=patience)
        await Vigil(policy, self.holdings, lambda: 0, busy_share=AT_WORK).watch()

    def give_up(self, why: str, word: str) -> None:
        """Kill it although it lives: it is of no use. The word is for programs."""
        serves = self._state.phase in (Phase.READY, Phase.UNHEALTHY)
        if self._end.given_up or not (serves or word == FOREIGN_SERVER):
            return
        self._end.given_up, self._end.given_up_for = why, word
        log.warning("%s is given up: %s", self.spec.name, why)
        self._hurry.set()
        # Unhealthy, then to be ended, then to be ended at once.
        for signal in (Signal.PROBE_FAILED, Signal.DEADLINE, Signal.DEADLINE):
            self._tell(signal)

    async def keep(self, facts: JsonObject | None) -> None:
        """What the next server needs to know to take it over; `None` if it is to be ended."""
        await self._keeping.put(facts)

    def stay(self, *, hand_over: bool) -> bool:
        """Have it left alone when the supervisor is left; whether that is possible.

        Args:
            hand_over: whether this process goes on as another program, with its pipes.
        """
        well = self._state.phase is Phase.READY and self._end.ending is None
        self.stays = well and self._keeping.may_stay(hand_over=hand_over)
        return self.stays

    # ---- for its supervisor

    async def prepare_to_leave(self) -> bool:
        """Write down the last of it; whether it can still be left alone."""
        await self._look_around()
        for work in (
            self._entry.amend(),
            self._voice.drain(),
            self._voice.flush(),
            self._keeping.write(self._output.tail(LOOKED_AT_LINES)),
        ):
            await self._bounded(work)
        lives = self._state.phase is Phase.READY and self._spawned.ending() is None
        self.stays = lives and self._keeping.written
        return self.stays

    async def recorded(self) -> None:
        """Wait until it stands in the ledger.

        Raises:
            LemonadeError: it cannot be recorded, and has been ended.
        """
        await self._recorded.wait()
        if self._record_error is not None:
            await self._over.wait()
            raise self._record_error

    def look_for_kin(self) -> Callable[[Sequence[ProcessFacts]], bool]:
        """What looks for kin among processes that are new on this machine; blocks, beside.

        Follow with `take_note` of what it says: whether somebody is gone.
        """
        return partial(self.holdings.note, lives=self._state.phase is not Phase.STOPPING)

    async def take_note(self, *, lost: bool) -> None:
        """Record the kin that was found."""
        if lost:
            self._health.hurry.set()  # it may not be able to do without whom it has lost
        await self._entry.amend()

    async def run(self) -> None:
        """Live; return when nothing of it is left. Raises nothing but cancellation."""
        try:
            async with asyncio.TaskGroup() as company:
                await self._live(company)
        except Exception:  # a bug must end this child in order, and no other
            log.exception("%s: its supervision failed", self.spec.name)
        finally:
            if self.stays and not self._over.is_set():
                self.pipe = self._voice.let_go()
                self._spawned.let_go()
            elif not self._over.is_set():
                self._abandon()

    # ---- its life

    async def _live(self, company: asyncio.TaskGroup) -> None:
        self._spawned.watch(self._take_note_of_exit)
        tasks = [company.create_task(self._health.run(self._tell))]
        vigil = company.create_task(self._keep_vigil())
        tasks.append(vigil)
        tasks += self._voice.speak(company)
        await self._enter_in_ledger()
        while not self._state.phase.final:
            step = transition(self._state, await self._next_signal())
            if step.state.phase is not Phase.STARTING:
                vigil.cancel()
                self._output.heed = None
            if step.state.phase.final:
                for task in tasks:
                    task.cancel()
                await self._finish(step.state)
            else:
                await self._advance(step, company)

    def _tell(self, signal: Signal) -> None:
        self._inbox.put_nowait(signal)  # each is sent once, or once a change: it cannot be full

    async def _next_signal(self) -> Signal:
        try:
            async with asyncio.timeout_at(self._deadline):
                return await self._inbox.get()
        except TimeoutError:
            self._deadline = None
            self._end.too_late = self._end.too_late or self._state.phase is Phase.STARTING
            return Signal.DEADLINE

    async def _advance(self, step: Step, company: asyncio.TaskGroup) -> None:
        entered = step.state.phase is not self._state.phase
        self._state = step.state
        if entered:
            self._announce()
            if step.state.phase is Phase.STOPPING:
                await self._bounded(self._keeping.put(None))
        for action in step.actions:
            match action:
                case Action.TERMINATE:
                    await self._terminate()
                case Action.KILL:
                    await self._kill(company)
                case Action.SWEEP:
                    self._begin_sweep(company)
                case Action.SPAWN:  # its pool decides on another child; no restarts are given
                    raise AssertionError("A child is spawned once.")

    async def _keep_vigil(self) -> None:
        await self._vigil.watch()
        if self._state.phase is Phase.STARTING:
            self._end.stalled = True
            self._tell(Signal.DEADLINE)

    def _progressed(self, step: StartStep) -> None:
        self._around.bus.publish(events.ChildProgressed(self.id, self.spec.name, step))
        if self._heed_step is not None:
            self._heed_step(step)

    def _announce(self) -> None:
        name = self.spec.name
        match self._state.phase:
            case Phase.READY if self._was_ready:
                log.info("%s is well again", name)
                self._around.bus.publish(events.ChildRecovered(self.id, name))
            case Phase.READY:
                after = self._loop.time() - self._born
                self._was_ready = True
                self._deadline = None
                self._settled.set()
                if self.adopted:
                    log.info("%s is taken over (pid %d)", name, self._spawned.pid)
                    backend = self.spec.labels.get("backend", "")
                    self._around.bus.publish(
                        events.ChildAdopted(self.id, name, self._spawned.pid, backend)
                    )
                    return
                log.info("%s is ready after %.1f s (pid %d)", name, after, self._spawned.pid)
                self._around.bus.publish(events.ChildBecameReady(self.id, name, after))
            case Phase.UNHEALTHY:
                patience = self.spec.probe.patience
                log.warning("%s has failed %d probes in a row", name, patience)
                self._around.bus.publish(events.ChildBecameUnhealthy(self.id, name))
            case Phase.STOPPING:
                self._deadline = None
                self._settled.set()
                log.info("%s is being ended (pid %d)", name, self._spawned.pid)
                self._around.bus.publish(events.ChildStopping(self.id, name))
            case _:
                pass

    async def _enter_in_ledger(self) -> None:
        try:
            await self._around.beside.proc(self._family.note, ())
            await self._entry.enter()
            self._witness = await self._around.beside.proc(Witness, self._spawned.pid)
        except LemonadeError as error:
            self._record_error = error
        except OSError as error:
            self._record_error = SpawnFailed(f"{self.spec.name}: it cannot be seen: {error}.")
        finally:
            if self._record_error is not None:
                self.ask_to_stop(now=True)
            self._recorded.set()

    # ---- its end

    def _take_note_of_exit(self) -> None:
        self._end.ending = self._spawned.ending()
        self._died_at = self._loop.time()
        self._tell(Signal.EXITED)

    async def _terminate(self) -> None:
        grace = self.spec.stop.grace
        if self._end.too_late or self._end.stalled:  # nobody has ever used it
            grace = min(grace, _ORPHAN_GRACE)
        self._ask_until = self._loop.time() + grace
        if self._hurry.is_set():  # the DEADLINE that kills it is in the inbox already
            return
        await self._look_around()
        self._end.told_to_end = self._end.told_to_end or self._end.ending is None
        self._spawned.signal_group(os_signals.SIGTERM)
        self._deadline = self._ask_until
        await self._bounded(self._entry.amend())

    async def _kill(self, company: asyncio.TaskGroup) -> None:
        self._hurry.set()
        if self._state.exited:  # the sweep is under way, and looks at `hurry`
            return
        await self._look_around()
        self._end.told_to_end = self._end.told_to_end or self._end.ending is None
        self._spawned.signal_group(os_signals.SIGKILL)
        await self._bounded(self._around.beside.proc(self._family.end_leaf))
        now = self._loop.time()
        if self._give_up_at is None:
            self._give_up_at = now + self.spec.stop.kill_within
        if now < self._give_up_at:
            self._deadline = self._give_up_at
        else:
            self._begin_sweep(company)

    async def _look_around(self) -> None:
        """Note the descendants while their parent, by which they are known, is still alive."""
        await self._bounded(
            self._around.beside.proc(self.holdings.survey, lives=self._end.ending is None)
        )

    def _begin_sweep(self, company: asyncio.TaskGroup) -> None:
        self._deadline = None
        if not self._sweeping:
            self._sweeping = True
            company.create_task(self._sweep())

    async def _sweep(self) -> None:
        grace = min(self.spec.stop.grace, _ORPHAN_GRACE)
        if self._end.told_to_end:
            grace = max(0.0, self._ask_until - self._loop.time())
        self._end.swept = await sweep(
            self._family.living,
            self._around.beside,
            grace=grace,
            kill_within=self.spec.stop.kill_within,
            hurry=self._hurry,
            end_all=self._family.end_leaf,
        )
        self._tell(Signal.SWEPT)

    async def _finish(self, final: ChildState) -> None:
        """Collect the process, let go of everything, and only then be in the final phase."""
        await self._bounded(self._voice.drain())
        self._voice.finish()
        survivors = self._end.swept.survivors
        if not self._spawned.collect():
            survivors = (self._spawned.pid, *survivors)
        await self._bounded(self._wait_for_drivers(survivors))
        await self._bounded(self._voice.flush())
        await self._bounded(self._ask_kernel())
        if not survivors:
            await self._bounded(self._around.beside.proc(self.holdings.remove_leaf))
            await self._bounded(self._entry.leave())
        self._conclude(final, survivors)

    async def _wait_for_drivers(self, survivors: Sequence[int]) -> None:
        within = min(self.spec.stop.kill_within, _SIDE_LIMIT - 1)
        await self.holdings.given_back(survivors, within=within)

    async def _ask_kernel(self) -> None:
        """Why it ended, if it was not told to."""
        if not (self._was_ready or self._end.told_to_end):
            await self._strangers.look_back()
        if self._end.told_to_end or self._witness is None:
            return
        pids = (self._spawned.pid, *self.descendants, *self._end.swept.ended)
        killed = self._end.ending is not None and self._end.ending.by(os_signals.SIGKILL)
        self._end.testimony = await self._around.beside.proc(
            self._witness.testify, pids, killed=killed
        )

    async def _bounded(self, work: Awaitable[object]) -> None:
        try:
            async with asyncio.timeout(_SIDE_LIMIT):
                await work
        except (OSError, LemonadeError) as error:
            log.warning("%s: %s", self.spec.name, str(error) or type(error).__name__)

    def _conclude(self, final: ChildState, survivors: tuple[int, ...]) -> None:
        died_at = self._died_at if self._died_at is not None else self._loop.time()
        lines = self._output.tail(LOOKED_AT_LINES)
        end, lived = self._end, died_at - self._born
        report = end.report(self.spec, lived, lines, survivors, self._strangers.who)
        report = self._report = self.holdings.told_in(report)
        self._state = final
        self._settled.set()
        self._over.set()
        self._output.remark(f"[the engine {report.sentence()}]")
        wanted = self.spec.quiet or (report.expected and not end.ours)
        log_end(self.spec.name, report, as_wanted=wanted)
        self._around.bus.publish(events.ChildEnded(self.id, self.spec.name, report))

    def _abandon(self) -> None:
        """Its task is being torn down: kill what is known, without waiting for anything.

        The record stays, so that the next server looks after what may be left.
        """
        self._spawned.signal_group(os_signals.SIGKILL)
        self._family.kill_known()
        self._voice.finish()
        self._spawned.collect(within=_ABANDON_LIMIT)
        self._family.leave_leaf()
        self._recorded.set()
        self._conclude(ChildState(Phase.FAILED), ())
