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
EVERY_STATE = tuple(
    ChildState(phase, then, exited, left)
    for phase, then, exited, left in product(Phase, (None, *Phase), (False, True), (0, 1))
)
"""What the type allows, whether it can come to that or not."""

S, R, U, B = Phase.STARTING, Phase.READY, Phase.UNHEALTHY, Phase.BACKOFF
STOPPED, FAILED = Phase.STOPPED, Phase.FAILED
STOP, DEADLINE, EXITED = Signal.STOP, Signal.DEADLINE, Signal.EXITED
PASSED, LOST = Signal.PROBE_PASSED, Signal.PROBE_FAILED

MOVES = {
    (S, PASSED): (R, ()),
    (S, EXITED): (FAILED, (Action.SWEEP,)),
    (S, DEADLINE): (FAILED, (Action.TERMINATE,)),
    (S, STOP): (STOPPED, (Action.TERMINATE,)),
    (R, LOST): (U, ()),
    (R, EXITED): (B, (Action.SWEEP,)),
    (R, STOP): (STOPPED, (Action.TERMINATE,)),
    (U, PASSED): (R, ()),
    (U, EXITED): (B, (Action.SWEEP,)),
    (U, DEADLINE): (B, (Action.TERMINATE,)),
    (U, STOP): (STOPPED, (Action.TERMINATE,)),
    (B, DEADLINE): (S, (Action.SPAWN,)),
    (B, STOP): (STOPPED, ()),
}
"""The picture in words: where a signal leads in the end, and what is done. All else stays."""


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


@pytest.mark.parametrize(("state", "signal"), PAIRS)
def test_every_pair_does_what_the_picture_says(state: ChildState, signal: Signal) -> None:
    step = transition(state, signal)
    if state.phase is Phase.STOPPING:
        assert step == _while_stopping(state, signal)
        return
    if (state.phase, signal) not in MOVES:
        assert step == Step(state)
        return
    target, actions = MOVES[state.phase, signal]
    if target is B and not state.restarts_left:
        target = FAILED
    left = state.restarts_left
    if actions in ((Action.SWEEP,), (Action.TERMINATE,)):
        swept = actions == (Action.SWEEP,)
        assert step == Step(ChildState(Phase.STOPPING, target, swept, left), actions)
    else:
        assert step == Step(ChildState(target, restarts_left=left), actions)


def _while_stopping(state: ChildState, signal: Signal) -> Step:
    """The same for the one phase in which more than the phase counts."""
    then, exited, left = state.then, state.exited, state.restarts_left
    if signal is DEADLINE:
        return Step(state, (Action.KILL,))
    if signal is EXITED and not exited:
        return Step(ChildState(Phase.STOPPING, then, exited=True, restarts_left=left), _SWEEP)
    if signal is STOP and then is B:
        return Step(ChildState(Phase.STOPPING, STOPPED, exited, left))
    if signal is Signal.SWEPT:
        assert then is not None
        end = then if exited else FAILED  # it is there in spite of SIGKILL
        return Step(ChildState(end, restarts_left=left - (end is B)))
    return Step(state)


_SWEEP = (Action.SWEEP,)


@pytest.mark.parametrize("signal", Signal)
def test_there_is_an_answer_for_whatever_can_be_written_down(signal: Signal) -> None:
    for state in EVERY_STATE:
        after = transition(state, signal).state
        assert after.phase in Phase
        assert state.phase.final <= (after == state), "final phases absorb every signal"


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


@given(st.lists(st.sampled_from(Signal)), st.integers(0, 3))
def test_whoever_was_told_to_stop_is_never_started_again(
    signals: list[Signal], restarts: int
) -> None:
    state, told = begin(restarts).state, False
    for signal in signals:
        step = transition(state, signal)
        told = told or signal is STOP
        assert not (told and Action.SPAWN in step.actions)
        assert not (told and step.state.phase in (R, U, S, B)), "and is on its way out"
        state = step.state


@given(st.lists(st.sampled_from(Signal)), st.integers(0, 3))
def test_nothing_is_done_to_a_process_that_is_not_there(
    signals: list[Signal], restarts: int
) -> None:
    state = begin(restarts).state
    for signal in signals:
        step = transition(state, signal)
        if not state.phase.has_process:
            assert set(step.actions) <= {Action.SPAWN}
        if state.exited:
            assert Action.SWEEP not in step.actions, "one sweep is enough"
            assert Action.TERMINATE not in step.actions
        state = step.state


@given(st.lists(st.sampled_from(Signal), max_size=30), st.integers(0, 3))
def test_every_life_can_be_ended_by_time_alone(signals: list[Signal], restarts: int) -> None:
    """Whatever has happened: who is asked to stop, and killed when time is up, is gone."""
    state = begin(restarts).state
    for signal in (*signals, STOP):
        state = transition(state, signal).state
    killed = False
    while not state.phase.final:
        step = transition(state, DEADLINE)
        assert step.actions == (Action.KILL,)
        assert not killed, "and then it is over"
        killed = True
        for signal in (EXITED, Signal.SWEPT):
            state = transition(state, signal).state
    assert state.phase.final
