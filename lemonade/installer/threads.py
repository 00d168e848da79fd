"""Blocking work that its caller waits for, also when it is cancelled meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


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
