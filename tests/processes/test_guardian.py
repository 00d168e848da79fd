"""What becomes of engines, and of all they have started, when their server is killed."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from lemonade.core.bus import Bus
from lemonade.supervisor import Supervisor
from lemonade.supervisor.guardian import Guardian, clear_up
from lemonade.supervisor.processes import own_identity
from tests.processes.conftest import Bench, alive, until
from tests.processes.test_reaper import router

ENGINES = (
    ("--spawn-engine",),
    ("--spawn-engine", "--engine-escapes", "--engine-ignores-term"),
    ("--spawn-engine", "--engine-has-worker", "--engine-is-silent"),
    ("--spawn-engine", "--double-fork", "--engine-ignores-term", "--ignore-term"),
    ("--renamed", "--spawn-engine", "--engine-has-worker", "--engine-escapes"),
)


def guardians(ledger: Path) -> list[int]:
    """Living processes that wait over this ledger."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                words = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if b"supervisor.guardian" in words and os.fsencode(ledger) in words:
                found.append(int(entry.name))
    return [pid for pid in found if alive(pid)]


@pytest.mark.slow
@pytest.mark.parametrize("switches", ENGINES, ids=" ".join)
async def test_a_killed_server_leaves_nothing(bench: Bench, switches: tuple[str, ...]) -> None:
    with router(bench, "--guarded", *switches) as (process, said):
        await until(lambda: guardians(bench.ledger) != [])
        [guardian] = guardians(bench.ledger)
        everybody = [said["child"], *said["descendants"]]
        assert all(alive(pid) for pid in everybody)
        process.kill()
        process.wait()
        await until(lambda: not any(alive(pid) for pid in everybody))
        await until(lambda: not alive(guardian))
    assert bench.records() == []


@pytest.mark.slow
async def test_what_was_started_a_moment_before_is_ended_too(bench: Bench) -> None:
    """It is in no record, and neither session, parent nor output show whose it is."""
    habits = ("--double-fork", "--engine-escapes", "--engine-ignores-term", "--engine-is-silent")
    with router(bench, "--guarded", "--unnoticed", *habits) as (process, said):
        await until(lambda: guardians(bench.ledger) != [])
        [core] = said["descendants"]
        assert alive(core)
        process.kill()
        process.wait()
        await until(lambda: not alive(core))
        await until(lambda: not guardians(bench.ledger))
    assert bench.records() == []


async def test_in_order_the_guardian_just_leaves(bench: Bench) -> None:
    async with bench.supervisor(guarded=True) as supervisor:
        assert guardians(bench.ledger) == [], "nobody to guard yet"
        child = await bench.ready(supervisor)
        await until(lambda: len(guardians(bench.ledger)) == 1)
        other = await bench.ready(supervisor)
        assert len(guardians(bench.ledger)) == 1, "one for all"
        await child.stop()
        await other.stop()
    assert guardians(bench.ledger) == []


async def test_another_one_takes_its_post(bench: Bench) -> None:
    async with bench.supervisor(guarded=True) as supervisor:
        await bench.ready(supervisor)
        await until(lambda: guardians(bench.ledger) != [])
        [first] = guardians(bench.ledger)
        os.kill(first, signal.SIGKILL)
        await until(lambda: [pid for pid in guardians(bench.ledger) if pid != first])


async def test_signals_for_everybody_do_not_end_it(bench: Bench) -> None:
    bench.ledger.mkdir()
    guardian = await asyncio.to_thread(Guardian, bench.ledger)
    try:
        await until(lambda: _ignores(guardian.pid, signal.SIGTERM))
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            os.kill(guardian.pid, number)
        assert guardian.alive
    finally:
        await asyncio.to_thread(guardian.dismiss)
    assert not guardian.alive


def _ignores(pid: int, number: int) -> bool:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("SigIgn:"):
            return bool(int(line.split()[1], 16) >> (number - 1) & 1)
    return False


@pytest.mark.slow
async def test_the_children_of_a_living_server_are_not_touched(bench: Bench) -> None:
    with router(bench, "--guarded", "--spawn-engine") as (process, said):
        async with Supervisor(ledger_dir=bench.ledger, bus=Bus(), guarded=True) as supervisor:
            mine = await bench.ready(supervisor)
            process.kill()
            process.wait()
            await until(lambda: not any(map(alive, (said["child"], *said["descendants"]))))
            await until(lambda: len(guardians(bench.ledger)) == 1)
            assert alive(mine.pid or 0)
            assert len(bench.records()) == 1


async def test_a_server_that_lives_after_all_keeps_its_children(bench: Bench) -> None:
    async with bench.supervisor() as supervisor:
        child = await bench.ready(supervisor)
        us = await asyncio.to_thread(own_identity)
        await asyncio.to_thread(clear_up, bench.ledger, us, dying_within=0.1)
        assert alive(child.pid or 0)
        assert len(bench.records()) == 1
