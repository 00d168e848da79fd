"""A pool on a stage: engines without processes that start, crash and end when a test says so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lemonade.catalog import Catalog, ModelSpec, sources
from lemonade.core.bus import Bus
from lemonade.core.errors import ExitedWhileStarting, LemonadeError, SpawnFailed, UnknownModel
from lemonade.core.events import Event, ModelUnloaded
from lemonade.core.ids import BackendId, IncidentId
from lemonade.core.logs import LogRecord
from lemonade.core.process import (
    FOREIGN_SERVER,
    DeviceHold,
    Diagnosis,
    Endpoint,
    ExitReport,
    ProbeSpec,
    ProcessSpec,
    StartStep,
)
from lemonade.planning import EffectiveOptions
from lemonade.residency import Circuits, CrashPolicy, Failures, LoadPlan, LoadRequest, Pool
from lemonade.residency.incidents import Incident, Kind
from lemonade.residency.loading import Ingredients
from lemonade.residency.quarantine import Quarantine

PATIENCE = 3.0
CATALOG = Catalog.load(sources({}, Path("/nonexistent")))
BACKEND = CATALOG.backend(BackendId("llamacpp", "wheel"))
NAMES = ("one", "two", "three", "vectors", "more-vectors")
ENDED = ExitReport(0, None, 1.0, expected=True)
CRASHED = ExitReport(70, None, 1.0, expected=False, last_lines=("it hurts",))
UNTIRED = CrashPolicy(failures=10**9, first_backoff=0.0)
FAULTED = replace(CRASHED, diagnosis=Diagnosis("The GPU has faulted.", "Rest.", severe=True))


class Clock:
    """Time that passes when a test says so. Whoever pauses is woken by that."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.pauses: list[float] = []
        self._moved = asyncio.Event()

    def __call__(self) -> float:
        return self.now

    def move(self, seconds: float) -> None:
        self.now += seconds
        self._moved.set()
        self._moved = asyncio.Event()

    async def pause(self, seconds: float) -> None:
        until = self.now + seconds
        self.pauses.append(seconds)
        while self.now < until:
            await self._moved.wait()


class Records:
    """Obeys what `Failures` asks of `Incidents`, and keeps them in memory."""

    def __init__(self) -> None:
        self.kept: list[Incident] = []

    def add(self, facts: dict[str, Any]) -> Incident:
        name = IncidentId(f"incident-{len(self.kept) + 1}")
        kind, cause = Kind(facts["kind"]), facts["cause"]
        self.kept.append(Incident(name, kind, facts["model"], cause, facts))
        return self.kept[-1]


class Stage:
    """What the fake engines do, and what has become of them.

    Attributes:
        held: models that do not become ready by themselves.
        broken: models that end while starting.
        robbed: models whose port somebody takes first, as often as they are named.
        unspawnable: models whose program cannot be started.
        stubborn: models that take `stubborn_steps` turns of the loop to end.
        beside: whether new engines may start beside those they replace.
        limit: slots for each type.
        backend: what all of them are of.
        left: what drivers have not taken back when one has been stopped.
    """

    def __init__(self) -> None:
        self.held: set[str] = set()
        self.broken: set[str] = set()
        self.robbed: list[str] = []
        self.unspawnable: set[str] = set()
        self.beside = True
        self.limit = 1
        self.backend = BACKEND
        self.left: tuple[DeviceHold, ...] = ()
        self.turns_to_end = 1
        self.fetching: dict[str, asyncio.Event] = {}
        self.engines: list[Engine] = []
        self.leased: set[int] = set()
        self.next_port = 1
        self.plan_fails: dict[str, Exception] = {}
        self.clock = Clock()
        self.records = Records()

    def alive(self, name: str) -> list[Engine]:
        return [engine for engine in self.engines if engine.name == name and not engine.over]

    def engine(self, name: str) -> Engine:
        (engine,) = self.alive(name)
        return engine


class Engine:
    """Obeys `Instance`."""

    def __init__(self, stage: Stage, name: str, options: dict[str, object]) -> None:
        self.name = name
        self.options = options
        self.upstream: Any = None
        self.spec = ProcessSpec(
            name=name,
            argv=("/engine",),
            env={},
            executable_root=Path("/"),
            endpoint=Endpoint("127.0.0.1", 1),
            probe=ProbeSpec("/", stall_timeout=0),  # there is nothing that could stand still
        )
        self.pid = len(stage.engines) + 1
        self.ending = False
        self._stage = stage
        self._ready = asyncio.Event()
        self._exited = asyncio.Event()
        self._report = ENDED
        self._over = asyncio.Event()
        if name not in stage.held:
            self._ready.set()
        if name in stage.broken:
            self.crash()

    async def cpu_seconds(self) -> float:
        return 0.0

    async def device_memory(self) -> tuple[DeviceHold, ...]:
        return ()

    def heed_steps(self, listen: Callable[[StartStep], None]) -> None:
        del listen  # these have no output

    @property
    def over(self) -> bool:
        return self._over.is_set()

    @property
    def healthy(self) -> bool:
        return self._ready.is_set() and not self.over

    def become_ready(self) -> None:
        self._ready.set()

    def crash(self, *, slowly: bool = False, severe: bool = False) -> None:
        """End by itself; `slowly` leaves something to be swept, until `swept`."""
        self._report = FAULTED if severe else CRASHED
        self._exited.set()
        self._ready.set()
        self.ending = True
        if not slowly:
            self._over.set()

    def swept(self) -> None:
        self._over.set()

    async def ready(self) -> None:
        await asyncio.sleep(0)
        await self._ready.wait()
        if self.name in self._stage.robbed:
            self._stage.robbed.remove(self.name)
            self.crash()
            raise ExitedWhileStarting("robbed", facts={"how": FOREIGN_SERVER})
        if self._exited.is_set():
            raise ExitedWhileStarting(f"{self.name} ended")

    async def stands_still(self, patience: float) -> None:
        raise AssertionError("nothing on this stage asks for it")

    def give_up(self, why: str, word: str) -> None:
        raise AssertionError("nothing on this stage asks for it")

    async def ended(self) -> ExitReport:
        await self._over.wait()
        return self._report

    async def stop(self, *, now: bool = False) -> ExitReport:
        self.ending = True
        self._exited.set()
        self._ready.set()
        for _ in range(self._stage.turns_to_end):
            await asyncio.sleep(0)
        self._report = replace(self._report, still_held=self._stage.left)
        self._over.set()
        return self._report

    async def keep(self, facts: object) -> None:
        del facts  # these do not outlive anybody

    async def stay(self, why: str, *, hand_over: bool) -> bool:
        del why, hand_over
        return False

    def tail(self, lines: int) -> tuple[str, ...]:
        return ()

    def records(self) -> tuple[LogRecord, ...]:
        return ()


@dataclass
class Port:
    """Obeys `PortLease`."""

    stage: Stage
    number: int
    endpoint: Endpoint = field(init=False)

    def __post_init__(self) -> None:
        self.endpoint = Endpoint("127.0.0.1", self.number)

    def release(self) -> None:
        self.stage.leased.discard(self.number)


class Registry:
    """Five models of two types."""

    def __init__(self) -> None:
        self._specs = {
            name: ModelSpec(
                name=name,
                origin="builtin",
                recipe="llamacpp",
                checkpoints={"main": "o/r:f.gguf"},
                labels=("embeddings",) if "vectors" in name else (),
            )
            for name in NAMES
        }

    def resolve(self, name: str) -> ModelSpec:
        if name not in self._specs:
            raise UnknownModel(name)
        return self._specs[name]

    def public_name(self, spec: ModelSpec) -> str:
        return spec.name


class FakeLoader:
    """Obeys what the pool asks of a `Loader`."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    def plan(self, spec: ModelSpec, served_name: str, request: LoadRequest) -> LoadPlan:
        if served_name in self._stage.plan_fails:
            raise self._stage.plan_fails[served_name]
        options = EffectiveOptions({"ctx_size": 0, **request.options}, {})
        return LoadPlan(
            spec, served_name, CATALOG.recipe("llamacpp"), self._stage.backend, options
        )

    def check(self, plan: LoadPlan, ingredients: Ingredients) -> tuple[str, ...]:
        """Everything can be started."""
        return ()

    async def vet(self, plan: LoadPlan, bundle: object = None) -> tuple[str, ...]:
        """Nobody wrote an argument."""
        return ()

    def again(self, plan: LoadPlan, lines: tuple[str, ...]) -> None:
        """Nothing is tried twice."""

    def fingerprint(self, plan: LoadPlan) -> str:
        return f"{plan.served_name} {plan.options.values}"

    async def ingredients(self, plan: LoadPlan, listen: object) -> Ingredients:
        gate = self._stage.fetching.get(plan.served_name)
        await (gate.wait() if gate is not None else asyncio.sleep(0))
        return Ingredients(None, {})  # type: ignore[arg-type]

    def fits_beside(self, plan: LoadPlan, ingredients: Ingredients) -> bool:
        return self._stage.beside

    async def start(self, plan: LoadPlan, ingredients: Ingredients) -> tuple[Engine, Port]:
        port = Port(self._stage, self._stage.next_port)
        self._stage.next_port += 1
        self._stage.leased.add(port.number)
        try:
            await asyncio.sleep(0)
            if plan.served_name in self._stage.unspawnable:
                raise SpawnFailed(f"{plan.served_name} cannot be started")
        except BaseException:
            port.release()
            raise
        engine = Engine(self._stage, plan.served_name, dict(plan.options.values))
        self._stage.engines.append(engine)
        return engine, port


@dataclass
class Scene:
    """A running pool and its stage."""

    stage: Stage
    pool: Pool
    events: list[Event]

    def unloaded(self) -> list[str]:
        return [event.model for event in self.events if isinstance(event, ModelUnloaded)]


@asynccontextmanager
async def scene(
    *,
    linger: float = 60.0,
    policy: CrashPolicy = UNTIRED,
    quarantine: Quarantine | None = None,
) -> AsyncIterator[Scene]:
    """A pool; whatever the test did, nothing is left when it has been closed."""
    stage, bus, events = Stage(), Bus(), []
    circuits = Circuits(lambda: policy, clock=stage.clock, chance=lambda: 0.0)
    bus.subscribe(Event, events.append)
    async with asyncio.timeout(PATIENCE):
        async with Pool(
            registry=Registry(),  # type: ignore[arg-type]
            loader=FakeLoader(stage),  # type: ignore[arg-type]
            bus=bus,
            max_per_type=lambda: stage.limit,
            failures=Failures(stage.records, circuits, bus, quarantine),
            pause=stage.clock.pause,
            linger=linger,
        ) as pool:
            yield Scene(stage, pool, events)
    assert [engine for engine in stage.engines if not engine.over] == []
    assert stage.leased == set()
    assert pool.residents() == ()


async def until(holds: Callable[[], bool]) -> None:
    """Let others run until it is so."""
    async with asyncio.timeout(PATIENCE):
        while not holds():
            await asyncio.sleep(0)


async def turns(count: int) -> None:
    """Let others run for so many turns of the loop."""
    for _ in range(count):
        await asyncio.sleep(0)


async def outcome(work: Awaitable[object]) -> str:
    """`done`, or the name of the error."""
    try:
        await work
    except LemonadeError as error:
        return type(error).__name__
    return "done"


async def until_true(holds: Callable[[], bool], within: float = 30.0) -> None:
    """Wait for real processes until it is so."""
    async with asyncio.timeout(within):
        while not holds():
            await asyncio.sleep(0.01)
