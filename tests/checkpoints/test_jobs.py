"""One download however many ask; paused, cancelled, taken up again, listed."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest
from blockbuster import blockbuster_ctx

from lemonade.checkpoints import Patience
from lemonade.core.errors import (
    Incomplete,
    LemonadeError,
    MalformedRequest,
)
from lemonade.core.progress import Progress
from tests.checkpoints.conftest import Bench, until
from tests.checkpoints.examples import BIG, Q4, Q4_FILE, partials
from tests.checkpoints.hub_fixture import (
    downloads_of,
    requests_of,
    set_faults,
)

pytestmark = pytest.mark.usefixtures("repository")


async def test_one_download_serves_all_who_ask(bench: Bench, hub_url: str) -> None:
    set_faults(hub_url, {"path": "*.gguf", "kind": "hold", "after": 1_000_000})
    spec = bench.model(Q4)
    heard: list[Progress] = []
    async with asyncio.TaskGroup() as group:
        first = group.create_task(bench.pull(spec))
        await until(lambda: bool(bench.seen))
        group.create_task(bench.downloads.download(spec, bench.recipes["gguf"], heard.append))
        await until(lambda: bool(heard))  # who comes later hears at once how far it is
        first.cancel()
        await until(first.done)
        set_faults(hub_url)
    assert bench.store.files(spec) is not None
    assert heard[-1].complete
    assert len([asked for asked in downloads_of(hub_url) if Q4_FILE in asked["path"]]) == 1


async def test_a_detached_download_outlives_who_asked(bench: Bench, hub_url: str) -> None:
    set_faults(hub_url, {"path": "*.gguf", "kind": "hold", "after": 1_000_000})
    spec = bench.model(Q4)
    snapshot = bench.downloads.detach(spec, bench.recipes["gguf"])
    assert snapshot["status"] == "downloading"
    assert bench.downloads.detach(spec, bench.recipes["gguf"])["id"] == snapshot["id"]
    async with asyncio.TaskGroup() as group:
        waiter = group.create_task(bench.pull(spec))
        await until(lambda: any(p.stat().st_size for p in partials(bench.hub.cache_dir)))
        waiter.cancel()
    set_faults(hub_url)
    await until(lambda: not bench.downloads.jobs.snapshots()[0]["running"])
    (row,) = bench.downloads.jobs.snapshots()
    assert row["status"] == "completed"
    assert row["complete"] is True
    assert row["overall_bytes_downloaded"] == BIG + 2
    assert row["completed_files_bytes"] == BIG
    assert bench.store.files(spec) is not None


async def test_completed_downloads_leave_the_list(bench_at: Any, hub_url: str) -> None:
    now = 0.0
    async with bench_at(hub_url, clock=lambda: now) as bench:
        bench.downloads.detach(bench.model(Q4), bench.recipes["gguf"])
        await until(lambda: not bench.downloads.jobs.snapshots()[0]["running"])
        now = 29.0
        assert len(bench.downloads.jobs.snapshots()) == 1
        now = 31.0
        assert bench.downloads.jobs.snapshots() == ()


async def test_a_download_is_paused_and_taken_up_again(bench: Bench, hub_url: str) -> None:
    set_faults(hub_url, {"path": "*.gguf", "kind": "stall", "after": 1_000_000, "times": 1})
    spec = bench.model(Q4)
    job = bench.downloads.detach(spec, bench.recipes["gguf"])["id"]
    await until(lambda: any(p.stat().st_size == 1_000_000 for p in partials(bench.hub.cache_dir)))
    paused = bench.downloads.jobs.control(job, "pause")
    assert paused is not None
    assert paused["status"] == "paused"
    await until(lambda: not bench.downloads.jobs.snapshots()[0]["running"])
    assert bench.downloads.jobs.snapshots()[0]["status"] == "paused"
    bench.downloads.detach(spec, bench.recipes["gguf"])
    await until(lambda: not bench.downloads.jobs.snapshots()[0]["running"])
    assert bench.downloads.jobs.snapshots()[0]["status"] == "completed"
    late = bench.downloads.jobs.control(job, "cancel")  # a stop that comes too late undoes nothing
    assert late is not None
    assert late["status"] == "completed"
    assert bench.downloads.jobs.control(job, "remove") == {"status": "ok"}
    assert bench.downloads.jobs.snapshots() == ()


async def test_control_of_what_is_not_there(bench: Bench) -> None:
    assert bench.downloads.jobs.control("model:nobody", "pause") is None
    assert bench.downloads.jobs.control("model:nobody", "remove") is None
    with pytest.raises(MalformedRequest):
        bench.downloads.jobs.control("model:nobody", "explode")


async def test_removing_a_running_download_cancels_it(bench: Bench, hub_url: str) -> None:
    set_faults(hub_url, {"path": "*.gguf", "kind": "stall", "after": 1000})
    job = bench.downloads.detach(bench.model(Q4), bench.recipes["gguf"])["id"]
    await until(lambda: bool(partials(bench.hub.cache_dir)))
    row = bench.downloads.jobs.control(job, "remove")
    assert row is not None
    assert row["status"] == "cancelled"
    await until(lambda: not bench.downloads.jobs.snapshots()[0]["running"])
    assert bench.downloads.jobs.control(job, "remove") == {"status": "ok"}


async def test_who_waits_for_a_download_hears_that_it_was_stopped(
    bench: Bench, hub_url: str
) -> None:
    set_faults(hub_url, {"path": "*.gguf", "kind": "stall", "after": 1000})
    spec = bench.model(Q4)
    job = bench.downloads.detach(spec, bench.recipes["gguf"])["id"]
    async with asyncio.TaskGroup() as group:
        waiter = group.create_task(_outcome(bench.pull(spec)))
        await until(lambda: bool(bench.seen))
        bench.downloads.jobs.control(job, "pause")
    assert isinstance(waiter.result(), Incomplete)
    assert "was paused" in str(waiter.result())


async def test_a_failed_detached_download_says_why(bench: Bench) -> None:
    bench.downloads.detach(bench.model("o/nothing:Q4_0"), bench.recipes["gguf"])
    await until(lambda: not bench.downloads.jobs.snapshots()[0]["running"])
    (row,) = bench.downloads.jobs.snapshots()
    assert row["status"] == "error"
    assert row["code"] == "gated-repository" or row["code"] == "not-in-repository"
    assert "o/nothing" in str(row["error"])


async def test_a_hub_that_says_nothing_is_not_waited_for(bench_at: Any, hub_url: str) -> None:
    set_faults(hub_url, {"path": "*", "where": "listing", "kind": "stall"})
    patience = Patience(answer_within=3600)
    async with bench_at(hub_url, patience=patience) as bench:
        async with asyncio.TaskGroup() as group:
            pull = group.create_task(bench.pull(bench.model(Q4)))
            await until(lambda: bool(requests_of(hub_url)))
            pull.cancel()
        bench.downloads.detach(bench.model(Q4), bench.recipes["gguf"])
        await until(lambda: len(requests_of(hub_url)) == 2)


async def test_the_event_loop_is_never_kept_waiting(bench_at: Any, hub_url: str) -> None:
    with blockbuster_ctx("lemonade"):
        async with bench_at(hub_url) as bench:
            spec = bench.model(Q4, mmproj="mmproj-F16.gguf")
            await bench.pull(spec)
            await bench.pull(spec, do_not_upgrade=True)
            await bench.downloads.variants("o/r-GGUF")
            await bench.downloads.delete(spec, [bench.model("o/r-GGUF:Q8_0", "n")])


async def test_ending_the_server_stops_downloads(
    bench_at: Any, hub_url: str, tmp_path: Path
) -> None:
    set_faults(hub_url, {"path": "*.gguf", "kind": "stall", "after": 1000})
    async with bench_at(hub_url) as bench:
        bench.downloads.detach(bench.model(Q4), bench.recipes["gguf"])
        await until(lambda: bool(partials(bench.hub.cache_dir)))
    (row,) = bench.downloads.jobs.snapshots()
    assert (row["status"], row["running"]) == ("cancelled", False)


async def test_models_of_one_repository_are_fetched_one_after_the_other(
    bench: Bench, hub_url: str
) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(bench.pull(bench.model(Q4, "a")))
        group.create_task(bench.pull(bench.model("o/r-GGUF:Q8_0", "b")))
        group.create_task(bench.pull(bench.model(Q4, "c")))
    assert len([asked for asked in downloads_of(hub_url) if Q4_FILE in asked["path"]]) == 1


async def test_two_servers_that_share_a_cache_fetch_once(bench_at: Any, hub_url: str) -> None:
    set_faults(hub_url, {"path": "*.gguf", "kind": "hold", "after": 1_000_000})
    async with bench_at(hub_url) as one, bench_at(hub_url) as two:
        async with asyncio.TaskGroup() as group:
            group.create_task(one.pull(one.model(Q4)))
            group.create_task(two.pull(two.model(Q4)))
            await until(lambda: len(_heads(hub_url)) >= 2)
            set_faults(hub_url)
        assert two.store.files(two.model(Q4)) is not None
    assert len([asked for asked in downloads_of(hub_url) if Q4_FILE in asked["path"]]) == 1


async def _outcome(work: Coroutine[Any, Any, None]) -> LemonadeError | None:
    try:
        await work
    except LemonadeError as error:
        return error
    return None


def _heads(url: str) -> list[dict[str, Any]]:
    return [asked for asked in requests_of(url) if asked["method"] == "HEAD"]
