"""The supervisor's own threads, for what would hold up the event loop.

One for the disk and one for /proc, each taking one call at a time in the order they were asked.
They are not the loop's shared pool: a stop must not wait behind a download, a hanging disk must
not keep a process alive, and the ledger must be written in order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Beside:
    """Two threads. Made and closed by the supervisor."""

    def __init__(self) -> None:
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="supervisor-disk")
        self._proc = ThreadPoolExecutor(1, thread_name_prefix="supervisor-proc")

    async def disk(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run what reads and writes files. A cancelled wait leaves the call to finish."""
        return await _ask(self._disk, lambda: call(*args, **kwargs))

    async def proc(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run what looks at processes; all that is known of families is changed here alone."""
        return await _ask(self._proc, lambda: call(*args, **kwargs))

    def close(self) -> None:
        """Let the threads end when they are through."""
        self._disk.shutdown(wait=False)
        self._proc.shutdown(wait=False)


async def _ask(pool: ThreadPoolExecutor, call: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(pool, call)
