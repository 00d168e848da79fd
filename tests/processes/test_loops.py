"""The same life on the event loop of the standard library and on the one we run on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
import uvloop

from lemonade.supervisor import Phase
from tests.processes.conftest import Bench, alive, pid_said, post

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


async def live(bench: Bench) -> None:
    async with bench.supervisor() as supervisor:
        crashed = await bench.ready(supervisor, "--spawn-engine", "--engine-escapes")
        core = await pid_said(crashed, "engine-core")
        await post(crashed.spec.endpoint.port, "/fake/crash?code=6")
        assert (await crashed.ended()).status == 6
        assert not alive(core)
        stopped = await bench.ready(supervisor)
        assert (await stopped.stop()).status == 0
        left = await bench.ready(supervisor, log_file=bench.home / "tiny.log")
    assert left.phase is Phase.STOPPED
    assert bench.records() == []


@pytest.mark.parametrize("loop", LOOPS.values(), ids=LOOPS.keys())
def test_a_life(bench: Bench, loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(live(bench))
