"""What is counted of the lives of engines, from events alone."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from lemonade.core.bus import Bus
from lemonade.core.events import (
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
from lemonade.core.ids import BackendId, ChildId, IncidentId
from lemonade.core.inference import Operation
from lemonade.core.process import DeviceHold, ExitReport, StartStep
from lemonade.telemetry import Lives, Metrics, Statistics
from lemonade.telemetry.lives import MOST_LABELS

FURTHER = {"child_crashes": "how", "load_seconds": "phase", "memory_freed_bytes": "kind"}
BACKEND = BackendId("brew", "cpu")
CRASH = ExitReport(None, 11, 1.0, expected=False, resident_bytes=100)
STOP = ExitReport(
    0, None, 1.0, expected=True, resident_bytes=100, device_bytes=50,
    still_held=(DeviceHold(1, "gpu", 20),),
)  # fmt: skip


class Scene:
    def __init__(self) -> None:
        self.now = 0.0
        self.bus = Bus()
        self.lives = Lives(self.bus, clock=lambda: self.now)
        self._children = 0

    def start(self, model: str = "one", *, backend: str = "brew:cpu") -> ChildId:
        self._children += 1
        child = ChildId(f"{model}-{self._children}")
        self.bus.publish(ChildSpawned(child, model, 1, 2, backend))
        return child

    def page(self) -> dict[str, dict[tuple[str, ...], float]]:
        text = Metrics(Statistics(self.bus), version="1", lives=self.lives).render([])
        found: dict[str, dict[tuple[str, ...], float]] = {}
        for family in text_string_to_metric_families(text):
            name = family.name.removeprefix("lemonade_")
            keys = ("model", "backend", *([FURTHER[name]] if name in FURTHER else []))
            found[name] = {
                tuple(sample.labels.get(key, "") for key in keys): sample.value
                for sample in family.samples
                if sample.name.endswith("_total")
            }
        return found


def test_a_load_is_told_by_phase() -> None:
    one = Scene()
    one.now = 3.0
    child = one.start()
    one.now = 4.0
    one.bus.publish(ChildProgressed(child, "one", StartStep("weights", 10)))
    one.now = 6.0
    one.bus.publish(ChildProgressed(child, "one", StartStep("weights", 90)))
    one.now = 9.0
    one.bus.publish(ChildProgressed(child, "one", StartStep("warm-up")))
    one.now = 10.0
    one.bus.publish(ChildBecameReady(child, "one", 7.0))
    one.bus.publish(ModelLoaded("one", BACKEND, 10.0))
    page = one.page()
    assert page["load_seconds"] == {
        ("one", "brew:cpu", "prepare"): 3.0,
        ("one", "brew:cpu", "start"): 1.0,
        ("one", "brew:cpu", "weights"): 5.0,
        ("one", "brew:cpu", "warm-up"): 1.0,
    }
    assert page["loads"] == page["child_starts"] == {("one", "brew:cpu"): 1.0}


def test_ends_are_told_apart_and_a_start_after_a_crash_is_a_restart() -> None:
    one = Scene()
    for report in (CRASH, CRASH, STOP):
        one.bus.publish(ChildEnded(one.start(), "one", report))
    one.start()
    page = one.page()
    assert page["child_starts"] == {("one", "brew:cpu"): 4.0}
    assert page["child_crashes"] == {("one", "brew:cpu", "signal"): 2.0}
    assert page["child_stops"] == {("one", "brew:cpu"): 1.0}
    assert page["child_restarts"] == {("one", "brew:cpu"): 2.0}
    assert page["memory_freed_bytes"] == {
        ("one", "brew:cpu", "main"): 300.0,
        ("one", "brew:cpu", "device"): 30.0,
    }


def test_what_else_happens_is_counted() -> None:
    one = Scene()
    one.bus.publish(OrphanReaped(ChildId("x"), "old", (1, 2)))
    one.bus.publish(ChildEnded(one.start(), "one", CRASH))
    one.bus.publish(LoadFailed("one", "why"))
    one.bus.publish(CircuitOpened("one", 3, 60.0, IncidentId("1")))
    one.bus.publish(RequestAskedAgain("one", Operation.CHAT))
    page = one.page()
    assert page["orphans_reaped"] == {("old", ""): 2.0}
    for name in ("load_failures", "circuits_opened", "requests_asked_again"):
        assert page[name] == {("one", "brew:cpu"): 1.0}


def test_what_is_no_engine_is_not_counted() -> None:
    one = Scene()
    one.bus.publish(ChildEnded(one.start(backend=""), "helper", STOP))
    page = one.page()
    assert page["child_starts"] == page["child_stops"] == {}


def test_there_is_an_end_to_labels() -> None:
    one = Scene()
    for number in range(MOST_LABELS + 50):
        one.bus.publish(ChildEnded(one.start(f"m{number}"), f"m{number}", STOP))
    starts = one.page()["child_starts"]
    assert len(starts) <= MOST_LABELS + 1
    assert starts["other", "other"] == 50.0
