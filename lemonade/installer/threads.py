"""Blocking work that its caller waits for, also when it is cancelled meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any, Final, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_REPORT_EVERY: Final = 0.1


class StoppedError(Exception):
    """Nobody waits any more."""


async def finished(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run it in a thread. Who is cancelled waits for its end all the same.

    A thread cannot be stopped: a bundle must not be discarded while it is being activated, nor a
    file be closed while it is being written.
    """
    loop = asyncio.get_running_loop()
    work = loop.run_in_executor(None, lambda: function(*args, **kwargs))
    try:
        return await asyncio.shield(work)
    finally:
        await outlast(work)


async def committed(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """The same for the last step of a deed: who is cancelled meanwhile is cancelled too late."""
    loop = asyncio.get_running_loop()
    work = loop.run_in_executor(None, lambda: function(*args, **kwargs))
    await outlast(work)
    return work.result()


async def outlast(work: asyncio.Future[Any]) -> None:
    """Wait until it has ended, whoever cancels us meanwhile, and however often."""
    while not work.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait({work})
    if not work.cancelled():
        work.exception()  # who was cancelled does not look at it


async def stoppable(
    work: Callable[[Callable[[int, int], None]], T], show: Callable[[int, int], None]
) -> T:
    """Run work in a thread that reports how far it is; who is cancelled ends it at its next word.

    `show` is called on the event loop, not too often: with what is done, of how much.
    """
    stop = threading.Event()
    loop = asyncio.get_running_loop()
    told = 0.0

    def report(done: int, size: int) -> None:
        nonlocal told
        if stop.is_set():
            raise StoppedError
        if done == size or time.monotonic() - told >= _REPORT_EVERY:
            told = time.monotonic()
            loop.call_soon_threadsafe(show, done, size)

    future = loop.run_in_executor(None, lambda: work(report))
    try:
        return await asyncio.shield(future)
    finally:
        stop.set()
        await outlast(future)
