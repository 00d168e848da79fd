"""The reaper for people: the command line may not know the supervisor, and needs no server for it.

What may be ended is decided by the ledger and the identity of processes alone, as when a server
starts; see `lemonade.supervisor`.
"""

from __future__ import annotations

import asyncio
from typing import Final

from lemonade.storage import Directories
from lemonade.supervisor import Account, foretell, reap_ledger

__all__ = ["Account", "end_orphans", "would_end"]

_GRACE: Final = 2.0
"""Seconds between SIGTERM and SIGKILL: nobody uses any more what is left."""


def would_end(directories: Directories) -> tuple[Account, ...]:
    """What `end_orphans` would do now. Blocks; changes nothing.

    Raises:
        OSError: the ledger cannot be listed, or we may open nothing to look at.
    """
    return foretell(directories.state / "children")


def end_orphans(directories: Directories) -> tuple[Account, ...]:
    """End what dead servers left behind, and say what became of each record. Blocks.

    Raises:
        OSError: for seconds on end nothing could be looked at.
    """
    return asyncio.run(reap_ledger(directories.state / "children", grace=_GRACE))
