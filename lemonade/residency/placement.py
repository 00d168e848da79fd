"""Where a `ProcessSpec` becomes something that answers: the contract between pool and machines.

A placement on this machine goes through the supervisor; one on a cluster hosts the same
supervisor elsewhere. Residency knows neither.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from lemonade.core.inference import JsonObject
from lemonade.core.logs import LogRecord
from lemonade.core.process import DeviceHold, Endpoint, ExitReport, ProcessSpec, StartStep
from lemonade.upstream import Upstream


class Instance(Protocol):
    """One running engine. Made by a placement; ended by whoever asked for it."""

    @property
    def spec(self) -> ProcessSpec:
        """What it was started from."""
        ...

    @property
    def upstream(self) -> Upstream:
        """Its connections."""
        ...

    @property
    def pid(self) -> int | None:
        """Process id on its machine, while it lives."""
        ...

    @property
    def healthy(self) -> bool:
        """Whether its last probe passed."""
        ...

    @property
    def ending(self) -> bool:
        """Whether it has ended, or is being ended: no new request can be answered."""
        ...

    async def cpu_seconds(self) -> float:
        """How long it has computed, with all it has started.

        Raises:
            OSError: that cannot be seen.
        """
        ...

    async def device_memory(self) -> tuple[DeviceHold, ...]:
        """What it and all it has started hold of devices now, as far as drivers tell."""
        ...

    def heed_steps(self, listen: Callable[[StartStep], None]) -> None:
        """Tell one listener where the start was and is, and whenever that changes."""
        ...

    async def ready(self) -> None:
        """Return when it may be used.

        Raises:
            ExitedWhileStarting: it ended first; the facts quote its last lines.
            NeverReady: it lives, but the time is up.
        """
        ...

    async def stands_still(self, patience: float) -> None:
        """Return when it has shown no sign of work for so many seconds."""
        ...

    def give_up(self, why: str, word: str) -> None:
        """Kill it because it is of no use any more, though it lives."""
        ...

    async def ended(self) -> ExitReport:
        """Return when nothing of it is left, however it ended."""
        ...

    async def stop(self, *, now: bool = False) -> ExitReport:
        """Close its connections, end it, and return when nothing of it is left. Idempotent."""
        ...

    async def keep(self, facts: JsonObject | None) -> None:
        """What the next server has to know to use it; `None` if it is to be ended with us."""
        ...

    async def stay(self, why: str, *, hand_over: bool) -> bool:
        """Close its connections and have it go on when the server ends; whether it can.

        Args:
            why: what those are told who still wait for an answer.
            hand_over: whether this process goes on as another program.
        """
        ...

    def tail(self, lines: int) -> tuple[str, ...]:
        """The last lines of its output, oldest first."""
        ...

    def records(self) -> tuple[LogRecord, ...]:
        """What is kept of its output, oldest first."""
        ...


class PortLease(Protocol):
    """A private port nobody else of ours will take."""

    @property
    def endpoint(self) -> Endpoint:
        """Where the engine is to listen."""
        ...

    def release(self) -> None:
        """Give it back. Idempotent."""
        ...


class Placement(Protocol):
    """Starts engines somewhere."""

    def lease_endpoint(self) -> PortLease:
        """Reserve a place to listen; the caller releases it when the engine is gone."""
        ...

    async def start(self, spec: ProcessSpec, *, api_key: str) -> Instance:
        """Start it; it is not ready yet.

        Raises:
            SpawnFailed: the program could not be started.
        """
        ...
