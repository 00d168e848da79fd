"""What happens at the same time: each test is one order of events that must come out well."""

from __future__ import annotations

import asyncio

import pytest

from lemonade.core.errors import NotLoaded, ShuttingDown
from lemonade.residency import LoadRequest, Phase
from tests.residency.stage import Scene, outcome, scene, turns, until

PLAIN = LoadRequest()


def wish(size: int, *, pinned: bool | None = None) -> LoadRequest:
    return LoadRequest({"ctx_size": size}, pinned)


async def test_a_load_given_up_before_its_first_step_ends() -> None:
    async with scene() as here, asyncio.TaskGroup() as clients:
        first = clients.create_task(outcome(here.pool.load("one", wish(1))))
        second = clients.create_task(outcome(here.pool.load("one", wish(2))))
        assert (await first, await second) == ("NotLoaded", "done")
        assert here.stage.engine("one").options["ctx_size"] == 2


async def test_a_load_that_is_unloaded_before_its_first_step_ends() -> None:
    async with scene() as here, asyncio.TaskGroup() as clients:
        loading = clients.create_task(outcome(here.pool.load("one", PLAIN)))
        unloading = clients.create_task(outcome(here.pool.unload("one")))
        assert (await loading, await unloading) == ("NotLoaded", "done")
        assert here.pool.residents() == ()


async def test_a_pool_closed_before_a_load_has_begun_ends_it() -> None:
    async with scene() as here, asyncio.TaskGroup() as clients:
        loading = clients.create_task(outcome(here.pool.load("one", PLAIN)))
        closing = clients.create_task(outcome(here.pool.close()))
        assert (await loading, await closing) == ("ShuttingDown", "done")


async def test_of_several_loads_with_different_options_one_remains() -> None:
    async with scene() as here:
        here.stage.held.add("one")
        here.stage.turns_to_end = 5
        async with asyncio.TaskGroup() as clients:
            loads = [clients.create_task(outcome(here.pool.load("one", wish(1))))]
            await until(lambda: here.stage.alive("one") != [])
            here.stage.held.clear()
            loads += [
                clients.create_task(outcome(here.pool.load("one", wish(n)))) for n in (2, 3, 4)
            ]
        assert sorted([await load for load in loads]) == ["NotLoaded"] * 3 + ["done"]
        assert len(here.stage.alive("one")) == 1
        assert len(here.pool.residents()) == 1


async def test_a_request_waits_for_the_load_that_took_over() -> None:
    async with scene() as here:
        here.stage.held.add("one")
        async with asyncio.TaskGroup() as clients:
            request = clients.create_task(here.pool.lease("one"))
            await until(lambda: here.stage.alive("one") != [])
            here.stage.held.clear()
            load = clients.create_task(here.pool.load("one", wish(7)))
        lease = await request
        assert lease.resident is await load
        assert lease.instance is here.stage.engine("one")
        lease.end()


async def test_a_load_that_is_asked_for_again_is_not_taken_for_an_engine_that_has_gone() -> None:
    async with scene() as here:
        here.stage.limit = 2
        await here.pool.load("one", wish(1))
        here.stage.held.add("one")
        here.stage.turns_to_end = 10
        async with asyncio.TaskGroup() as clients:
            other = clients.create_task(outcome(here.pool.load("one", wish(2))))
            await until(lambda: len(here.stage.alive("one")) == 2)
            here.stage.held.clear()
            again = clients.create_task(here.pool.load("one", wish(1)))
            await asyncio.sleep(0)  # it has begun to give up the other load
            here.stage.engines[0].crash()
        assert await other == "NotLoaded"
        resident = await again
        assert resident.phase is Phase.SERVING


async def test_unloading_twice_waits_for_the_engine_both_times() -> None:
    async with scene() as here:
        here.stage.held.add("one")
        async with asyncio.TaskGroup() as clients:
            load = clients.create_task(outcome(here.pool.load("one", PLAIN)))
            await until(lambda: here.stage.alive("one") != [])
            here.stage.turns_to_end = 20
            first = clients.create_task(outcome(here.pool.unload("one")))
            await turns(5)
            second = clients.create_task(outcome(here.pool.unload("one")))
            await second
            assert here.stage.alive("one") == []
        assert [await one for one in (load, first, second)] == ["NotLoaded", "done", "done"]


async def test_those_who_left_for_a_failed_load_come_back_although_it_is_unloaded() -> None:
    async with scene() as here:
        here.stage.beside = False
        await here.pool.load("one", PLAIN)
        here.stage.held.add("two")
        async with asyncio.TaskGroup() as clients:
            load = clients.create_task(outcome(here.pool.load("two", PLAIN)))
            await until(lambda: here.stage.alive("two") != [])
            here.stage.turns_to_end = 20
            here.stage.engine("two").crash(slowly=True)
            await turns(5)
            unload = clients.create_task(outcome(here.pool.unload("two")))
            assert await unload == "done"
            await load
        await until(lambda: here.pool.find("one") is not None)


async def test_what_is_unloaded_while_it_is_loaded_anew_stays_away() -> None:
    async with scene() as here:
        here.stage.beside = False
        await here.pool.load("one", PLAIN)
        here.stage.held.add("one")
        async with asyncio.TaskGroup() as clients:
            load = clients.create_task(outcome(here.pool.load("one", wish(2))))
            await until(lambda: len(here.stage.engines) == 2)
            here.stage.held.clear()
            await here.pool.unload("one")
            assert await load == "NotLoaded"
        assert here.pool.residents() == ()


async def test_when_all_is_unloaded_nobody_is_loaded_again() -> None:
    async with scene() as here:
        here.stage.beside = False
        await here.pool.load("one", PLAIN)
        here.stage.held |= {"two", "vectors"}
        async with asyncio.TaskGroup() as clients:
            loads = [
                clients.create_task(outcome(here.pool.load(name, PLAIN)))
                for name in ("two", "vectors")
            ]
            await until(lambda: len(here.stage.engines) == 3)
            await here.pool.unload_where(lambda _: True, "all")
            assert [await load for load in loads] == ["NotLoaded", "NotLoaded"]
        assert here.pool.residents() == ()


async def test_a_load_that_takes_over_brings_back_whom_the_other_had_evicted() -> None:
    async with scene() as here:
        here.stage.beside = False
        await here.pool.load("one", PLAIN)
        here.stage.held.add("two")
        async with asyncio.TaskGroup() as clients:
            first = clients.create_task(outcome(here.pool.load("two", wish(1))))
            await until(lambda: here.stage.alive("two") != [])
            here.stage.held.clear()
            here.stage.broken.add("two")
            second = clients.create_task(outcome(here.pool.load("two", wish(2))))
        assert (await first, await second) == ("NotLoaded", "ExitedWhileStarting")
        await until(lambda: here.pool.find("one") is not None)
        assert len(here.stage.engines) == 4  # nobody was loaded in between


async def test_who_is_pinned_while_its_place_is_taken_stays() -> None:
    async with scene() as here:
        await here.pool.load("one", PLAIN)
        here.stage.held.add("two")
        async with asyncio.TaskGroup() as clients:
            load = clients.create_task(outcome(here.pool.load("two", PLAIN)))
            await until(lambda: here.stage.alive("two") != [])
            here.pool.pin("one", pinned=True)
            here.stage.engine("two").become_ready()
            assert await load == "EverythingPinned"
        assert here.pool.find("one") is not None
        assert here.stage.alive("two") == []


async def test_somebody_else_leaves_for_one_who_has_been_pinned() -> None:
    async with scene() as here:
        here.stage.limit = 2
        await here.pool.load("one", PLAIN)
        await here.pool.load("two", PLAIN)
        here.stage.held.add("three")
        async with asyncio.TaskGroup() as clients:
            load = clients.create_task(here.pool.load("three", PLAIN))
            await until(lambda: here.stage.alive("three") != [])
            here.pool.pin("one", pinned=True)
            here.stage.engine("three").become_ready()
        assert (await load).phase is Phase.SERVING
        assert {r.served_name for r in here.pool.residents() if r.phase is Phase.SERVING} == {
            "one",
            "three",
        }


async def test_a_pin_is_passed_on_to_the_engine_that_takes_over() -> None:
    async with scene() as here:
        await here.pool.load("one", wish(1))
        here.stage.held.add("one")
        async with asyncio.TaskGroup() as clients:
            load = clients.create_task(here.pool.load("one", wish(2)))
            await until(lambda: len(here.stage.alive("one")) == 2)
            here.pool.pin("one", pinned=True)
            here.stage.engines[1].become_ready()
        assert (await load).pinned


async def test_a_request_does_not_meet_an_engine_that_is_ending() -> None:
    async with scene() as here:
        await here.pool.load("one", PLAIN)
        dying = here.stage.engine("one")
        dying.crash(slowly=True)
        async with asyncio.TaskGroup() as clients:
            request = clients.create_task(here.pool.lease("one"))
            await turns(5)
            assert not request.done()
            dying.swept()
        lease = await request
        assert lease.instance is not dying
        lease.end()


async def test_closing_waits_for_loads_that_are_given_up() -> None:
    async with scene() as here:
        here.stage.held.add("one")
        async with asyncio.TaskGroup() as clients:
            load = clients.create_task(outcome(here.pool.load("one", PLAIN)))
            await until(lambda: here.stage.alive("one") != [])
            here.stage.turns_to_end = 20
            await here.pool.close()
            assert here.stage.alive("one") == []
        assert await load == "ShuttingDown"


async def test_closing_twice_ends_all_once() -> None:
    async with scene() as here:
        here.stage.held.add("one")
        await here.pool.load("vectors", PLAIN)
        async with asyncio.TaskGroup() as clients:
            load = clients.create_task(outcome(here.pool.load("one", PLAIN)))
            await until(lambda: here.stage.alive("one") != [])
            here.stage.turns_to_end = 20
            closings = [clients.create_task(here.pool.close())]
            await turns(3)
            closings.append(clients.create_task(here.pool.close()))
            await closings[1]
            assert here.stage.alive("one") == here.stage.alive("vectors") == []
        assert await load == "ShuttingDown"
        with pytest.raises(ShuttingDown):
            await here.pool.lease("one")


async def test_one_who_cannot_be_planned_again_takes_nobody_down() -> None:
    async with scene() as here:
        here.stage.beside = False
        await here.pool.load("one", PLAIN)
        await here.pool.load("vectors", PLAIN)
        here.stage.plan_fails["one"] = PermissionError("the receipt cannot be read")
        here.stage.broken.add("two")
        assert await outcome(here.pool.load("two", PLAIN)) == "ExitedWhileStarting"
        assert here.pool.find("vectors") is not None
        assert here.pool.find("one") is None


async def test_a_limit_that_was_lowered_holds_from_the_next_load_on() -> None:
    async with scene() as here:
        here.stage.limit = -1
        for name in ("one", "two", "three"):
            await here.pool.load(name, PLAIN)
        here.stage.limit = 1
        await here.pool.load("vectors", PLAIN)
        assert len(_serving(here)) == 4
        await here.pool.unload("three")
        await here.pool.load("three", PLAIN)
        assert _serving(here) == {"three", "vectors"}


async def test_whoever_gives_up_waiting_leaves_the_load_to_the_others() -> None:
    async with scene(linger=0.0) as here:
        here.stage.held.add("one")
        async with asyncio.TaskGroup() as clients:
            patient = clients.create_task(outcome(here.pool.load("one", PLAIN)))
            hasty = clients.create_task(here.pool.lease("one"))
            await until(lambda: here.stage.alive("one") != [])
            hasty.cancel()
            await turns(20)
            here.stage.engine("one").become_ready()
            assert await patient == "done"


async def test_a_load_without_waiters_is_given_up() -> None:
    async with scene(linger=0.0) as here:
        here.stage.held.add("one")
        async with asyncio.TaskGroup() as clients:
            hasty = clients.create_task(here.pool.lease("one"))
            await until(lambda: here.stage.alive("one") != [])
            hasty.cancel()
        await until(lambda: here.pool.residents() == ())
        with pytest.raises(NotLoaded):
            await here.pool.unload("one")


def _serving(here: Scene) -> set[str]:
    return {r.served_name for r in here.pool.residents() if r.phase is Phase.SERVING}
