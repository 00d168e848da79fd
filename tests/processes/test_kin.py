"""Each of the five things by which a descendant is known is enough, alone."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from lemonade.core.ids import ChildId
from lemonade.supervisor.kin import Census, Family
from lemonade.supervisor.processes import become_subreaper, is_alive, read_process
from lemonade.supervisor.spawn import Spawned, spawn
from tests.processes.conftest import CHILD, PATIENCE, Bench

NOBODYS = ChildId("tiny-1")
MARKS = {
    "its session": ("--double-fork", "--engine-is-silent"),
    "its parent": ("--engine-escapes", "--engine-is-silent"),
    "the pipe it can write to": ("--double-fork", "--engine-escapes"),
    "its parent's parent": ("--engine-escapes", "--engine-has-worker", "--engine-is-silent"),
}


@contextmanager
def engine(bench: Bench, *switches: str) -> Iterator[tuple[Spawned, int]]:
    """A fake engine that nobody supervises, and the pid of its engine core."""
    become_subreaper()
    spawned = spawn(bench.spec(0, "--spawn-engine", *switches), CHILD)
    os.set_blocking(spawned.output, True)
    said = b""
    while b"listening" not in said or b"engine-core" not in said:
        said += os.read(spawned.output, 4096)
    core = int(said.split(b"engine-core ")[1].split()[0])
    try:
        yield spawned, core
    finally:
        family = Family(spawned.identity, spawned.mark, CHILD)
        while living := family.living():  # a killed process takes a moment to be gone
            for facts in living:
                os.kill(facts.pid, signal.SIGKILL)
        spawned.signal_group(signal.SIGKILL)
        os.close(spawned.output)
        assert spawned.collect(within=10)


@pytest.mark.parametrize("switches", MARKS.values(), ids=MARKS.keys())
def test_kin_is_recognised(bench: Bench, switches: tuple[str, ...]) -> None:
    with engine(bench, *switches) as (spawned, core):
        family = Family(spawned.identity, spawned.mark, NOBODYS)
        living = {facts.pid for facts in family.living()}
        assert core in living
        assert len(living) == 1 + ("--engine-has-worker" in switches)
        assert {known.identity.pid for known in family.descendants()} == living


def test_an_orphan_is_recognised_by_what_it_was_started_with(bench: Bench) -> None:
    """It has left the session, lost its parent and closed its output before anybody looked."""
    with engine(bench, "--double-fork", "--engine-escapes", "--engine-is-silent") as (
        spawned,
        core,
    ):
        limit = time.monotonic() + PATIENCE  # it may still be closing its output
        stranger = Family(spawned.identity, spawned.mark, NOBODYS)
        while stranger.living() and time.monotonic() < limit:
            stranger = Family(spawned.identity, spawned.mark, NOBODYS)
        assert not stranger.living()
        family = Family(spawned.identity, spawned.mark, CHILD)
        assert [facts.pid for facts in family.living()] == [core]


def test_what_was_noted_stays_kin_when_nothing_else_is_left(bench: Bench) -> None:
    with engine(bench, "--engine-escapes", "--engine-is-silent") as (spawned, core):
        family = Family(spawned.identity, spawned.mark, NOBODYS)
        family.note(Census().newcomers())
        spawned.signal_group(signal.SIGKILL)
        while spawned.ending() is None:
            pass
        assert [facts.pid for facts in family.living()] == [core]
        limit = time.monotonic() + PATIENCE  # it may still be closing its output
        while (
            Family(spawned.identity, spawned.mark, NOBODYS).living() and time.monotonic() < limit
        ):
            time.sleep(0.01)
        assert not Family(spawned.identity, spawned.mark, NOBODYS).living()
        while family.living():
            os.kill(core, signal.SIGKILL)


def test_reading_the_output_does_not_make_kin(bench: Bench) -> None:
    """We hold the other end of the pipe, and so does whatever we fork."""
    with engine(bench) as (spawned, core):
        stranger = os.fork()
        if stranger == 0:
            signal.pause()
            os._exit(0)
        family = Family(spawned.identity, spawned.mark, NOBODYS)
        assert [facts.pid for facts in family.living()] == [core]
        os.kill(stranger, signal.SIGKILL)
        os.waitpid(stranger, 0)


def test_a_census_counts_everybody_once() -> None:
    census = Census()
    everybody = {facts.pid for facts in census.newcomers()}
    assert os.getpid() in everybody
    child = os.fork()
    if child == 0:
        signal.pause()
        os._exit(0)
    newcomers = census.newcomers()
    assert child in {facts.pid for facts in newcomers}
    assert os.getpid() not in {facts.pid for facts in newcomers}
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def test_the_dead_are_not_alive_before_they_are_collected() -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    facts = read_process(child)
    assert facts is not None
    assert facts.dead
    assert not is_alive(facts.identity)
    os.waitpid(child, 0)
    assert read_process(child) is None
