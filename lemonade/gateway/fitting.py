"""A request made to fit the engine it goes to, for engines whose recipe asks for it.

Whatever cannot be found out leaves the request as it is: then the engine says what is wrong.
"""

from __future__ import annotations

import asyncio
from typing import Final

from lemonade.catalog import LimitsSpec
from lemonade.core.errors import LemonadeError
from lemonade.core.inference import Inference
from lemonade.dialects import (
    UsageSieve,
    counting_request,
    lower_limit,
    read_context,
    read_count,
)
from lemonade.relay import REQUEST_ID, adapt
from lemonade.residency import Lease
from lemonade.upstream import UpstreamRequest

COUNT_SECONDS: Final = 10.0
"""How long an engine may take to count a prompt."""

CONTEXT_SECONDS: Final = 2.0
"""How long it may take to say how long its context is."""


async def fit(wanted: Inference, lease: Lease) -> tuple[bytes, UsageSieve | None]:
    """The body for the engine, and what takes out of its stream what only we asked for."""
    resident = lease.resident
    spec = resident.recipe.upstream
    adapted = adapt(wanted, resident)
    body = adapted.body
    if spec.limits is not None and adapted.limit is not None:
        most = await _room(wanted, body, adapted.limit, lease, spec.limits)
        if most is not None and most < adapted.limit:
            body = lower_limit(body, most)
    return body, UsageSieve() if adapted.hide_usage else None


async def _room(
    wanted: Inference, body: bytes, limit: int, lease: Lease, limits: LimitsSpec
) -> int | None:
    """How many new tokens the context leaves; `None` if that does not matter or is not known.

    A prompt that does not fit at all leaves nothing to lower the limit to. Where a prompt cannot
    be counted, the context itself is the limit; the engine takes the prompt off.
    """
    context = await _context(lease, limits)
    if not context or limit <= min(limits.above, context):
        return None
    question = counting_request(wanted.operation, body)
    if question is None:
        return context
    answer = await _ask(lease, limits.count, COUNT_SECONDS, question)
    prompt = None if answer is None else read_count(answer)
    if prompt is None or prompt >= context:
        return None
    return context - prompt


async def _context(lease: Lease, limits: LimitsSpec) -> int:
    """What the engine was really started with, asked once; else what it was to be started with."""
    resident = lease.resident
    if not resident.context:
        answer = await _ask(lease, limits.context, CONTEXT_SECONDS)
        said = None if answer is None else read_context(answer, resident.served_name)
        if said is None:
            values = resident.options.values if resident.options is not None else {}
            planned = values.get("ctx_size", 0)
            return planned if isinstance(planned, int) and planned > 0 else 0
        resident.context = said
    return resident.context


async def _ask(lease: Lease, path: str, seconds: float, body: bytes = b"") -> bytes | None:
    """What the engine answers; `None` if it does not, or not with success."""
    question = UpstreamRequest(
        method="POST" if body else "GET",
        path=path,
        body=body,
        headers=(("X-Request-Id", REQUEST_ID.get()),),
    )
    try:
        async with (
            asyncio.timeout(seconds),
            await lease.instance.upstream.send(question) as response,
        ):
            return await response.read() if response.status == 200 else None
    except (LemonadeError, TimeoutError):
        return None
