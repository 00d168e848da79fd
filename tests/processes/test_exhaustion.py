"""When there are no descriptors left: nothing ends for it, and nothing is taken to have ended."""

from __future__ import annotations

import asyncio
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from lemonade.core.errors import SpawnFailed
from lemonade.supervisor import Phase
from lemonade.supervisor.processes import read_process, scan
from tests.processes.conftest import Bench, until


@contextmanager
def no_descriptors() -> Iterator[None]:
    """This process may open nothing more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_process_that_cannot_be_looked_at_is_not_taken_for_gone() -> None:
    with no_descriptors():
        with pytest.raises(OSError, match="Too many open files"):
            read_process(os.getpid())
        with pytest.raises(OSError, match="Too many open files"):
            scan()


async def test_children_outlive_a_time_without_descriptors(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    async with bench.supervisor() as supervisor:
        child = await bench.ready(supervisor)
        with no_descriptors():
            await until(lambda: "cannot be looked for" in caplog.text)
        assert child.phase is Phase.READY
        assert (await child.stop()).expected


async def test_a_program_that_cannot_be_started_for_want_of_descriptors_is_refused(
    bench: Bench,
) -> None:
    async with bench.supervisor() as supervisor:
        with supervisor.lease_port() as lease:
            spec = bench.spec(lease.port)
            with no_descriptors(), pytest.raises(SpawnFailed, match="Too many open files"):
                await supervisor.start(spec, lambda: asyncio.sleep(0, result=True))
        assert dict(supervisor.children) == {}


async def test_an_end_without_descriptors_is_complete_when_there_are_some_again(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    async with bench.supervisor() as supervisor:
        child = await bench.ready(supervisor, "--spawn-engine", "--engine-escapes")
        await until(lambda: bool(child.descendants))
        async with asyncio.TaskGroup() as group:
            with no_descriptors():
                stop = group.create_task(child.stop(now=True))
                await until(lambda: "cannot be looked at" in caplog.text)
                assert not stop.done()
        assert stop.result().survivors == ()
    assert bench.records() == []
