"""Tasks of groups that live as long as the server: a bug in one must not end the others."""

from __future__ import annotations

import logging
from collections.abc import Awaitable

log = logging.getLogger(__name__)


async def outliving(work: Awaitable[None], what: str) -> None:
    """Await it. What it fails with is logged, and the group outlives it; a cancellation passes."""
    try:
        await work
    except Exception:
        log.exception("%s: failed unexpectedly", what)
