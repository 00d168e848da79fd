"""Jobs: the odd moments in which one may be stopped, and what its snapshot adds up."""

from __future__ import annotations

import asyncio

import pytest

from lemonade.core.errors import Incomplete, LemonadeError
from lemonade.core.progress import Progress
from lemonade.jobs import Job, Jobs, Kind, Status, TaskOwner

KIND = Kind(
    type="thing",
    stopped=lambda name, status: Incomplete(f"{name} was {status}."),
    broken=lambda error: LemonadeError(f"broken: {error}"),
)


class Workshop(TaskOwner):
    def __init__(self) -> None:
        super().__init__()
        self.jobs: Jobs[int] = Jobs(KIND, self._tasks)
        self.go = asyncio.Event()
        self.begun = 0

    async def _end_all(self) -> None:
        self.jobs.stop_all()

    async def work(self, job: Job[int]) -> int:
        self.begun += 1
        job.tell(Progress("one", 1, 2, 10, 10, 30))
        await self.go.wait()
        job.tell(Progress("two", 2, 2, 20, 20, 30))
        return 7

    def begin(self) -> Job[int]:
        return self.jobs.begin("key", "name", self.work)


def ignore(_: Progress) -> None:
    """Hear nothing."""


async def test_stopped_before_its_first_step() -> None:
    async with asyncio.timeout(10), Workshop() as shop:
        job = shop.begin()
        job.stop(Status.CANCELLED)
        with pytest.raises(Incomplete, match="was cancelled"):
            await job.wait(ignore)
        assert not job.running
        assert shop.begun == 0


async def test_the_next_one_waits_for_the_one_that_is_being_stopped() -> None:
    async with asyncio.timeout(10), Workshop() as shop:
        first = shop.begin()
        first.detached = True
        await asyncio.sleep(0)
        shop.jobs.control("thing:name", "pause")
        assert first.as_json()["status"] == "paused"
        assert first.running
        second = shop.begin()
        assert second is not first
        assert shop.begin() is second
        shop.go.set()
        assert await second.wait(ignore) == 7
        assert not first.running
        assert first.status is Status.PAUSED


async def test_stopped_with_its_last_breath_it_is_completed() -> None:
    async with asyncio.timeout(10), Workshop() as shop:
        job = shop.begin()
        job.detached = True

        def listen(progress: Progress) -> None:
            if progress.file_index == 2:
                shop.jobs.control("thing:name", "cancel")

        shop.go.set()
        assert await job.wait(listen) == 7
        assert shop.jobs.snapshots()[0]["status"] == "completed"


async def test_a_bug_and_a_broken_listener_end_nobody_else() -> None:
    async def buggy(_: Job[int]) -> int:
        raise ValueError("a bug")

    def broken(_: Progress) -> None:
        raise RuntimeError("the display is gone")

    async with asyncio.timeout(10), Workshop() as shop:
        bad = shop.jobs.begin("bad", "bad", buggy)
        good = shop.begin()
        for _ in range(2):
            with pytest.raises(LemonadeError, match="broken: a bug"):
                await bad.wait(ignore)
        shop.go.set()
        assert await good.wait(broken) == 7


async def test_bytes_add_up_to_the_whole_and_no_further() -> None:
    async with asyncio.timeout(10), Workshop() as shop:
        job = shop.begin()
        shop.go.set()
        await job.wait(ignore)
        row = job.as_json()
        assert (row["completed_files_bytes"], row["overall_bytes_downloaded"]) == (10, 30)
        job.tell(Progress("unpack", 3, 3, 500, 900, 30))
        row = job.as_json()
        assert (row["completed_files_bytes"], row["overall_bytes_downloaded"]) == (30, 30)


async def test_leaving_ends_all_and_keeps_the_callers_own_error() -> None:
    begun: list[Job[int]] = []

    async def fail_inside() -> None:
        async with asyncio.timeout(10), Workshop() as shop:
            begun.append(shop.begin())
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        await fail_inside()
    assert (begun[0].running, begun[0].status) == (False, Status.CANCELLED)
