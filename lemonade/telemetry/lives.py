"""The lives of engines in numbers: starts, ends, crashes, how long loads took, what was freed.

Listens to the bus and is told nothing directly. Every sample says model and backend; there is room
for a few hundred of these, and what comes after is counted under `other`.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from lemonade.core.bus import Bus
from lemonade.core.events import (
    ChildAdopted,
    ChildBecameReady,
    ChildEnded,
    ChildProgressed,
    ChildSpawned,
    CircuitOpened,
    LoadFailed,
    ModelLoaded,
    OrphanReaped,
    RequestAskedAgain,
)
from lemonade.core.ids import ChildId
from lemonade.core.records import dataclass

MOST_LABELS: Final = 300
"""How many pairs of model and backend are told apart."""

OTHER: Final = ("other", "other")
_BEFORE: Final = "prepare"
_FIRST: Final = "start"

Owner = tuple[str, str]
"""Model and backend."""

_FAMILIES: Final = (
    ("child_starts", "Engines started"),
    ("child_adoptions", "Engines of an earlier server that were taken over"),
    ("child_stops", "Engines that ended because they were asked to"),
    ("child_crashes", "Engines that ended otherwise, by how"),
    ("child_restarts", "Starts after a crash of the same model"),
    ("orphans_reaped", "Processes of earlier servers that were ended"),
    ("loads", "Loads that succeeded"),
    ("load_failures", "Loads that failed"),
    ("load_seconds", "Seconds spent in loads that succeeded, by phase"),
    ("memory_freed_bytes", "Memory that ended engines had held and gave back, by kind"),
    ("circuits_opened", "How often a model was given a rest since it kept failing"),
    ("requests_asked_again", "Requests asked again of a new engine since the first had died"),
)
_FURTHER: Final = {"child_crashes": "how", "load_seconds": "phase", "memory_freed_bytes": "kind"}


@dataclass(slots=True)
class _Start:
    """A child between its spawn and its readiness.

    Attributes:
        seconds: spent in each phase that is over.
    """

    owner: Owner
    phase: str
    since: float
    seconds: dict[str, float]


@dataclass(frozen=True, slots=True)
class Counter:
    """One family of the page.

    Attributes:
        samples: values by labels, in the labels' order.
    """

    name: str
    help: str
    labels: tuple[str, ...]
    samples: Mapping[tuple[str, ...], float]


class Lives:
    """Counts. Made by the composition root before the supervisor; lives as long as the server."""

    def __init__(self, bus: Bus, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._counts: dict[str, dict[tuple[str, ...], float]] = defaultdict(dict)
        self._known: set[Owner] = set()
        self._backends: dict[str, str] = {}
        self._starts: dict[ChildId, _Start] = {}
        self._loading: dict[str, _Start] = {}
        self._crashed: set[str] = set()
        bus.subscribe(ChildSpawned, self._spawned)
        bus.subscribe(ChildAdopted, self._adopted)
        bus.subscribe(ChildProgressed, self._progressed)
        bus.subscribe(ChildBecameReady, self._ready)
        bus.subscribe(ChildEnded, self._ended)
        bus.subscribe(OrphanReaped, self._reaped)
        bus.subscribe(ModelLoaded, self._loaded)
        bus.subscribe(LoadFailed, lambda e: self._add("load_failures", self._owner(e.model)))
        bus.subscribe(CircuitOpened, lambda e: self._add("circuits_opened", self._owner(e.model)))
        bus.subscribe(
            RequestAskedAgain, lambda e: self._add("requests_asked_again", self._owner(e.model))
        )

    def counters(self) -> Iterator[Counter]:
        """All families."""
        for name, text in _FAMILIES:
            further = (_FURTHER[name],) if name in _FURTHER else ()
            labels = ("model", "backend", *further)
            help_ = f"{text}, since the start."
            yield Counter(f"lemonade_{name}", help_, labels, self._counts[name])

    def _add(self, name: str, owner: Owner, further: str = "", amount: float = 1.0) -> None:
        if owner not in self._known and len(self._known) >= MOST_LABELS:
            owner = OTHER
        self._known.add(owner)
        labels = (*owner, further) if further else owner
        self._counts[name][labels] = self._counts[name].get(labels, 0.0) + amount

    def _owner(self, model: str) -> Owner:
        return (model, self._backends.get(model, ""))

    def _spawned(self, event: ChildSpawned) -> None:
        if not event.backend:
            return
        if event.name in self._backends or len(self._backends) < MOST_LABELS:
            self._backends[event.name] = event.backend
        owner = (event.name, event.backend)
        self._starts[event.child] = _Start(owner, _FIRST, self._clock(), {})
        self._add("child_starts", owner)
        if event.name in self._crashed:
            self._crashed.discard(event.name)
            self._add("child_restarts", owner)

    def _adopted(self, event: ChildAdopted) -> None:
        if not event.backend:
            return
        if event.name in self._backends or len(self._backends) < MOST_LABELS:
            self._backends[event.name] = event.backend
        owner = (event.name, event.backend)
        self._starts[event.child] = _Start(owner, "", self._clock(), {})
        self._add("child_adoptions", owner)

    def _progressed(self, event: ChildProgressed) -> None:
        start = self._starts.get(event.child)
        if start is not None and event.step.phase != start.phase:
            self._turn(start, event.step.phase)

    def _ready(self, event: ChildBecameReady) -> None:
        start = self._starts.get(event.child)
        if start is not None:
            self._turn(start, "")
            self._loading[event.name] = start

    def _turn(self, start: _Start, phase: str) -> None:
        now = self._clock()
        start.seconds[start.phase] = start.seconds.get(start.phase, 0.0) + now - start.since
        start.phase, start.since = phase, now

    def _loaded(self, event: ModelLoaded) -> None:
        owner = (event.model, str(event.backend))
        self._add("loads", owner)
        start = self._loading.pop(event.model, None)
        seconds = start.seconds if start is not None else {}
        before = max(0.0, event.took - sum(seconds.values()))
        for phase, spent in {_BEFORE: before, **seconds}.items():
            self._add("load_seconds", owner, phase, spent)

    def _ended(self, event: ChildEnded) -> None:
        start = self._starts.pop(event.child, None)
        if start is None:
            return
        report = event.report
        if self._loading.get(event.name) is start:
            del self._loading[event.name]
        if report.expected:
            self._add("child_stops", start.owner)
        else:
            self._add("child_crashes", start.owner, report.how)
            if len(self._crashed) < MOST_LABELS:
                self._crashed.add(event.name)
        held = sum(one.bytes for one in report.still_held)
        self._add("memory_freed_bytes", start.owner, "main", report.resident_bytes)
        self._add("memory_freed_bytes", start.owner, "device", max(0, report.device_bytes - held))

    def _reaped(self, event: OrphanReaped) -> None:
        self._add("orphans_reaped", (event.name, ""), amount=len(event.pids))
