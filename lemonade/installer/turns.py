"""Taking turns with other processes: a lock that is waited for, and said to be waited for."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from lemonade.core.progress import Progress, ProgressListener
from lemonade.installer.activation import LOCK
from lemonade.storage import FileLock

_INTERVAL: Final = 0.1
"""Seconds between two looks at a lock that somebody else holds."""


@contextlib.asynccontextmanager
async def locked(folder: Path, listen: ProgressListener) -> AsyncIterator[None]:
    """Be the only one who changes what is in the folder, of all processes and tasks."""
    lock = FileLock(folder / LOCK)
    waited = False
    while not lock.acquire():
        if not waited:
            listen(Progress("wait for another installation"))
        waited = True
        await asyncio.sleep(_INTERVAL)
    try:
        yield
    finally:
        lock.release()
