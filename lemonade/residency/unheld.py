"""Versions that engines run from while nobody holds them for these engines.

A server holds the version of each of its engines. One that was kept has no server until the next
one has taken it over; until then the ledger alone knows which version it runs.
"""

from __future__ import annotations

import os
from pathlib import Path

from lemonade.supervisor import marked_children


def kept_versions(ledger: Path) -> dict[str, str]:
    """Who runs from a version, in words, by its folder without links. Blocks.

    Raises:
        OSError: the ledger cannot be looked at.
    """
    found: dict[str, str] = {}
    for child in marked_children(ledger):
        lock = child.facts.get("lock")
        if not isinstance(lock, str) or not lock:
            continue
        folder = os.path.realpath(Path(lock).parent)
        who = f"{child.name} (pid {', '.join(map(str, child.pids))}), kept for the next server"
        found[folder] = f"{found[folder]}; {who}" if folder in found else who
    return found
