"""What a check says: findings, each with its level, what was read, and what to do about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

from lemonade.core.records import dataclass
from lemonade.hardware import Evidence

SCHEMA: Final = 1
"""Of the document that `Report.as_json` makes."""


class Level(StrEnum):
    """How grave a finding is.

    `ok`: as it should be. `note`: good to know, nothing to do. `warning`: something that could
    work here does not, or soon will not. `error`: the server, or an engine that is installed,
    does not work until it is put right.
    """

    OK = "ok"
    NOTE = "note"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Finding:
    """One sentence about this machine.

    Attributes:
        check: who says so, as `examination.CHECKS` names it.
        rule: what was found, for programs: kebab-case, and stable.
        reason: the same for people, as a sentence.
        evidence: what was read, and where.
        fix: what to do about it, as a sentence; empty if nothing has to be done.
    """

    check: str
    level: Level
    rule: str
    reason: str
    evidence: tuple[Evidence, ...] = ()
    fix: str = ""

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "check": self.check,
            "level": str(self.level),
            "rule": self.rule,
            "reason": self.reason,
            "evidence": [{"path": e.path, "value": e.value} for e in self.evidence],
            "fix": self.fix,
        }


class Notebook:
    """Where one check writes its findings; made for it, and read when it is done."""

    def __init__(self, check: str) -> None:
        self._check = check
        self._findings: list[Finding] = []

    @property
    def findings(self) -> tuple[Finding, ...]:
        """In the order they were written."""
        return tuple(self._findings)

    def ok(self, reason: str, *evidence: Evidence) -> None:
        """As it should be."""
        self._findings.append(Finding(self._check, Level.OK, "ok", reason, evidence))

    def note(self, rule: str, reason: str, *evidence: Evidence, fix: str = "") -> None:
        """Good to know."""
        self._findings.append(Finding(self._check, Level.NOTE, rule, reason, evidence, fix))

    def warn(self, rule: str, reason: str, *evidence: Evidence, fix: str) -> None:
        """Something that could work does not."""
        self._findings.append(Finding(self._check, Level.WARNING, rule, reason, evidence, fix))

    def error(self, rule: str, reason: str, *evidence: Evidence, fix: str) -> None:
        """The server or an installed engine does not work."""
        self._findings.append(Finding(self._check, Level.ERROR, rule, reason, evidence, fix))

    def ok_unless_trouble(self, reason: str) -> None:
        """As it should be, if nothing graver than a note has been written."""
        if all(f.level in (Level.OK, Level.NOTE) for f in self._findings):
            self.ok(reason)


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that was found at one time.

    Attributes:
        version: of Lemonade.
        time: ISO 8601, UTC.
    """

    version: str
    time: str
    findings: tuple[Finding, ...]

    @property
    def failed(self) -> bool:
        """Whether there is an error among them."""
        return any(finding.level is Level.ERROR for finding in self.findings)

    def count(self, level: Level) -> int:
        """How many findings are of that level."""
        return Counter(finding.level for finding in self.findings)[level]

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "schema": SCHEMA,
            "lemonade": self.version,
            "time": self.time,
            "summary": {str(level): self.count(level) for level in Level},
            "findings": [finding.as_json() for finding in self.findings],
        }


def report_of(version: str, findings: Sequence[Finding]) -> Report:
    """The findings, dated now."""
    return Report(version, datetime.now(UTC).isoformat(timespec="seconds"), tuple(findings))
