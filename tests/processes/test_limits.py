"""Limits of a child, seen from outside; and what cannot be had is said before the fork."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from lemonade.core.errors import SpawnFailed
from lemonade.core.process import Limits
from tests.processes.conftest import Bench, alive, until


def _limit_of(pid: int, name: str) -> list[str]:
    lines = Path(f"/proc/{pid}/limits").read_text().splitlines()
    [line] = [line for line in lines if line.startswith(name)]
    return line.removeprefix(name).split()[:2]


async def test_limits_are_in_force_for_the_program_and_not_for_us(bench: Bench) -> None:
    cpu = min(os.sched_getaffinity(0))
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    limits = Limits(open_files=200, nice=3, cpus=(cpu,), memory_bytes=3 << 30)
    async with bench.supervisor() as supervisor:
        child = await bench.ready(supervisor, limits=limits)
        pid = child.pid
        assert pid is not None
        assert _limit_of(pid, "Max open files") == ["200", "200"]
        assert _limit_of(pid, "Max data size") == [str(3 << 30)] * 2
        assert os.getpriority(os.PRIO_PROCESS, pid) == min(19, nice + 3)
        assert os.sched_getaffinity(pid) == {cpu}
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == before
    assert os.getpriority(os.PRIO_PROCESS, 0) == nice


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (Limits(cpus=(8191,)), "CPU 8191"),
        (Limits(open_files=2**31), "open files"),
    ],
)
async def test_what_cannot_be_had_starts_nothing(bench: Bench, limits: Limits, words: str) -> None:
    async with bench.supervisor() as supervisor:
        with pytest.raises(SpawnFailed, match=words) as caught:
            await bench.start(supervisor, limits=limits)
        assert caught.value.remedy
        assert bench.records() == []


async def test_memory_beyond_the_limit_is_refused_to_the_engine(bench: Bench) -> None:
    async with bench.supervisor() as supervisor:
        child = await bench.start(
            supervisor, "--grows", "--ready-after", "600", limits=Limits(memory_bytes=64 << 20)
        )
        pid = child.pid
        assert pid is not None
        await until(lambda: any("MemoryError" in line for line in child.tail(100)))
        await child.stop()
        assert not alive(pid)
