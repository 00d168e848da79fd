"""Whether an engine can have a cgroup of its own, which nothing it starts can leave."""

from __future__ import annotations

from pathlib import Path

from lemonade.doctor.finding import Finding, Notebook
from lemonade.hardware import Evidence
from lemonade.supervisor import find_delegation


def check_cgroups(root: Path) -> tuple[Finding, ...]:
    """Look at the cgroup we are in; a server that is started otherwise may be in another."""
    book = Notebook("cgroups")
    found = find_delegation(root / "proc", trial=False)
    if found.base is not None:
        book.ok(
            f"A server that is started from here gives each engine a cgroup, in {found.base}.",
            Evidence(str(found.base), "may be written"),
        )
        return book.findings
    book.note(
        "no-cgroups",
        f"A server that is started from here gives engines no cgroups of their own: "
        f"{found.reason}. Engines are ended all the same; one that hides well may be missed.",
        Evidence("/proc/self/cgroup", found.reason),
        fix="For a service, `Delegate=yes` in its unit; else start it with "
        "`systemd-run --user --scope -p Delegate=yes lemonade serve`.",
    )
    return book.findings
