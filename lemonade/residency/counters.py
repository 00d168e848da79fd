"""What an engine says of itself in its own metrics: read, kept for the record, and compared.

An engine whose counters of decoded batches or tokens rise makes something, whatever else is or is
not heard of it.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Sequence
from typing import Final

from lemonade.core.errors import LemonadeError
from lemonade.residency.resident import Resident
from lemonade.upstream import UpstreamRequest

SCRAPE_SECONDS: Final = 1.0
"""How long an engine may take to say its metrics."""

SCRAPE_LIMIT: Final = 1 << 20
"""How much it may say. Half a page would be wrong, so what is longer is left out."""

_SAMPLE: Final = re.compile(
    rb"^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{[^\n]*\})?[ \t]+([0-9.eE+-]+)", re.MULTILINE
)


async def scrape(resident: Resident) -> bytes | None:
    """Its page; `None` if it has none, or does not say it in time, or says too much."""
    path, instance = resident.recipe.upstream.metrics, resident.instance
    if not path or instance is None:
        return None
    question = UpstreamRequest(method="GET", path=path)
    try:
        async with asyncio.timeout(SCRAPE_SECONDS):
            async with await instance.upstream.send(question) as response:
                body = await response.read(SCRAPE_LIMIT + 1)
    except (LemonadeError, TimeoutError):
        return None
    if response.status != 200 or len(body) > SCRAPE_LIMIT:
        return None
    resident.metrics_seen, resident.metrics_seen_at = body, time.time()
    return body


async def progress_of(resident: Resident) -> float | None:
    """The sum of the counters that tell of work; `None` if that cannot be had."""
    wanted = resident.recipe.upstream.progress
    page = await scrape(resident) if wanted else None
    return None if page is None else total(page, wanted)


def total(page: bytes, names: Sequence[str]) -> float | None:
    """The sum of all samples of these names; `None` if there is none."""
    wanted = {name.encode() for name in names}
    found = [_number(value) for name, value in _SAMPLE.findall(page) if name in wanted]
    return sum(found) if found else None


def _number(text: bytes) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
