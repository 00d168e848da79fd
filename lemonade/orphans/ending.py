"""The reaper for people: the command line may not know the supervisor, and needs no server for it.

What may be ended is decided by the ledger and the identity of processes alone, as when a server
starts; see `lemonade.supervisor`.
"""

from __future__ import annotations

import asyncio
from typing import Final

from lemonade.storage import Directories
from lemonade.supervisor import Account, Spared, foretell, reap_ledger

__all__ = ["Account", "end_orphans", "would_end"]

_GRACE: Final = 2.0
"""Seconds between SIGTERM and SIGKILL: nobody uses any more what is left."""


def would_end(directories: Directories, *, kept: bool = False) -> tuple[Account, ...]:
    """What `end_orphans` would do now. Blocks; changes nothing.

    Args:
        directories: whose servers are meant.
        kept: whether also what waits for the next server would be ended.

    Raises:
        OSError: the ledger cannot be listed, or we may open nothing to look at.
    """
    return foretell(directories.state / "children", spare="nobody" if kept else "kept")


def end_orphans(directories: Directories, *, kept: bool = False) -> tuple[Account, ...]:
    """End what dead servers left behind, and say what became of each record. Blocks.

    Args:
        directories: whose servers are meant.
        kept: end also what waits for the next server; else that is left alone.

    Raises:
        OSError: for seconds on end nothing could be looked at.
    """
    spare: Spared = "nobody" if kept else "kept"
    return asyncio.run(reap_ledger(directories.state / "children", grace=_GRACE, spare=spare))
