"""What happens after an engine has failed: it is tried again, or it is given a rest."""

from __future__ import annotations

import asyncio

import pytest

from lemonade.core.errors import ExitedWhileStarting, KeepsFailing, NotLoaded, UnsupportedHere
from lemonade.core.events import IncidentRecorded
from lemonade.residency import CrashPolicy, LoadRequest
from tests.residency.stage import Scene, outcome, scene, turns, until

POLICY = CrashPolicy()


async def refusal(one: Scene, name: str = "one", **options: object) -> KeepsFailing:
    with pytest.raises(KeepsFailing) as caught:
        await one.pool.load(name, LoadRequest(options))
    return caught.value


async def fail(one: Scene, times: int, name: str = "one", **options: object) -> None:
    one.stage.broken.add(name)
    for _ in range(times):
        with pytest.raises(ExitedWhileStarting):
            await one.pool.load(name, LoadRequest(options))


async def crash(one: Scene, name: str = "one") -> None:
    """Returns when the pool knows."""
    resident = one.pool.find(name)
    assert resident is not None
    one.stage.engine(name).crash()
    await resident.gone.wait()


async def test_the_third_failure_opens_the_circuit_and_nothing_is_started() -> None:
    async with scene(policy=POLICY) as one:
        await fail(one, 3)
        started = len(one.stage.engines)
        error = await refusal(one)
        assert len(one.stage.engines) == started
        assert error.facts["failures"] == 3
        assert error.facts["retry_after"] == 60
        assert error.facts["incident"] == "incident-3"
        assert error.facts["last_lines"] == ["it hurts"]
        assert "it hurts" in error.message
        with pytest.raises(KeepsFailing):
            await one.pool.lease("one")
        assert len(one.stage.engines) == started
        (failing,) = one.pool.failing()
        assert (failing.model, failing.failures, failing.retry_after) == ("one", 3, 60.0)


async def test_one_attempt_is_let_through_after_the_rest_and_the_next_rest_is_longer() -> None:
    async with scene(policy=POLICY) as one:
        await fail(one, 3)
        one.stage.clock.move(59.0)
        assert (await refusal(one)).facts["retry_after"] == 1
        one.stage.clock.move(1.0)
        await fail(one, 1)
        assert (await refusal(one)).facts["retry_after"] == 120
        one.stage.clock.move(120.0)
        one.stage.broken.clear()
        await one.pool.load("one", LoadRequest())


async def test_failures_that_are_long_ago_do_not_count() -> None:
    async with scene(policy=POLICY) as one:
        await fail(one, 2)
        one.stage.clock.move(601.0)
        assert one.pool.failing() == ()
        await fail(one, 2)
        one.stage.broken.clear()
        await one.pool.load("one", LoadRequest())


async def test_other_options_are_another_start() -> None:
    async with scene(policy=POLICY) as one:
        await fail(one, 3, ctx_size=99)
        await refusal(one, ctx_size=99)
        one.stage.broken.clear()
        await one.pool.load("one", LoadRequest({"ctx_size": 5}))


async def test_somebody_who_insists_is_obeyed() -> None:
    async with scene(policy=POLICY) as one:
        await fail(one, 3)
        with pytest.raises(ExitedWhileStarting):
            await one.pool.load("one", LoadRequest(), force=True)
        one.stage.broken.clear()
        await one.pool.load("one", LoadRequest())
        (failing,) = one.pool.failing()
        assert failing.failures == 1


async def test_a_fault_of_the_device_opens_it_at_once() -> None:
    async with scene(policy=POLICY) as one:
        await one.pool.load("one", LoadRequest())
        one.stage.engine("one").crash(severe=True)
        await until(lambda: not one.pool.residents())
        error = await refusal(one)
        assert error.facts["failures"] == 1
        assert error.facts["cause"] == "The GPU has faulted."


async def test_what_is_no_fault_of_the_engine_does_not_count() -> None:
    async with scene(policy=POLICY) as one:
        one.stage.plan_fails["one"] = UnsupportedHere("no such device")
        for _ in range(4):
            assert await outcome(one.pool.load("one", LoadRequest())) == "UnsupportedHere"
        one.stage.plan_fails.clear()
        one.stage.unspawnable.add("one")
        for _ in range(4):
            assert await outcome(one.pool.load("one", LoadRequest())) == "SpawnFailed"
        one.stage.unspawnable.clear()
        for _ in range(4):
            await one.pool.load("one", LoadRequest())
            await one.pool.unload("one")
        assert one.pool.failing() == ()
        kinds = [incident.kind for incident in one.stage.records.kept]
        assert kinds == ["start-failed"] * 4  # those that could not be spawned are told, too


async def test_whose_port_was_taken_gets_another_one_and_that_is_no_failure() -> None:
    async with scene(policy=POLICY) as one:
        one.stage.robbed = ["one"]
        await one.pool.load("one", LoadRequest())
        assert len(one.stage.engines) == 2
        assert one.stage.leased == {2}
        assert one.stage.records.kept == []
        await one.pool.unload("one")
        one.stage.robbed = ["one"] * 8
        for _ in range(4):
            with pytest.raises(ExitedWhileStarting):
                await one.pool.load("one", LoadRequest())
        assert {incident.record["how"] for incident in one.stage.records.kept} == {
            "foreign-server"
        }
        assert one.pool.failing() == ()


async def test_a_failed_start_is_recorded_and_its_error_names_the_record() -> None:
    async with scene(policy=POLICY) as one:
        one.stage.broken.add("one")
        with pytest.raises(ExitedWhileStarting) as caught:
            await one.pool.load("one", LoadRequest({"ctx_size": 5}))
        assert caught.value.facts["incident"] == "incident-1"
        (incident,) = one.stage.records.kept
        assert (incident.kind, incident.model) == ("start-failed", "one")
        assert incident.record["exit_status"] == 70
        told = [event for event in one.events if isinstance(event, IncidentRecorded)]
        assert [(event.incident, event.kind) for event in told] == [("incident-1", "start-failed")]


async def test_a_request_waits_out_the_pause_and_a_load_does_not() -> None:
    async with scene(policy=POLICY) as one:
        await fail(one, 2)
        one.stage.broken.clear()
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(one.pool.lease("one"))
            await until(lambda: one.stage.clock.pauses == [1.0])
            assert one.stage.alive("one") == []
            one.stage.clock.move(1.0)
        (await task).end()
        await one.pool.unload("one")
        await one.pool.load("one", LoadRequest())
        assert one.stage.clock.pauses == [1.0]


@pytest.mark.parametrize("how", ["pinned", "preloaded"])
async def test_what_is_wanted_all_the_time_is_loaded_again(how: str) -> None:
    async with scene(policy=POLICY) as one:
        request = LoadRequest(pinned=True if how == "pinned" else None)
        await one.pool.load("one", request, keep=how == "preloaded")
        await crash(one)
        await until(lambda: one.pool.find("one") is not None)
        assert one.stage.clock.pauses == []
        await crash(one)
        await until(lambda: one.stage.clock.pauses == [1.0])
        assert one.stage.alive("one") == []
        one.stage.clock.move(1.0)
        await until(lambda: one.pool.find("one") is not None)
        await crash(one)
        await until(lambda: one.stage.clock.pauses == [1.0, 60.0])
        one.stage.clock.move(60.0)
        await until(lambda: one.pool.find("one") is not None)
        resident = one.pool.find("one")
        assert resident is not None
        assert resident.pinned is (how == "pinned")


async def test_what_nobody_wants_is_not_loaded_again() -> None:
    async with scene(policy=POLICY) as one:
        await one.pool.load("one", LoadRequest())
        await crash(one)
        await turns(50)
        assert one.pool.residents() == ()


async def test_a_rest_ends_with_an_unload_and_with_the_server() -> None:
    async with scene(policy=POLICY) as one:
        for name in ("one", "vectors"):
            await one.pool.load(name, LoadRequest(pinned=True))
            one.stage.engine(name).crash(severe=True)
        await until(lambda: len(one.stage.clock.pauses) == 2)
        await one.pool.unload("one")
        with pytest.raises(NotLoaded):
            await one.pool.unload("one")
        one.stage.clock.move(60.0)
        await until(lambda: one.pool.find("vectors") is not None)
        await crash(one, "vectors")
        await until(lambda: len(one.stage.clock.pauses) == 3)
        assert one.pool.find("one") is None


async def test_a_preload_that_fails_while_reviving_is_tried_again() -> None:
    async with scene(policy=POLICY) as one:
        await one.pool.load("one", LoadRequest(), keep=True)
        one.stage.broken.add("one")
        await crash(one)
        await until(lambda: one.stage.clock.pauses == [1.0])
        one.stage.broken.clear()
        one.stage.clock.move(1.0)
        await until(lambda: one.pool.find("one") is not None)
