"""A bug in one task of a long-lived group is that task's own."""

from __future__ import annotations

import asyncio
import logging

import pytest

from lemonade.jobs import outliving


async def test_a_failure_is_logged_and_ends_nobody_else(caplog: pytest.LogCaptureFixture) -> None:
    done = asyncio.Event()

    async def broken() -> None:
        raise ZeroDivisionError("one by nothing")

    async def sound() -> None:
        await asyncio.sleep(0)
        done.set()

    with caplog.at_level(logging.ERROR):
        async with asyncio.TaskGroup() as group:
            group.create_task(outliving(broken, "counting"))
            group.create_task(outliving(sound, "waiting"))
    assert done.is_set()
    assert "counting: failed unexpectedly" in caplog.text
    assert "one by nothing" in caplog.text


async def test_a_cancellation_passes() -> None:
    async def never() -> None:
        await asyncio.Event().wait()

    async with asyncio.TaskGroup() as group:
        task = group.create_task(outliving(never, "waiting"))
        await asyncio.sleep(0)
        task.cancel()
    assert task.cancelled()


async def test_one_that_never_began_leaves_nothing() -> None:
    async def work() -> None:
        raise AssertionError("it was cancelled before")

    async with asyncio.TaskGroup() as group:
        group.create_task(outliving(work, "nothing")).cancel()
