"""A worker that hangs is noticed, one that works is left alone, and what it had is given back."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lemonade.front.pulse import BUSY_SECONDS, STILL_LOOKS, Pulse
from lemonade.supervisor import Helper, HelperFacts
from tests.serving import PATIENCE, eventually, gone
from tests.workers.seeing import connection, is_held_by, when_ready, workers
from tests.workers.test_living import Stream, running

IDLE = HelperFacts(resting=True, cpu_seconds=1.0)


def asked() -> Pulse:
    pulse = Pulse()
    pulse.ask(IDLE)
    return pulse


def test_one_that_does_nothing_hangs() -> None:
    pulse = asked()
    verdicts = [pulse.hangs(IDLE) for _ in range(STILL_LOOKS)]
    assert verdicts[:-1] == [""] * (STILL_LOOKS - 1)
    assert verdicts[-1] == "neither answered nor worked for 5 s"


def test_one_that_works_now_and_then_does_not_hang() -> None:
    pulse = asked()
    spent = IDLE.cpu_seconds
    for _ in range(5):
        for _ in range(STILL_LOOKS - 1):
            assert not pulse.hangs(HelperFacts(resting=True, cpu_seconds=spent))
        spent += 0.1
        assert not pulse.hangs(HelperFacts(resting=True, cpu_seconds=spent))


def test_one_that_waits_for_a_core_does_not_hang() -> None:
    pulse = asked()
    starved = HelperFacts(resting=False, cpu_seconds=IDLE.cpu_seconds)
    assert not any(pulse.hangs(starved) for _ in range(1000))


def test_one_that_computes_without_end_hangs() -> None:
    pulse = asked()
    spent = IDLE.cpu_seconds + BUSY_SECONDS
    assert not pulse.hangs(HelperFacts(resting=False, cpu_seconds=spent))
    assert pulse.hangs(HelperFacts(resting=False, cpu_seconds=spent + 0.5))


def test_what_was_before_a_question_does_not_count() -> None:
    pulse = asked()
    for _ in range(STILL_LOOKS - 1):
        pulse.hangs(IDLE)
    pulse.answer()
    assert not pulse.asked
    later = HelperFacts(resting=True, cpu_seconds=IDLE.cpu_seconds + 10 * BUSY_SECONDS)
    pulse.ask(later)
    assert not any(pulse.hangs(later) for _ in range(STILL_LOOKS - 1))
    assert pulse.hangs(later)


@contextmanager
def helper(module: str, *words: str) -> Iterator[Helper]:
    one = Helper(module, words, ())
    try:
        yield one
    finally:
        one.kill()
        asyncio.run(one.ended(PATIENCE))
    assert gone(one.pid)


def rests(one: Helper) -> bool:
    seen = one.look()
    return seen is not None and seen.resting


def test_what_a_process_does_is_seen() -> None:
    with helper("timeit", "-n", "1000000000000", "pass") as one:

        def computes() -> bool:
            seen = one.look()
            return seen is not None and seen.cpu_seconds > 0.05

        eventually(computes, "it computes")
        assert not rests(one)
        os.kill(one.pid, signal.SIGSTOP)
        eventually(lambda: rests(one), "it was stopped")
        os.kill(one.pid, signal.SIGKILL)
        eventually(lambda: one.look() is None, "it is gone")


@pytest.mark.slow
def test_a_worker_that_hangs_is_replaced_and_the_others_are_not(home: Path) -> None:
    models = {"slow": "--chunks 100 --slow-chunks 0.2"}
    with running(home, "--model", "slow", models=models, number=2) as server:
        eventually(lambda: "slow" in server.loaded(), "it is loaded")
        pids = workers(server)
        with connection(server, "slow", at_worker=True) as one:
            (hung,) = (pid for pid in pids if is_held_by(one, pid))
            (sound,) = (pid for pid in pids if pid != hung)
            stream = Stream(one, "slow")
            os.kill(hung, signal.SIGSTOP)
            eventually(lambda: gone(hung), "it was ended")
            assert not stream.complete
        eventually(lambda: server.loaded()["slow"]["active_requests"] == 0, "its leases ended")
        now = when_ready(server, 2)
        assert sound in now, "it was asked as well, and has answered"
        assert hung not in now
        server.post("unload", {"model_name": "slow"}).raise_for_status()
        said = re.findall(r"Worker \d hung and was ended \(process (\d+) .*\)", server.log())
        assert said == [str(hung)]
