"""The transition table: every pair of state and signal, every reachable state, random lives."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lemonade.supervisor.states import (
    Action,
    ChildState,
    Phase,
    Signal,
    Step,
    begin,
    transition,
)

MOST_RESTARTS = 2


def reachable() -> tuple[ChildState, ...]:
    found = {begin(restarts).state for restarts in range(MOST_RESTARTS + 1)}
    frontier = set(found)
    while frontier:
        frontier = {
            transition(state, signal).state for state, signal in product(frontier, Signal)
        } - found
        found |= frontier
    return tuple(sorted(found, key=str))


STATES = reachable()
PAIRS = tuple(product(STATES, Signal))


def test_every_phase_is_reachable() -> None:
    assert {state.phase for state in STATES} == set(Phase)


def test_a_child_begins_with_its_spawn() -> None:
    assert begin() == Step(ChildState(Phase.STARTING), (Action.SPAWN,))


@pytest.mark.parametrize(("state", "signal"), PAIRS)
def test_what_always_holds(state: ChildState, signal: Signal) -> None:
    step = transition(state, signal)
    after = step.state
    if state.phase.has_process and not after.phase.has_process:
        assert signal is Signal.SWEPT
    if after.phase is Phase.READY and state.phase is not Phase.READY:
        assert signal is Signal.PROBE_PASSED
    if after.phase.has_process and not state.phase.has_process:
        assert step.actions == (Action.SPAWN,)
    if Action.SPAWN in step.actions:
        assert state.phase is Phase.BACKOFF
    if state.phase.final:
        assert step == Step(state)
    if state.phase is Phase.STARTING and signal is Signal.EXITED:
        assert after.then is Phase.FAILED
    assert (after.then is not None) == (after.phase is Phase.STOPPING)
    assert not after.exited or after.phase is Phase.STOPPING
    assert 0 <= after.restarts_left <= state.restarts_left


@pytest.mark.parametrize("state", STATES)
def test_stop_exit_and_sweep_end_every_life(state: ChildState) -> None:
    for signal in (Signal.STOP, Signal.EXITED, Signal.SWEPT):
        state = transition(state, signal).state
    assert state.phase.final


@pytest.mark.parametrize("state", [s for s in STATES if s.phase is Phase.STOPPING])
def test_a_deadline_while_stopping_kills_and_stays(state: ChildState) -> None:
    assert transition(state, Signal.DEADLINE) == Step(state, (Action.KILL,))


def test_a_process_that_would_not_die_has_failed() -> None:
    state = transition(begin().state, Signal.STOP).state
    assert transition(state, Signal.SWEPT).state.phase is Phase.FAILED


def test_a_stop_cancels_the_restart() -> None:
    state = begin(restarts=1).state
    for signal in (Signal.PROBE_PASSED, Signal.EXITED, Signal.STOP, Signal.SWEPT):
        state = transition(state, signal).state
    assert state.phase is Phase.STOPPED


def test_a_crash_of_a_ready_child_uses_up_a_restart() -> None:
    state = begin(restarts=1).state
    for signal in (Signal.PROBE_PASSED, Signal.EXITED, Signal.SWEPT):
        state = transition(state, signal).state
    assert state == ChildState(Phase.BACKOFF, restarts_left=0)
    assert transition(state, Signal.DEADLINE).actions == (Action.SPAWN,)


@given(st.lists(st.sampled_from(Signal)), st.integers(0, 3))
def test_sweeps_and_spawns_are_paired(signals: list[Signal], restarts: int) -> None:
    """However a life goes: one sweep for each exit, and no spawn before the last one is swept."""
    state, sweeps, spawns, ends = begin(restarts).state, 0, 1, 0
    for signal in signals:
        step = transition(state, signal)
        sweeps += step.actions.count(Action.SWEEP)
        spawns += step.actions.count(Action.SPAWN)
        ends += state.phase.has_process and not step.state.phase.has_process
        state = step.state
        assert ends <= spawns <= ends + 1
        assert sweeps <= spawns
        assert spawns <= 1 + restarts
