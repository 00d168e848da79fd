"""Whatever a child has started, however it hides: after its end nothing of it is left."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from lemonade.core.process import StopPolicy
from lemonade.supervisor import Child, Phase
from lemonade.supervisor.beside import Beside
from lemonade.supervisor.processes import ProcessFacts
from lemonade.supervisor.stopping import sweep
from tests.processes.conftest import PATIENCE, Bench, alive, pid_said, post, until

HIDING = {
    "in its session": (),
    "in a session of its own": ("--engine-escapes",),
    "orphaned": ("--double-fork",),
    "orphaned in a session of its own": ("--double-fork", "--engine-escapes"),
    "with a worker": ("--engine-has-worker", "--engine-escapes"),
    "under other names": ("--renamed", "--engine-has-worker", "--double-fork"),
}


BOTH = pytest.mark.usefixtures("with_and_without_a_leaf")


@pytest.fixture(params=HIDING.values(), ids=HIDING.keys())
def hiding(request: pytest.FixtureRequest) -> tuple[str, ...]:
    return tuple(request.param)


@BOTH
async def test_the_engine_core_ends_on_stop(bench: Bench, hiding: tuple[str, ...]) -> None:
    async with bench.supervisor() as supervisor:
        child = await bench.ready(supervisor, "--spawn-engine", *hiding)
        core = await pid_said(child, "engine-core")
        report = await child.stop()
        assert not alive(core)
    assert core in report.swept or "--engine-escapes" not in hiding
    assert child.phase is Phase.STOPPED


@BOTH
async def test_the_engine_core_ends_with_a_crash(bench: Bench, hiding: tuple[str, ...]) -> None:
    async with bench.supervisor() as supervisor:
        child = await bench.ready(supervisor, "--spawn-engine", *hiding)
        core = await pid_said(child, "engine-core")
        os.kill(child.pid or 0, signal.SIGKILL)
        report = await child.ended()
        assert not alive(core)
    assert report.signal == signal.SIGKILL
    assert core in report.swept
    assert child.phase is Phase.FAILED


async def test_the_engine_core_ends_with_a_failed_start(bench: Bench) -> None:
    async with bench.supervisor() as supervisor:
        child = await bench.start(
            supervisor, "--never-ready", "--spawn-engine", "--exit-after", "0.2", "--code", "4"
        )
        report = await child.ended()
        assert report.status == 4
        assert not alive(await pid_said(child, "engine-core"))


async def test_one_that_hides_everything_is_known_from_before(bench: Bench) -> None:
    """No session, no parent and no pipe lead to it any more: it was noted while they did."""
    async with bench.supervisor() as supervisor:
        child = await bench.ready(
            supervisor, "--spawn-engine", "--engine-escapes", "--engine-is-silent"
        )
        core = await pid_said(child, "engine-core")
        await until(lambda: core in child.descendants)
        await post(child.spec.endpoint.port, "/fake/crash")
        report = await child.ended()
        assert core in report.swept
        assert not alive(core)


async def test_one_born_just_before_the_stop_is_found_in_time(bench: Bench) -> None:
    """Only its parent leads to it, and only until that has ended."""
    async with bench.supervisor(notice_interval=PATIENCE * 4) as supervisor:
        child = await bench.ready(supervisor, "--engine-escapes", "--engine-is-silent")
        await post(child.spec.endpoint.port, "/fake/spawn")
        core = await pid_said(child, "engine-core")
        assert core not in child.descendants
        report = await child.stop()
        assert report.swept == (core,)
        assert not alive(core)


@BOTH
async def test_ignoring_sigterm_does_not_help(bench: Bench) -> None:
    policy = StopPolicy(grace=0.1, kill_within=PATIENCE)
    async with bench.supervisor() as supervisor:
        child = await bench.ready(
            supervisor,
            "--ignore-term",
            "--spawn-engine",
            "--engine-escapes",
            "--engine-ignores-term",
            stop=policy,
        )
        core = await pid_said(child, "engine-core")
        report = await child.stop()
        assert report.signal == signal.SIGKILL
        assert not alive(core)


async def test_a_stopped_process_is_killed_all_the_same(bench: Bench) -> None:
    async with bench.supervisor() as supervisor:
        child = await bench.ready(supervisor, stop=StopPolicy(grace=0.1, kill_within=PATIENCE))
        os.kill(child.pid or 0, signal.SIGSTOP)
        report = await child.stop()
    assert report.signal == signal.SIGKILL


async def test_a_stop_may_be_hurried_while_it_is_under_way(bench: Bench) -> None:
    """The grace is longer than the test's patience: only the second stop can end it."""
    policy = StopPolicy(grace=PATIENCE * 4, kill_within=PATIENCE)
    async with bench.supervisor() as supervisor, asyncio.TaskGroup() as group:
        child = await bench.ready(
            supervisor, "--ignore-term", "--spawn-engine", "--engine-ignores-term", stop=policy
        )
        slow = group.create_task(child.stop())
        await until(lambda: child.phase is Phase.STOPPING)
        report = await child.stop(now=True)
        assert report.signal == signal.SIGKILL
        assert await slow is report


async def test_the_sweep_may_be_hurried_too(bench: Bench) -> None:
    """The child itself ends at once; what it leaves would use up all of the grace."""
    policy = StopPolicy(grace=PATIENCE * 4, kill_within=PATIENCE)
    async with bench.supervisor() as supervisor, asyncio.TaskGroup() as group:
        child = await bench.ready(
            supervisor, "--spawn-engine", "--engine-ignores-term", stop=policy
        )
        core = await pid_said(child, "engine-core")
        pid = child.pid or 0
        slow = group.create_task(child.stop())
        await until(lambda: not alive(pid))
        assert alive(core)
        assert core in (await child.stop(now=True)).swept
        await slow


async def test_now_does_not_ask_first(bench: Bench) -> None:
    async with bench.supervisor() as supervisor:
        child = await bench.ready(supervisor)
        report = await child.stop(now=True)
    assert (report.signal, report.expected) == (signal.SIGKILL, True)
    assert child.phase is Phase.STOPPED


async def test_giving_up_the_wait_does_not_give_up_the_stop(bench: Bench) -> None:
    async with bench.supervisor() as supervisor:
        child = await bench.ready(
            supervisor, "--ignore-term", stop=StopPolicy(grace=0.2, kill_within=PATIENCE)
        )
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await child.stop()
        report = await child.ended()
    assert report.expected


async def test_the_supervisor_ends_all_its_children_side_by_side(bench: Bench) -> None:
    """None of them ends by itself, and yet all are being ended at one moment."""
    policy = StopPolicy(grace=PATIENCE * 4, kill_within=PATIENCE)
    children: list[Child] = []

    async def serve() -> None:
        async with bench.supervisor() as supervisor:
            children.extend(
                [await bench.ready(supervisor, "--ignore-term", stop=policy) for _ in range(3)]
            )

    async with asyncio.TaskGroup() as group:
        group.create_task(serve())
        await until(lambda: [child.phase for child in children] == [Phase.STOPPING] * 3)
        for child in children:
            child.ask_to_stop(now=True)
    assert {child.phase for child in children} == {Phase.STOPPED}
    assert bench.records() == []


async def test_a_cancelled_shutdown_hurries(bench: Bench) -> None:
    policy = StopPolicy(grace=PATIENCE * 4, kill_within=PATIENCE)
    children: list[Child] = []

    async def serve() -> None:
        async with bench.supervisor() as supervisor:
            children.append(await bench.ready(supervisor, "--ignore-term", stop=policy))
            await asyncio.Event().wait()

    async with asyncio.TaskGroup() as group:
        server = group.create_task(serve())
        await until(lambda: bool(children) and children[0].phase is Phase.READY)
        server.cancel()
        await until(lambda: children[0].phase is Phase.STOPPING)
        server.cancel()
    assert server.cancelled()
    assert children[0].report is not None
    assert children[0].report.signal == signal.SIGKILL
    assert bench.records() == []


async def test_a_loop_that_is_torn_down_kills(bench: Bench) -> None:
    """Also a task that is cancelled from outside leaves no process, only its record."""
    async with bench.supervisor() as supervisor:
        child = await bench.ready(supervisor, "--ignore-term", "--spawn-engine")
        core = await pid_said(child, "engine-core")
        [task] = [t for t in asyncio.all_tasks() if t.get_name() == f"child {child.id}"]
        task.cancel()
        report = await child.ended()
        assert report.signal is None
        await until(lambda: not alive(core))
    assert child.phase is Phase.FAILED
    assert len(bench.records()) == 1


@BOTH
async def test_supervisors_do_not_touch_each_other_s_children(bench: Bench) -> None:
    async with bench.supervisor() as first:
        mine = await bench.ready(first, "--spawn-engine", "--engine-escapes", "--double-fork")
        core = await pid_said(mine, "engine-core")
        async with bench.supervisor() as second:
            theirs = await bench.ready(second)
            assert list(second.children) == [theirs.id]
            await theirs.stop()
        assert mine.phase is Phase.READY
        assert alive(core)
        assert [path.stem for path in bench.records()] == [mine.id]


@BOTH
async def test_siblings_of_one_program_are_told_apart(bench: Bench) -> None:
    """Orphans of both run the same program and have the same parent: us."""
    switches = ("--spawn-engine", "--engine-escapes", "--double-fork")
    async with bench.supervisor() as supervisor:
        one = await bench.ready(supervisor, *switches)
        other = await bench.ready(supervisor, *switches)
        others_core = await pid_said(other, "engine-core")
        report = await one.stop()
        assert report.swept == (await pid_said(one, "engine-core"),)
        assert alive(others_core)
        assert other.phase is Phase.READY


async def test_what_survives_a_kill_is_told(bench: Bench) -> None:
    """We stand for a process that hangs in the kernel; with another start time, so that no signal
    is sent to us.
    """
    gone = ProcessFacts(os.getpid(), 0, 1, 1, 1, "D", 1)
    beside = Beside()
    swept = await sweep(
        lambda: (gone,), beside, grace=0.0, kill_within=0.05, hurry=asyncio.Event()
    )
    beside.close()
    assert (swept.ended, swept.survivors) == ((), (gone.pid,))
