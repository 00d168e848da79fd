"""How tests read findings."""

from __future__ import annotations

from collections.abc import Iterable

from lemonade.doctor import Finding, Level


def rules(findings: Iterable[Finding]) -> list[tuple[str, str]]:
    """Level and rule of everything that is not simply in order; each of them complete."""
    found = []
    for finding in findings:
        assert finding.reason.rstrip().endswith("."), finding
        if finding.level in (Level.WARNING, Level.ERROR):
            assert finding.fix.endswith("."), f"{finding.rule} has no fix"
            assert finding.evidence, f"{finding.rule} has no evidence"
        if finding.level is not Level.OK:
            found.append((str(finding.level), finding.rule))
    return found


def one(findings: Iterable[Finding], rule: str) -> Finding:
    """The one finding of that rule."""
    (found,) = [finding for finding in findings if finding.rule == rule]
    return found
