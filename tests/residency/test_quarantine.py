"""A device that keeps a dead engine's memory: no load until that is back, or somebody insists."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from lemonade.core.bus import Bus
from lemonade.core.errors import DeviceQuarantined
from lemonade.core.events import Event, QuarantineBegan, QuarantineEnded
from lemonade.core.process import DeviceHold, ExitReport
from lemonade.hardware.facts import Gpu
from lemonade.residency import LoadRequest, Quarantine, describe_quarantined
from lemonade.supervisor import Identity
from tests.residency.stage import CATALOG, Scene, outcome, scene, until
from tests.unit.planning.examples import MACHINE

CUDA = next(one for one in CATALOG.backends.values() if one.id == "llamacpp:cuda")
HELD = DeviceHold(4242, "nvidia:0", 20 << 30)
ENDED = ExitReport(0, None, 1.0, expected=True)


class Driver:
    """Tells what is held, and who has which number."""

    def __init__(self) -> None:
        self.held: tuple[DeviceHold, ...] = (HELD,)
        self.alive: dict[int, Identity] = {}
        self.looks = 0

    def look(self, pids: Collection[int]) -> tuple[DeviceHold, ...]:
        self.looks += 1
        return tuple(one for one in self.held if one.pid in pids)

    def who(self, pid: int) -> Identity | None:
        return self.alive.get(pid)


class Ward:
    """A quarantine, its driver, and what it has said."""

    def __init__(self, *gpus: str, look_every: float = 3600.0) -> None:
        self.driver = Driver()
        self.events: list[Event] = []
        bus = Bus()
        bus.subscribe(Event, self.events.append)
        found = [
            Gpu("nvidia", one, "sm_86", integrated=False, uuid=f"GPU-{one}")
            for one in gpus or ("RTX",)
        ]
        self.quarantine = Quarantine(
            replace(MACHINE, gpus=tuple(found)),
            bus,
            self.driver.look,
            who=self.driver.who,
            look_every=look_every,
        )

    def said(self) -> list[str]:
        return [
            f"{type(one).__name__} {one.device}"
            for one in self.events
            if isinstance(one, QuarantineBegan | QuarantineEnded)
        ]


@asynccontextmanager
async def ward(*gpus: str, look_every: float = 3600.0) -> AsyncIterator[tuple[Ward, Scene]]:
    one = Ward(*gpus, look_every=look_every)
    async with one.quarantine, scene(quarantine=one.quarantine) as stage:
        stage.stage.backend = CUDA
        yield one, stage


async def leave(there: Scene) -> None:
    """Load and unload a model whose memory does not come back."""
    there.stage.left = (HELD,)
    await there.pool.load("one", LoadRequest({}))
    await there.pool.unload("one")


async def test_nothing_is_started_on_it_and_the_error_says_why() -> None:
    async with ward() as (one, there):
        await leave(there)
        (device,) = one.quarantine.devices
        assert (device.device.name, device.bytes) == ("RTX", 20 << 30)
        started = len(there.stage.engines)
        with pytest.raises(DeviceQuarantined) as caught:
            await there.pool.load("two", LoadRequest({}))
        assert await outcome(there.pool.lease("two")) == "DeviceQuarantined"
        assert len(there.stage.engines) == started
        assert caught.value.message.startswith("two is not started: 21.5 GB of RTX did not come")
        assert "`lemonade load two --force`" in caught.value.remedy
        assert caught.value.facts == describe_quarantined(device)
        assert one.said() == ["QuarantineBegan RTX"]


async def test_it_is_used_again_when_its_memory_is_back() -> None:
    async with ward(look_every=0.001) as (one, there):
        await leave(there)
        assert one.quarantine.devices
        await until(lambda: one.driver.looks > 2)
        assert one.quarantine.devices
        one.driver.held = ()
        while one.quarantine.devices:
            await asyncio.sleep(0.001)
        there.stage.left = ()
        await there.pool.load("two", LoadRequest({}))
        assert one.said() == ["QuarantineBegan RTX", "QuarantineEnded RTX"]


async def test_whoever_insists_uses_it() -> None:
    async with ward() as (one, there):
        await leave(there)
        there.stage.left = ()
        await there.pool.load("two", LoadRequest({}), force=True)
        assert one.quarantine.devices == ()
        assert one.said() == ["QuarantineBegan RTX", "QuarantineEnded RTX"]
        assert there.stage.alive("two")


async def test_where_another_can_serve_it_does() -> None:
    async with ward("A", "B") as (one, there):
        await leave(there)
        there.stage.left = ()
        await there.pool.load("two", LoadRequest({}))
        problems = [gpu.problem is None for gpu in one.quarantine.machine.gpus]
        assert problems == [False, True]


async def test_who_serves_goes_on() -> None:
    async with ward() as (_, there):
        there.stage.limit = 2
        await there.pool.load("two", LoadRequest({}))
        await leave(there)
        async with await there.pool.lease("two") as lease:
            assert lease.resident.served_name == "two"


async def test_a_number_that_is_somebody_else_s_now_holds_nothing_of_ours() -> None:
    async with ward() as (one, _):
        one.quarantine.left_behind("one", replace(ENDED, still_held=(HELD,)))
        one.driver.alive[HELD.pid] = Identity(HELD.pid, 77)
        await one.quarantine.look()
        assert one.quarantine.devices == ()


async def test_one_that_would_not_die_holds_it_dead_too() -> None:
    hung = replace(HELD, program="/opt/x/engine", start_ticks=77)
    async with ward() as (one, _):
        one.driver.alive[HELD.pid] = Identity(HELD.pid, 77)
        one.quarantine.left_behind("one", replace(ENDED, still_held=(hung,)))
        await one.quarantine.look()
        (device,) = one.quarantine.devices
        assert "pid 4242 (engine)" in device.reason
        one.driver.alive.clear()
        await one.quarantine.look()
        (device,) = one.quarantine.devices
        assert "pid 4242 (engine, dead)" in device.reason
        one.driver.held = (replace(HELD, bytes=1 << 20),)
        await one.quarantine.look()
        assert one.quarantine.devices == (), "a little does not matter"


async def test_what_is_left_while_somebody_looks_is_not_forgotten() -> None:
    other = replace(HELD, pid=4343)
    async with ward() as (one, _):
        one.quarantine.left_behind("one", replace(ENDED, still_held=(HELD,)))
        one.driver.held = ()
        async with asyncio.TaskGroup() as group:
            group.create_task(one.quarantine.look())
            await asyncio.sleep(0)
            one.quarantine.left_behind("two", replace(ENDED, still_held=(other,)))
        (device,) = one.quarantine.devices
        assert [left.model for left in device.left] == ["two"]
