from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
import uvloop

from tests.upstream.peers import Engine, Front


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Sockets behave differently on the two loops the server runs on; try everything on both."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    async with Engine() as one:
        yield one


@pytest.fixture
async def front(engine: Engine) -> AsyncIterator[Front]:
    async with Front(engine.endpoint) as one:
        yield one
