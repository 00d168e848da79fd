"""Children that live and are of no use; what they held, and when it is back."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import pytest

from lemonade.core.process import HANG, DeviceHold, ProbeSpec, SaysItIsDeadError, StopPolicy
from lemonade.supervisor import Phase
from lemonade.supervisor.beside import Beside
from lemonade.supervisor.holding import Holdings, no_devices
from lemonade.supervisor.kin import Family
from lemonade.supervisor.leaf import Leaf
from lemonade.supervisor.spawn import spawn
from tests.processes.conftest import CHILD, PATIENCE, Bench, alive, asks_health, pid_said, until

QUICK = ProbeSpec("/health", interval=0.01, ready_within=PATIENCE)


class Doubt:
    """A probe that says what it is told to."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.asked = 0
        self.dead = False

    async def __call__(self) -> bool:
        self.asked += 1
        if self.dead:
            raise SaysItIsDeadError
        return await asks_health(self.port)


async def test_who_says_that_it_is_dead_is_killed_with_all_it_has(bench: Bench) -> None:
    async with bench.supervisor(watch_interval=0.01) as supervisor:
        with supervisor.lease_port() as lease:
            doubt = Doubt(lease.port)
            spec = bench.spec(lease.port, "--spawn-engine", "--ignore-term")
            child = await supervisor.start(spec, doubt)
        await child.ready()
        engine = await pid_said(child, "engine-core")
        doubt.dead = True
        report = await child.ended()
        assert report.signal == signal.SIGKILL
        assert not report.expected
        assert "has ended" in report.sentence()
        assert child.phase is Phase.FAILED
        assert not alive(engine)


async def test_who_says_so_while_starting_is_not_believed(bench: Bench) -> None:
    async with bench.supervisor(watch_interval=0.01) as supervisor:
        with supervisor.lease_port() as lease:
            doubt = Doubt(lease.port)
            doubt.dead = True
            child = await supervisor.start(bench.spec(lease.port), doubt)
        await until(lambda: doubt.asked > 3)
        doubt.dead = False
        await child.ready()
        await child.stop()


async def test_who_loses_a_descendant_is_asked_at_once(bench: Bench) -> None:
    async with bench.supervisor(watch_interval=PATIENCE * 10) as supervisor:
        with supervisor.lease_port() as lease:
            doubt = Doubt(lease.port)
            child = await supervisor.start(bench.spec(lease.port, "--spawn-engine"), doubt)
        await child.ready()
        engine = await pid_said(child, "engine-core")
        await until(lambda: engine in child.descendants)
        asked, doubt.dead = doubt.asked, True
        assert not child.report
        os.kill(engine, signal.SIGKILL)
        report = await child.ended()
        assert doubt.asked == asked + 2, "it was asked again to be sure"
        assert report.given_up


async def test_giving_up_has_reasons_only_while_it_serves(bench: Bench) -> None:
    async with bench.supervisor() as supervisor:
        child = await bench.start(supervisor, "--ready-after", "0.2")
        child.give_up("too early", HANG)
        await child.ready()
        child.give_up("it answers nobody", HANG)
        child.give_up("and again", HANG)
        report = await child.ended()
        assert report.sentence().endswith("it answers nobody")
        child.give_up("too late", HANG)


async def test_a_start_that_hangs_is_not_given_the_time_of_one_that_serves(bench: Bench) -> None:
    probe = replace(QUICK, stall_timeout=0.3)
    async with bench.supervisor() as supervisor:
        child = await bench.start(
            supervisor, "--never-ready", "--ignore-term",
            probe=probe, stop=StopPolicy(grace=PATIENCE * 10, kill_within=PATIENCE),
        )  # fmt: skip
        report = await child.ended()
        assert report.signal == signal.SIGKILL


async def test_what_it_held_is_in_the_report(bench: Bench) -> None:
    async with bench.supervisor() as supervisor:
        child = await bench.ready(supervisor, "--spawn-engine")
        engine = await pid_said(child, "engine-core")
        await until(lambda: engine in child.descendants)
        report = await child.stop()
        assert report.resident_bytes > 2 * 2**20, "two interpreters"
        assert report.device_bytes == 0
        assert report.still_held == ()


SHARES = """
import mmap, os, time
shared = mmap.mmap(-1, 64 << 20)
shared.write(b"x" * (64 << 20))
for _ in range(3):
    if os.fork() == 0:
        seen = sum(shared[at] for at in range(0, 64 << 20, 4096))
        print("looked", os.getpid(), flush=True)
        time.sleep(600)
time.sleep(600)
"""


def test_what_several_processes_share_is_counted_once(bench: Bench) -> None:
    spec = replace(bench.spec(0), argv=(sys.executable, "-S", "-c", SHARES))
    spawned = spawn(spec, CHILD)
    os.set_blocking(spawned.output, True)
    family = Family(spawned.identity, spawned.mark, CHILD)
    beside = Beside()
    try:
        said = b""
        while said.count(b"looked") < 3:
            said += os.read(spawned.output, 4096)
        holdings = Holdings(family, no_devices, beside)
        holdings.note(family.living(), lives=True)
        assert holdings.resident_bytes > 4 * 64 << 20, "each has seen all of it"
        holdings.survey(lives=True)
        assert 64 << 20 < holdings.resident_bytes < 2 * 64 << 20
        holdings.survey(lives=False)
        assert holdings.resident_bytes > 64 << 20, "what it was when it lived"
    finally:
        beside.close()
        spawned.signal_group(signal.SIGKILL)
        while family.living():
            pass
        assert spawned.collect(within=PATIENCE)
        os.close(spawned.output)


def test_a_cgroup_that_counts_is_believed(bench: Bench, tmp_path: Path) -> None:
    leaf = Leaf(tmp_path / "leaf")
    leaf.path.mkdir()
    (leaf.path / "memory.current").write_text("1000000000\n")
    (leaf.path / "memory.stat").write_text("anon 5\nfile 400000000\nshmem 100000000\n")
    spawned = spawn(bench.spec(0), CHILD)
    os.set_blocking(spawned.output, True)
    beside = Beside()
    try:
        while b"listening" not in os.read(spawned.output, 4096):
            pass
        family = Family(spawned.identity, spawned.mark, CHILD, leaf)
        holdings = Holdings(family, no_devices, beside)
        holdings.look(at_devices=False)
        assert holdings.resident_bytes == 700_000_000
        holdings.remove_leaf()
        assert holdings.left_bytes == 100_000_000
    finally:
        beside.close()
        spawned.signal_group(signal.SIGKILL)
        assert spawned.collect(within=PATIENCE)
        os.close(spawned.output)


class Driver:
    """A driver that takes memory back when it likes."""

    def __init__(self, *, looks: int) -> None:
        self.looks = looks
        self.asked_of_the_dead = 0

    def __call__(self, pids: Collection[int]) -> tuple[DeviceHold, ...]:
        dead = [pid for pid in pids if not alive(pid)]
        self.asked_of_the_dead += bool(dead)
        if dead and self.asked_of_the_dead > self.looks:
            return ()
        return tuple(DeviceHold(pid, "0000:03:00.0", 1 << 20) for pid in pids)


async def test_it_is_over_when_the_driver_has_taken_everything_back(bench: Bench) -> None:
    driver = Driver(looks=3)
    async with bench.supervisor(devices=driver) as supervisor:
        child = await bench.ready(supervisor)
        report = await child.stop()
        assert driver.asked_of_the_dead == 4
        assert report.device_bytes == 1 << 20
        assert report.still_held == ()


async def test_a_driver_that_keeps_it_is_named(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    async with bench.supervisor(devices=Driver(looks=10**9)) as supervisor:
        child = await bench.ready(supervisor, stop=StopPolicy(grace=PATIENCE, kill_within=0.1))
        pid = child.pid
        report = await child.stop()
        assert [(one.pid, one.bytes) for one in report.still_held] == [(pid, 1 << 20)]
        assert "not given back by the driver: 1 MiB of 0000:03:00.0" in caplog.text
        assert not bench.records()
        await asyncio.sleep(0)
