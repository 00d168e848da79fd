"""What is said about a child that did not do what it was started for.

From what was wanted and how it ended to an error with a sentence, the child's own last
lines, and what to do now.
"""

from __future__ import annotations

import logging
from typing import Final

from lemonade.core.errors import ChildError, ExitedWhileStarting, NeverReady, WouldNotDie
from lemonade.core.process import HANG, ExitReport, ProcessSpec, StartStep

log = logging.getLogger(__name__)

_QUOTED_LINES: Final = 6
_QUOTED_CHARACTERS: Final = 300
_BEGINNING: Final = StartStep()


def not_ready(
    spec: ProcessSpec,
    report: ExitReport,
    *,
    too_late: bool,
    was_ready: bool,
    stalled: bool = False,
    step: StartStep = _BEGINNING,
) -> ChildError:
    """Why `Child.ready` cannot return.

    Args:
        spec: what was started.
        report: how it ended.
        too_late: it was ended by us because its time to start was over.
        was_ready: it had been ready before it ended.
        stalled: it was ended by us because it showed no sign of work any more.
        step: where its start was last.
    """
    facts = _facts(report)
    if str(step):
        facts["phase"] = step.phase
    if stalled:
        patience = spec.probe.stall_timeout
        during = f" during '{step}'" if str(step) else ""
        return NeverReady(
            f"{spec.name}: the engine did nothing for {patience:g} s{during} (it printed, "
            f"computed and read nothing) and was ended after {report.lived:.0f} s."
            f"{_cause(report)}{_quoted(report)}",
            remedy=_fix(report)
            or "It hangs. If it was waiting for something slow, allow it more with the option "
            "stall_timeout; `lemonade logs` shows all it printed.",
            facts={**facts, "how": HANG, "stall_timeout": patience},
        )
    if too_late:
        limit = spec.probe.ready_within
        return NeverReady(
            f"{spec.name}: the engine was not ready after {limit:g} s and was ended."
            f"{_cause(report)}{_quoted(report)}",
            remedy=_fix(report)
            or "If it was still loading, allow it more time with the option ready_timeout; "
            "`lemonade logs` shows all it printed.",
            facts={**facts, "how": "too-slow", "ready_within": limit},
        )
    if report.expected and not report.given_up:
        return ExitedWhileStarting(
            f"{spec.name}: the engine was stopped before it was ready.",
            remedy="Load the model again if you want it.",
            facts=facts,
        )
    when = "" if was_ready else " while starting"
    return ExitedWhileStarting(
        f"{spec.name}: the engine {_ended(report)}{when}.{_cause(report)}{_quoted(report)}",
        remedy=_fix(report)
        or "Correct what it complains about, most often an argument, a file or too little "
        "memory; `lemonade logs` shows all it printed.",
        facts=facts,
    )


def will_not_die(spec: ProcessSpec, report: ExitReport) -> WouldNotDie:
    """Why `Child.stop` cannot say that nothing is left."""
    return WouldNotDie(
        f"{spec.name}: processes {', '.join(map(str, report.survivors))} cannot be ended.",
        remedy="They hang in the kernel, most often in a device driver, and their memory stays "
        "taken until that lets go or the machine is restarted.",
        facts={**_facts(report), "survivors": list(report.survivors)},
    )


def log_end(name: str, report: ExitReport, *, as_wanted: bool) -> None:
    """One line about a child that has ended, and what had to be ended with it."""
    words = ""
    if report.swept:
        words += f"; ended besides: {', '.join(map(str, report.swept))}"
    if report.survivors:
        words += f"; still alive: {', '.join(map(str, report.survivors))}"
    if report.still_held:
        held = ", ".join(f"{one.bytes >> 20} MiB of {one.device}" for one in report.still_held)
        words += f"; not given back by the driver: {held}"
    if report.diagnosis is not None:
        words += f": {report.diagnosis.cause}"
    level = logging.INFO if as_wanted else logging.WARNING
    if report.survivors or report.still_held:
        level = logging.ERROR
    log.log(level, "%s %s%s", name, report.sentence(), words)


def _facts(report: ExitReport) -> dict[str, object]:
    facts: dict[str, object] = {
        "exit_status": report.status,
        "signal": report.signal,
        "last_lines": list(report.last_lines),
        "how": report.how,
    }
    if report.diagnosis is not None:
        facts["cause"] = report.diagnosis.cause
    return facts


def _cause(report: ExitReport) -> str:
    return f" {report.diagnosis.cause}" if report.diagnosis is not None else ""


def _fix(report: ExitReport) -> str:
    return report.diagnosis.fix if report.diagnosis is not None else ""


def _ended(report: ExitReport) -> str:
    sentence = report.sentence()
    killed = report.signal is not None and not report.given_up
    return f"was {sentence}" if killed else sentence


def _quoted(report: ExitReport) -> str:
    lines = [line[:_QUOTED_CHARACTERS] for line in report.last_lines if line.strip()]
    if not lines:
        return " It printed nothing."
    return " Its last lines: " + "\n".join(lines[-_QUOTED_LINES:])
