"""What the planner says of a process and the supervisor reports about it.

A `ProcessSpec` is complete: the child's environment is exactly `env`, nothing is inherited. It is
frozen and picklable, and its `repr` shows no value of the environment and no secret.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Final

from lemonade.core.logs import LevelRule
from lemonade.core.records import dataclass

REDACTED: Final = "***"

OUT_OF_MEMORY: Final = "out-of-memory"
DEVICE_FAULT: Final = "device-fault"
FOREIGN_SERVER: Final = "foreign-server"
LOST_ITS_CORE: Final = "lost-its-core"
HANG: Final = "hang"
"""How an engine ended, in a word for programs; besides `exit`, `signal` and `stopped`."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a child listens: a private port on the loopback."""

    host: str
    port: int

    @property
    def url(self) -> str:
        """`http://host:port`, without a trailing slash."""
        return f"http://{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Milestone:
    """What a start prints when it comes to a phase.

    Attributes:
        phase: one word for people: `weights`, `compile`, `warm-up`.
        pattern: a regular expression searched in each line. Its groups `percent`, or `done` and
            `total`, say how far the phase is.
    """

    phase: str
    pattern: str


@dataclass(frozen=True, slots=True)
class StartStep:
    """Where a start is.

    Attributes:
        phase: the milestone passed last; empty before the first.
        percent: how far that is; `None` if nobody says.
    """

    phase: str = ""
    percent: int | None = None

    def __str__(self) -> str:
        return self.phase if self.percent is None else f"{self.phase} {self.percent} %"


@dataclass(frozen=True, slots=True)
class KnownProblem:
    """What is wrong when a child prints something, and what helps.

    Attributes:
        pattern: a regular expression searched in its last lines; empty if they do not tell.
        signal: name of the signal that ended it (`SIGILL`); empty if that does not tell.
        kernel: a regular expression searched in what the kernel said while it lived; empty if
            that does not tell.
        cause: a sentence; named groups of the pattern stand in braces.
        fix: a sentence; likewise.
        severe: trying again at once may do harm: a device has faulted.
        name: a word for programs.
    """

    pattern: str
    cause: str
    fix: str
    signal: str = ""
    severe: bool = False
    kernel: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """A known problem, recognised. `name` is a word for programs, or empty."""

    cause: str
    fix: str
    severe: bool = False
    name: str = ""


class SaysItIsDeadError(Exception):
    """Raised by a probe: the child answers, and says that what computes in it has ended."""


@dataclass(frozen=True, slots=True)
class ProbeSpec:
    """How readiness is asked for. Times are seconds.

    Attributes:
        path: HTTP path that answers 200 when the child may be used.
        interval: pause between two probes while starting.
        timeout: limit of one probe.
        ready_within: limit of the whole start, however hard it works.
        stall_timeout: how long a start may show no sign of work; 0 leaves it to `ready_within`.
        milestones: how its output tells where it is; the first that fits a line counts.
        patience: how many failed probes in a row make a ready child unhealthy.
        dead_status: HTTP status by which a child that was ready says that what computes in it has
            ended; 0 if it says nothing.
    """

    path: str
    interval: float = 0.05
    timeout: float = 2.0
    ready_within: float = 3600.0
    stall_timeout: float = 120.0
    milestones: tuple[Milestone, ...] = ()
    patience: int = 3
    dead_status: int = 0


@dataclass(frozen=True, slots=True)
class StopPolicy:
    """How a child is ended. Times are seconds.

    Attributes:
        grace: between SIGTERM and SIGKILL to the group.
        kill_within: how long after SIGKILL a process may stay before `WouldNotDie`.
        on_parent_death: signal the kernel sends the child when its parent's thread ends.
    """

    grace: float = 5.0
    kill_within: float = 5.0
    on_parent_death: int = signal.SIGKILL


@dataclass(frozen=True, slots=True)
class Limits:
    """What a child may take of the machine. Nothing is limited unless it is said.

    Attributes:
        open_files: files and connections; `None` leaves what the server has.
        nice: added to the server's own niceness.
        cpus: the CPUs it may run on; empty is all.
        memory_bytes: main memory that each of its processes may take for itself.
    """

    open_files: int | None = None
    nice: int = 0
    cpus: tuple[int, ...] = ()
    memory_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """Everything needed to start, probe and end one child.

    Attributes:
        name: the model it serves; for logs and people.
        argv: program first; an absolute path.
        env: the child's whole environment.
        executable_root: directory under which the program lies (its bundle).
        endpoint: where it will listen.
        labels: words for the ledger and for logs (`backend`, `version`, `recipe`).
        secrets: values that must not be shown wherever they occur in argv or env.
        log_file: where the output goes besides the ring; `None` keeps it in memory only.
        known_problems: what its output may tell of a failure; the first that fits counts.
        limits: what it may take of the machine.
        levels: how a line tells how grave it is; the first that fits counts.
        quiet: whether its end is no news for the log, whoever wanted it: it is no engine.
    """

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(repr=False)
    executable_root: Path
    endpoint: Endpoint
    probe: ProbeSpec
    stop: StopPolicy = StopPolicy()
    cwd: Path | None = None
    log_file: Path | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = field(default=(), repr=False)
    known_problems: tuple[KnownProblem, ...] = ()
    levels: tuple[LevelRule, ...] = ()
    limits: Limits = Limits()
    quiet: bool = False

    def shown_argv(self) -> tuple[str, ...]:
        """The command line for people: secrets are replaced by `***`."""
        shown = []
        for word in self.argv:
            for secret in self.secrets:
                word = word.replace(secret, REDACTED)  # noqa: PLW2901
            shown.append(word)
        return tuple(shown)


@dataclass(frozen=True, slots=True)
class DeviceHold:
    """Memory of a device that a process holds.

    Attributes:
        device: where it is: a PCI address, or what the driver calls the device.
        program: what the process runs, or ran; empty if nobody knows.
        start_ticks: with the pid its identity, if it is known to be alive; else 0.
    """

    pid: int
    device: str
    bytes: int
    program: str = ""
    start_ticks: int = 0


@dataclass(frozen=True, slots=True)
class ExitReport:
    """How a child ended.

    Attributes:
        status: exit status, or `None` if a signal ended it, it never ran, or that is not known.
        signal: number of the signal that ended it, or `None`.
        lived: seconds from spawn to exit.
        expected: whether we had asked it to stop.
        last_lines: the end of its output, oldest first.
        swept: pids of further processes that had to be ended.
        survivors: pids that are still alive in spite of SIGKILL.
        diagnosis: what was wrong, if that is a known problem.
        kernel: what the kernel said about it meanwhile, where that may be read.
        kernel_unread: why the kernel's log could not be read; empty if it was, or not wanted.
        given_up: why it was killed though it lived and nobody had asked it to stop; else empty.
        given_up_for: the same in a word.
        resident_bytes: main memory it held with all its descendants when that was last seen, at
            most a second before its end; without pages of files, which may stay in memory.
        left_bytes: of that, what did not come back with the processes: files they left in memory.
        device_bytes: memory of devices they held then, as far as drivers tell.
        still_held: of that, what drivers had not taken back when all that can be killed was dead
            for seconds.
        survivor_programs: what survivors run, in the same order; empty where nobody knows.
    """

    status: int | None
    signal: int | None
    lived: float
    expected: bool
    last_lines: tuple[str, ...] = ()
    swept: tuple[int, ...] = ()
    survivors: tuple[int, ...] = ()
    diagnosis: Diagnosis | None = None
    kernel: tuple[str, ...] = ()
    kernel_unread: str = ""
    given_up: str = ""
    given_up_for: str = ""
    resident_bytes: int = 0
    left_bytes: int = 0
    device_bytes: int = 0
    still_held: tuple[DeviceHold, ...] = ()
    survivor_programs: tuple[str, ...] = ()

    @property
    def how(self) -> str:
        """How it ended, in a word for programs."""
        known = self.diagnosis
        if known is not None and known.name == OUT_OF_MEMORY:
            return known.name
        if self.given_up_for:
            return self.given_up_for
        if known is not None and (known.name or known.severe):
            return known.name or DEVICE_FAULT
        if self.expected:
            return "stopped"
        return "signal" if self.signal is not None else "exit"

    def sentence(self) -> str:
        """One sentence: `exited with status 1 after 0.2 s`."""
        if self.given_up:
            return f"was killed after {self.lived:.1f} s: {self.given_up}"
        if self.signal is not None:
            try:
                name = signal.Signals(self.signal).name
            except ValueError:
                name = f"signal {self.signal}"
            return f"ended by {name} after {self.lived:.1f} s"
        if self.status is None:
            unknown = "nobody can say how: it was not our own process"
            return f"ended after {self.lived:.1f} s, {unknown}" if self.lived else "never ran"
        return f"exited with status {self.status} after {self.lived:.1f} s"
