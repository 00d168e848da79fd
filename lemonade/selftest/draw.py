"""What happens in a round: one fault at one moment, drawn from the round's seed and nothing else.

The same seed draws the same round, on every machine and in every run. Round `n` of a run has the
seed of the run plus `n`, so that a single round can be done again.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Final

from lemonade.core.records import dataclass


class EngineKind(StrEnum):
    """Who suffers."""

    FAKE = "fake"
    EMBEDDED = "embedded"


class Moment(StrEnum):
    """When it happens."""

    LOAD = "load"
    IDLE = "idle"
    STREAM = "stream"
    UNLOAD = "unload"


class Fault(StrEnum):
    """What happens."""

    KILL = "kill"  # SIGKILL to the engine
    SEGFAULT = "segfault"  # SIGSEGV to it
    FREEZE = "freeze"  # SIGSTOP, and SIGCONT a moment later
    HANG = "hang"  # SIGSTOP for good, while somebody waits for an answer
    PORT_THEFT = "port-theft"  # another program listens on the engine's port
    DISK_FULL = "disk-full"  # no file of the server can grow (RLIMIT_FSIZE)
    LOG_FLOOD = "log-flood"  # thousands of lines, one of megabytes, and bytes that are no text
    ROUTER_KILL = "router-kill"  # SIGKILL to the server
    ROUTER_TERM = "router-term"  # SIGTERM to it
    IGNORES_TERM = "ignores-term"  # engine and its child ignore SIGTERM
    DOUBLE_FORK = "double-fork"  # its child is re-parented
    OTHER_SESSION = "other-session"  # its child left the session and closed its output
    WORKER_KILL = "worker-kill"  # SIGKILL to a process beside the server that relays
    WORKER_FREEZE = "worker-freeze"  # SIGSTOP to it for good


class Ending(StrEnum):
    """What befalls an engine with bad habits, whose fault is no event."""

    KILL = "kill"
    UNLOAD = "unload"
    ROUTER_KILL = "router-kill"
    ROUTER_TERM = "router-term"


HABITS: Final[Mapping[Fault, tuple[str, ...]]] = {
    Fault.IGNORES_TERM: ("--ignore-term", "--spawn-engine", "--engine-ignores-term"),
    Fault.DOUBLE_FORK: ("--spawn-engine", "--double-fork"),
    Fault.OTHER_SESSION: (
        "--spawn-engine", "--engine-escapes", "--engine-ignores-term", "--engine-is-silent",
        "--engine-has-worker",
    ),
}  # fmt: skip
"""Switches of the fake engine that make these faults."""

_OF_WORKERS: Final = frozenset({Fault.WORKER_KILL, Fault.WORKER_FREEZE})
_FOR_FAKES: Final = frozenset({*HABITS, Fault.LOG_FLOOD})
_HABIT_SHARE: Final = 0.25
_EMBEDDED_SHARE: Final = 0.2
_LONGEST_DELAY: Final = 0.3
_LEAST_FREEZE: Final = 0.05
_LONGEST_FREEZE: Final = 0.4


@dataclass(frozen=True, slots=True)
class Draw:
    """One round, before it happens.

    Attributes:
        seed: draws it again.
        delay: seconds from the beginning of the moment to the fault.
        frozen: seconds that a freeze lasts.
        habits: further bad habits of the fake engine, as switches.
        ending: what ends an engine whose fault is a habit.
    """

    seed: int
    engine: EngineKind
    fault: Fault
    moment: Moment
    delay: float
    frozen: float
    habits: tuple[str, ...]
    ending: Ending

    @property
    def switches(self) -> tuple[str, ...]:
        """All bad habits, each switch once."""
        return tuple(dict.fromkeys((*HABITS.get(self.fault, ()), *self.habits)))

    @property
    def ends_router(self) -> bool:
        """Whether the server does not outlive the round."""
        if self.fault in HABITS:
            return self.ending in (Ending.ROUTER_KILL, Ending.ROUTER_TERM)
        return self.fault in (Fault.ROUTER_KILL, Fault.ROUTER_TERM)

    @property
    def strikes_worker(self) -> bool:
        """Whether a process beside the server suffers."""
        return self.fault in _OF_WORKERS

    def __str__(self) -> str:
        how = f" ({self.ending})" if self.fault in HABITS else ""
        return f"{self.engine}: {self.fault}{how} at {self.moment}"


def draw_round(seed: int, engines: Sequence[EngineKind], *, workers: bool = False) -> Draw:
    """The round of a seed.

    Args:
        seed: of this round.
        engines: those to choose from; of two the fake one is taken four times out of five.
        workers: whether there are processes beside the server, which may suffer too. A seed draws
            other faults with them than without.
    """
    chance = random.Random(seed)  # noqa: S311 - it has to be the same each time
    # Everything is drawn, needed or not, so that one choice does not change the next ones.
    embedded, fault, moment, delay, frozen, habit = (chance.random() for _ in range(6))
    wanted, ending = chance.random(), chance.choice(tuple(Ending))
    engine = engines[0]
    if len(engines) > 1:
        engine = EngineKind.EMBEDDED if embedded < _EMBEDDED_SHARE else EngineKind.FAKE
    fake = engine is EngineKind.FAKE
    spared = (frozenset() if fake else _FOR_FAKES) | (frozenset() if workers else _OF_WORKERS)
    faults = [one for one in Fault if one not in spared]
    moments = tuple(Moment)
    habits = tuple(HABITS.values())[int(habit * len(HABITS))]
    return Draw(
        seed=seed,
        engine=engine,
        fault=faults[int(fault * len(faults))],
        moment=moments[int(moment * len(moments))],
        delay=round(delay * _LONGEST_DELAY, 3),
        frozen=round(_LEAST_FREEZE + frozen * (_LONGEST_FREEZE - _LEAST_FREEZE), 3),
        habits=habits if fake and wanted < _HABIT_SHARE else (),
        ending=ending,
    )
