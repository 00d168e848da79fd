"""When the machine is kept awake, and how long it is said to have slept."""

from __future__ import annotations

import time

import pytest

from lemonade.core.bus import Bus
from lemonade.core.events import Event, MachineResumed, SleepInhibited
from lemonade.residency import LoadRequest, Phase, Resident
from lemonade.residency.awake import Awake, SleepMeter, at_work, counting_sleep
from lemonade.residency.wellness import Look, Patience, Wellness
from tests.residency.stage import CATALOG, scene

CATALOG_MODEL = CATALOG.builtin_models()["Tiny-Lemon-GGUF"]


class Lock:
    """Obeys `Lock`; `works` is whether logind does."""

    def __init__(self) -> None:
        self.works = True
        self.held = False
        self.taken = 0

    async def take(self) -> None:
        self.taken += not self.held
        self.held = self.works

    async def let_go(self) -> None:
        self.held = False


class Scene:
    def __init__(self) -> None:
        self.now = 100.0
        self.asleep = 0.0
        self.resident = Resident(
            CATALOG_MODEL, "one", CATALOG.recipe("llamacpp"), LoadRequest(), phase=Phase.SERVING
        )
        self.wanted = True
        self.resumed = 0
        self.lock = Lock()
        self.events: list[Event] = []
        bus = Bus()
        bus.subscribe(Event, self.events.append)
        self.awake = Awake(
            bus=bus,
            lock=self.lock,
            residents=lambda: [self.resident],
            wanted=lambda: self.wanted,
            resumed=self._resume,
            linger=30.0,
            clocks=(lambda: self.now + self.asleep, lambda: self.now),
        )

    def _resume(self) -> None:
        self.resumed += 1

    async def after(self, seconds: float, *, busy: bool = False) -> bool:
        self.now += seconds
        self.resident.leases = int(busy)
        await self.awake.look()
        return self.lock.held


async def test_the_lock_is_held_while_there_is_work_and_a_little_longer() -> None:
    one = Scene()
    assert not await one.after(2)
    assert await one.after(2, busy=True)
    assert await one.after(20)
    assert await one.after(9, busy=True)
    assert await one.after(29)
    assert not await one.after(1)
    assert one.lock.taken == 1
    kinds = [event.held for event in one.events if isinstance(event, SleepInhibited)]
    assert kinds == [True, False]


async def test_who_does_not_want_it_is_not_kept_awake() -> None:
    one = Scene()
    one.wanted = False
    assert not await one.after(2, busy=True)
    one.wanted = True
    assert await one.after(2, busy=True)
    one.wanted = False
    assert not await one.after(2, busy=True)


async def test_a_sleep_is_noticed_once() -> None:
    one = Scene()
    await one.after(2)
    one.asleep = 3600.0
    await one.after(2)
    await one.after(2)
    assert one.resumed == 1
    (event,) = [event for event in one.events if isinstance(event, MachineResumed)]
    assert event.slept == 3600.0


def test_a_nap_shorter_than_two_readings_of_a_clock_is_none() -> None:
    meter = SleepMeter(1000.0, 10.0)
    assert meter.slept(1005.01, 15.0) == 0.0
    assert meter.slept(1105.01, 15.0) == pytest.approx(100.0)
    assert meter.slept(1106.01, 16.0) == 0.0


def test_sleep_does_not_count_for_those_who_hang() -> None:
    """Their clock stands still meanwhile, so that nothing has to be taken off."""
    assert "MONOTONIC" in time.get_clock_info("monotonic").implementation
    assert counting_sleep() >= time.monotonic() - 1.0
    wellness, slept = Wellness(), 7200.0
    for awake in (0.0, 10.0):
        assert awake + slept > 30.0
        look = Look(awake, healthy=False, requests=0)
        assert wellness.hangs(look, Patience(idle=30.0)) == ""


async def test_loading_and_leases_are_work() -> None:
    async with scene() as one:
        assert not at_work(one.pool.residents())
        lease = await one.pool.lease("one")
        assert at_work(one.pool.residents())
        lease.end()
        assert not at_work(one.pool.residents())
