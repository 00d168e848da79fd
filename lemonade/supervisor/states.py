"""The life of one supervised child as a pure function: which phase follows on which signal.

```
                 probe passed                 probe failed
   ┌──────────┐ ─────────────▶ ┌─────────┐ ─────────────▶ ┌───────────┐
──▶│ STARTING │                │  READY  │ ◀───────────── │ UNHEALTHY │
   └──────────┘                └─────────┘  probe passed  └───────────┘
     ▲      │ exit, deadline, stop  │ exit, stop            │ exit, deadline, stop
     │      └───────────────┬───────┴───────────┬───────────┘
     │                      ▼                   │
     │               ┌──────────────────────────▼───────┐  deadline: kill, stay
     │               │ STOPPING (knows where it leads)  │◀┐
     │               └──────────────────────────────────┘─┘
     │  deadline              │ swept      │ swept     │ swept
┌─────────┐                   │            │           │
│ BACKOFF │ ◀─────────────────┘            ▼           ▼
└─────────┘ ── stop ──────────────────▶ STOPPED     FAILED
```

What always holds:

1. A phase without a process is entered from one with a process by `SWEPT` only: nobody is told
   "stopped" while a grandchild still holds the memory.
2. `READY` is entered by a passed probe only.
3. A process comes into being by `SPAWN` only.
4. Final phases absorb every signal.
5. From every state, `STOP, EXITED, SWEPT` ends in a final phase.
6. A crash while starting is never retried: bad arguments and full memory do not improve by
   repetition.

Whoever feeds the signals counts and measures; this file has no clock. `PROBE_FAILED` means that
the probe has failed as often in a row as the `ProbeSpec` has patience.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from lemonade.core.records import dataclass


class Phase(StrEnum):
    """Where a child stands."""

    STARTING = "starting"  # spawned; its probe has not passed
    READY = "ready"  # its probe passes
    UNHEALTHY = "unhealthy"  # alive, but its probe has failed too often in a row
    STOPPING = "stopping"  # being ended, or what it left is
    BACKOFF = "backoff"  # no process; it will be started again
    STOPPED = "stopped"  # as asked; final
    FAILED = "failed"  # gave up; final

    @property
    def final(self) -> bool:
        """Whether nothing will happen any more."""
        return self in (Phase.STOPPED, Phase.FAILED)

    @property
    def has_process(self) -> bool:
        """Whether something of the child may be alive."""
        return self not in (Phase.BACKOFF, Phase.STOPPED, Phase.FAILED)


class Signal(StrEnum):
    """What has happened."""

    PROBE_PASSED = "probe-passed"
    PROBE_FAILED = "probe-failed"
    EXITED = "exited"  # the process we spawned has ended
    SWEPT = "swept"  # the search for what it left is over
    DEADLINE = "deadline"  # the phase's time is up
    STOP = "stop"  # somebody wants it ended


class Action(StrEnum):
    """What must be done now."""

    SPAWN = "spawn"
    TERMINATE = "terminate"  # ask the group to end
    KILL = "kill"  # do not ask any more
    SWEEP = "sweep"  # find and end what is left, then say SWEPT


@dataclass(frozen=True, slots=True)
class ChildState:
    """Everything that decides what comes next.

    Attributes:
        phase: where the child stands.
        then: where `STOPPING` leads; `None` in every other phase.
        exited: in `STOPPING`: the spawned process has ended and the sweep is under way.
        restarts_left: how many crashes after readiness are answered by another start.
    """

    phase: Phase
    then: Phase | None = None
    exited: bool = False
    restarts_left: int = 0


@dataclass(frozen=True, slots=True)
class Step:
    """The state after a signal and what has to be done to get there."""

    state: ChildState
    actions: tuple[Action, ...] = ()


@dataclass(frozen=True, slots=True)
class _Row:
    """One line of the table. `then=BACKOFF` means: if a restart is left, else `FAILED`."""

    phase: Phase
    actions: tuple[Action, ...] = ()
    then: Phase | None = None
    exited: bool = False


def _stopping(then: Phase) -> _Row:
    return _Row(Phase.STOPPING, (Action.TERMINATE,), then)


def _sweeping(then: Phase) -> _Row:
    return _Row(Phase.STOPPING, (Action.SWEEP,), then, exited=True)


_TABLE: Final[Mapping[tuple[Phase, Signal], _Row]] = MappingProxyType(
    {
        (Phase.STARTING, Signal.PROBE_PASSED): _Row(Phase.READY),
        (Phase.STARTING, Signal.EXITED): _sweeping(Phase.FAILED),
        (Phase.STARTING, Signal.DEADLINE): _stopping(Phase.FAILED),
        (Phase.STARTING, Signal.STOP): _stopping(Phase.STOPPED),
        (Phase.READY, Signal.PROBE_FAILED): _Row(Phase.UNHEALTHY),
        (Phase.READY, Signal.EXITED): _sweeping(Phase.BACKOFF),
        (Phase.READY, Signal.STOP): _stopping(Phase.STOPPED),
        (Phase.UNHEALTHY, Signal.PROBE_PASSED): _Row(Phase.READY),
        (Phase.UNHEALTHY, Signal.EXITED): _sweeping(Phase.BACKOFF),
        (Phase.UNHEALTHY, Signal.DEADLINE): _stopping(Phase.BACKOFF),
        (Phase.UNHEALTHY, Signal.STOP): _stopping(Phase.STOPPED),
        (Phase.BACKOFF, Signal.DEADLINE): _Row(Phase.STARTING, (Action.SPAWN,)),
        (Phase.BACKOFF, Signal.STOP): _Row(Phase.STOPPED),
    }
)
"""What is not here changes nothing; `STOPPING` depends on more and has its own function."""


def begin(restarts: int = 0) -> Step:
    """The first step of every child."""
    return Step(ChildState(Phase.STARTING, restarts_left=restarts), (Action.SPAWN,))


def transition(state: ChildState, signal: Signal) -> Step:
    """What follows on `signal`. Total: a signal that means nothing here leaves the state."""
    if state.phase is Phase.STOPPING:
        return _while_stopping(state, signal)
    row = _TABLE.get((state.phase, signal))
    if row is None:
        return Step(state)
    then = row.then
    if then is Phase.BACKOFF and state.restarts_left == 0:
        then = Phase.FAILED
    after = ChildState(row.phase, then, row.exited, state.restarts_left)
    return Step(after, row.actions)


def _while_stopping(state: ChildState, signal: Signal) -> Step:
    match signal:
        case Signal.EXITED if not state.exited:
            return Step(replace(state, exited=True), (Action.SWEEP,))
        case Signal.DEADLINE:
            return Step(state, (Action.KILL,))
        case Signal.STOP if state.then is Phase.BACKOFF:
            return Step(replace(state, then=Phase.STOPPED))
        case Signal.SWEPT:
            return Step(_after_sweep(state))
        case _:
            return Step(state)


def _after_sweep(state: ChildState) -> ChildState:
    if not state.exited:
        # The search was called off: the process is there in spite of SIGKILL.
        return ChildState(Phase.FAILED, restarts_left=state.restarts_left)
    if state.then is Phase.BACKOFF:
        return ChildState(Phase.BACKOFF, restarts_left=state.restarts_left - 1)
    return ChildState(state.then or Phase.FAILED, restarts_left=state.restarts_left)
