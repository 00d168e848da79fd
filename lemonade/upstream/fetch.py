"""One question to a child over a connection of its own: probes, metrics, slots.

Independent of the child's `Upstream`, because a probe must work before there is one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from lemonade.core.errors import UpstreamError, UpstreamTimeout
from lemonade.core.process import Endpoint, SaysItIsDeadError
from lemonade.upstream.pool import Upstream
from lemonade.upstream.request import UpstreamRequest
from lemonade.upstream.response import ANSWER_LIMIT


async def fetch(
    endpoint: Endpoint,
    path: str,
    *,
    method: str = "GET",
    body: bytes = b"",
    api_key: str = "",
    timeout: float = 5.0,
    limit: int = ANSWER_LIMIT,
) -> tuple[int, bytes]:
    """Ask a child once: its status and body.

    Args:
        endpoint: where the child listens.
        path: absolute, with its query.
        method: of the request.
        body: JSON, if any.
        api_key: the child's own key.
        timeout: seconds for everything.
        limit: bytes of the body; what is longer is cut.

    Raises:
        UpstreamError: there was no complete answer in time.
    """
    upstream = Upstream(endpoint, api_key, idle_limit=0)
    request = UpstreamRequest(method=method, path=path, body=body)
    try:
        async with asyncio.timeout(timeout), await upstream.send(request) as response:
            return response.status, await response.read(limit)
    except TimeoutError as error:
        raise UpstreamTimeout(f"The engine did not answer within {timeout:g} seconds.") from error
    finally:
        await upstream.aclose()


def http_probe(
    endpoint: Endpoint,
    path: str,
    *,
    api_key: str = "",
    timeout: float = 2.0,
    dead_status: int = 0,
) -> Callable[[], Awaitable[bool]]:
    """A probe that passes when the child answers 200 at `path` within `timeout` seconds.

    It raises `SaysItIsDeadError` when the answer is `dead_status`.
    """

    async def probe() -> bool:
        try:
            status, _ = await fetch(endpoint, path, api_key=api_key, timeout=timeout, limit=65536)
        except UpstreamError:
            return False
        if dead_status and status == dead_status:
            raise SaysItIsDeadError
        return status == 200

    return probe
