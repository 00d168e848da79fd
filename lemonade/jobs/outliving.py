"""Tasks of groups that live as long as the server: a bug in one must not end the others."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

log = logging.getLogger(__name__)


async def outliving(work: Callable[[], Awaitable[None]], what: str) -> None:
    """Do it. What it fails with is logged, and the group outlives it; a cancellation passes.

    It is a function, so that nothing is left behind by a task that was cancelled before it began.
    """
    try:
        await work()
    except Exception:
        log.exception("%s: failed unexpectedly", what)
