"""What is done about an engine that failed: it is recorded, counted, and perhaps not tried again.

The pool tells of every failure. What is the caller's fault, a wrong option or a load that was
called off, is none.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final, Protocol

from lemonade.catalog import BackendSpec
from lemonade.core.bus import Bus
from lemonade.core.errors import (
    ChildError,
    ExitedWhileStarting,
    KeepsFailing,
    LemonadeError,
    NeverReady,
)
from lemonade.core.events import CircuitOpened, CircuitReset, IncidentRecorded
from lemonade.core.inference import JsonObject
from lemonade.core.process import FOREIGN_SERVER, HANG, ExitReport
from lemonade.residency.circuit import Circuits, Failing
from lemonade.residency.incidents import Incident, Kind, describe_failure
from lemonade.residency.quarantine import Quarantine
from lemonade.residency.resident import Resident

_TOLD_LINES: Final = 6
_TOLD_CHARACTERS: Final = 300


class Records(Protocol):
    """Keeps incidents."""

    def add(self, facts: JsonObject) -> Incident:
        """Keep one; it has an id from now on."""
        ...


class Failures:
    """Incidents and circuits, joined. Made by the composition root and used by the pool."""

    def __init__(
        self,
        records: Records,
        circuits: Circuits,
        bus: Bus,
        quarantine: Quarantine | None = None,
    ) -> None:
        self._records = records
        self._circuits = circuits
        self._bus = bus
        self._quarantine = quarantine

    def check(
        self, backend: BackendSpec, key: str, name: str, fingerprint: Callable[[], str]
    ) -> None:
        """Refuse to start what keeps failing, or what a device has no memory for.

        Raises:
            KeepsFailing: with the cause, the last lines and when to come back.
            DeviceQuarantined: with what holds the memory.
        """
        if self._quarantine is not None:
            self._quarantine.check(backend, name)
        if self._circuits.knows(key):
            failing = self._circuits.open(fingerprint())
            if failing is not None:
                raise _refusal(name, failing)

    def wait(self, fingerprint: str) -> float:
        """Seconds until the next attempt should be made by itself."""
        return self._circuits.wait(fingerprint)

    def reset(self, key: str) -> None:
        """Somebody insists: forget what failed, and use every device."""
        for model in self._circuits.reset(key):
            self._bus.publish(CircuitReset(model))
        if self._quarantine is not None:
            self._quarantine.lift()

    def failing(self) -> tuple[Failing, ...]:
        """All models whose failures still count."""
        return self._circuits.failing()

    def start_failed(
        self, resident: Resident, step: str, error: LemonadeError, report: ExitReport | None
    ) -> None:
        """A load came to nothing; the error gets the incident's id."""
        self._mind_devices(resident, report)
        if not isinstance(error, ChildError):
            return
        stalled = isinstance(error, NeverReady) and "stall_timeout" in error.facts
        kind = Kind.STALLED if stalled else Kind.START_FAILED
        counts = isinstance(error, ExitedWhileStarting | NeverReady)
        if report is not None:
            resident.failed_by = str(error.facts.get("how") or report.how)
        # Another one gets another port: nothing is wrong with the engine.
        counts = counts and resident.failed_by != FOREIGN_SERVER
        self._note(resident, kind, step, report, error.message, counts=counts)
        error.facts["incident"] = resident.incident

    def ended(self, resident: Resident, report: ExitReport, *, expected: bool) -> None:
        """An engine that served has ended."""
        self._mind_devices(resident, report)
        if not expected:
            hangs = bool(resident.hung) or report.how == HANG
            said = f"Its engine {resident.hung or report.sentence()}."
            kind = Kind.HUNG if hangs else Kind.CRASHED
            resident.failed_by = HANG if hangs else report.how
            known = report.diagnosis
            resident.failure = f"{said} {known.cause}" if known is not None else said
            self._note(resident, kind, "serving", report, said, counts=True)
        elif report.survivors:
            said = f"Processes {', '.join(map(str, report.survivors))} cannot be ended."
            self._note(resident, Kind.WOULD_NOT_DIE, "stopping", report, said, counts=False)

    def _mind_devices(self, resident: Resident, report: ExitReport | None) -> None:
        if self._quarantine is not None and report is not None:
            self._quarantine.left_behind(resident.served_name, report)

    def _note(
        self,
        resident: Resident,
        kind: Kind,
        phase: str,
        report: ExitReport | None,
        message: str,
        *,
        counts: bool,
    ) -> None:
        facts = describe_failure(resident, kind, phase=phase, report=report, message=message)
        incident = self._records.add(facts)
        resident.incident = incident.id
        self._bus.publish(
            IncidentRecorded(incident.id, resident.served_name, kind, incident.cause)
        )
        diagnosis = report.diagnosis if report is not None else None
        if counts and resident.fingerprint:
            lines = report.last_lines if report is not None else ()
            self._circuits.failed(
                resident.fingerprint,
                key=resident.key,
                model=resident.served_name,
                incident=incident.id,
                cause=incident.cause or message.partition(" Its last lines:")[0],
                lines=tuple(line[:_TOLD_CHARACTERS] for line in lines if line.strip()),
                severe=diagnosis is not None and diagnosis.severe,
            )
            opened = self._circuits.open(resident.fingerprint)
            if opened is not None:
                self._bus.publish(
                    CircuitOpened(
                        opened.model, opened.failures, opened.retry_after, opened.incident
                    )
                )


def _refusal(name: str, failing: Failing) -> KeepsFailing:
    seconds = math.ceil(failing.retry_after)
    last = failing.lines[-_TOLD_LINES:]
    quoted = " Its last lines: " + "\n".join(last) if last else ""
    times = "once" if failing.failures == 1 else f"{failing.failures} times"
    return KeepsFailing(
        f"{name} is not started: its engine has failed {times} and is given a rest for "
        f"{seconds} s. {failing.cause}{quoted}",
        remedy=f"`lemonade incidents {failing.incident}` tells more; "
        f"`lemonade load {name} --force` tries at once.",
        facts={
            "model": name,
            "failures": failing.failures,
            "retry_after": seconds,
            "cause": failing.cause,
            "last_lines": list(failing.lines),
            "incident": failing.incident,
        },
    )
