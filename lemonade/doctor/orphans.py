"""Engines whose server is dead and that are still alive. They are named, and never ended here."""

from __future__ import annotations

from pathlib import Path

from lemonade.doctor.finding import Finding, Notebook
from lemonade.hardware import Evidence
from lemonade.supervisor import LedgerEntry, inspect_ledger


def check_orphans(ledger: Path) -> tuple[Finding, ...]:
    """Look at the ledger of children.

    Raises:
        OSError: it cannot be listed.
    """
    book = Notebook("orphans")
    entries = inspect_ledger(ledger)
    for entry in entries:
        seen = Evidence(str(entry.file), _told(entry))
        programs = [
            Evidence(f"/proc/{one.pid}", one.program or "program unknown")
            for one in entry.processes
        ]
        match entry.state:
            case "left-behind":
                pids = " ".join(str(one.pid) for one in entry.processes)
                book.warn(
                    "left-behind",
                    f"The engine of {entry.name} was left behind by a server that died (pid "
                    f"{entry.owner}) and still takes memory.",
                    seen,
                    *programs,
                    fix="`lemonade reap` ends it, and so does `lemonade serve` when it starts; "
                    f"or end it yourself: `kill {pids}`.",
                )
            case "kept":
                book.note(
                    "kept",
                    f"The engine of {entry.name} was kept by a server that has ended (pid "
                    f"{entry.owner}), for the next one to take over.",
                    seen,
                    *programs,
                    fix="`lemonade serve` takes it over; if no server is to come, "
                    "`lemonade reap --kept` ends it.",
                )
            case "elsewhere":
                book.note(
                    "not-seen",
                    f"The engine of {entry.name} belongs to a server of another user or in "
                    "another container, and cannot be looked at from here.",
                    seen,
                )
            case "newer":
                book.note(
                    "newer",
                    f"{entry.file.name} is left alone: {entry.reason}.",
                    seen,
                )
            case "unreadable":
                book.note("unreadable", f"{entry.file.name}: {entry.reason}.", seen)
            case "damaged":
                book.note(
                    "unreadable",
                    f"{entry.file.name} is no record of an engine: {entry.reason}. The next "
                    "server drops it.",
                    seen,
                )
            case "served" | "gone":
                continue
    served = [entry.name for entry in entries if entry.state == "served"]
    running = f" {', '.join(served)} run under their server." if served else ""
    book.ok_unless_trouble(f"No engine was left behind by a server that died.{running}")
    return book.findings


def _told(entry: LedgerEntry) -> str:
    return f"server {entry.owner}, port {entry.port}, {entry.program}" if entry.owner else "broken"
