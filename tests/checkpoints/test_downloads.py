"""Downloads from a hub process into a real cache: complete, or continued where they ended."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lemonade.checkpoints import Patience
from lemonade.core.errors import (
    HubUnreachable,
    Incomplete,
)
from lemonade.core.events import ModelDownloaded
from tests.checkpoints.conftest import ROOT, Bench, until
from tests.checkpoints.examples import BIG, Q4, Q4_FILE, partials, tree
from tests.checkpoints.hub_fixture import (
    downloads_of,
    gguf,
    requests_of,
    set_faults,
    write_repository,
)

pytestmark = pytest.mark.usefixtures("repository")


async def test_a_variant_and_what_belongs_to_it_is_fetched(bench: Bench) -> None:
    spec = bench.model(Q4, mmproj="mmproj-F16.gguf")
    await bench.pull(spec)
    files = bench.store.files(spec)
    assert files is not None
    assert [path.name for path in files["main"]] == [Q4_FILE]
    assert [path.name for path in files["mmproj"]] == ["mmproj-F16.gguf"]
    snapshot = files["main"][0].parent
    assert {path.name for path in snapshot.iterdir()} == {
        Q4_FILE,
        "mmproj-F16.gguf",
        "config.json",
    }
    assert bench.events == [ModelDownloaded("user.m")]
    assert bench.store.size_on_disk(spec) == BIG + 700


async def test_the_cache_has_the_standard_layout(bench: Bench) -> None:
    await bench.pull(bench.model(Q4))
    listing = await bench.hub.listing("o/r-GGUF")
    etags = {file.path: file.sha256 or file.blob_id for file in listing.files}
    root, snapshot = "models--o--r-GGUF", f"models--o--r-GGUF/snapshots/{listing.revision}"
    found = tree(bench.hub.cache_dir)
    assert found == {
        "CACHEDIR.TAG": "",
        f"{root}/blobs/{etags[Q4_FILE]}": "",
        f"{root}/blobs/{etags['config.json']}": "",
        f"{root}/refs/main": "",
        f"{snapshot}/{Q4_FILE}": f"../../blobs/{etags[Q4_FILE]}",
        f"{snapshot}/config.json": f"../../blobs/{etags['config.json']}",
    }
    assert (bench.hub.cache_dir / root / "refs/main").read_text() == listing.revision


async def test_progress_tells_files_and_bytes(bench: Bench) -> None:
    await bench.pull(bench.model(Q4))
    assert {(p.file, p.file_index) for p in bench.seen} == {(Q4_FILE, 1), ("config.json", 2)}
    ends = [p for p in bench.seen if p.file == Q4_FILE][-1]
    assert (ends.bytes_downloaded, ends.bytes_total) == (BIG, BIG)
    assert ends.total_download_size == BIG + 2
    assert [p.complete for p in bench.seen].index(True) == len(bench.seen) - 1


async def test_what_is_here_is_not_fetched_again(bench: Bench, hub_url: str) -> None:
    await bench.pull(bench.model(Q4))
    before = len(downloads_of(hub_url))
    await bench.pull(bench.model(Q4))
    assert len(downloads_of(hub_url)) == before
    asked = len(requests_of(hub_url))
    await bench.pull(bench.model(Q4), do_not_upgrade=True)
    assert len(requests_of(hub_url)) == asked
    assert bench.seen[-1].complete


async def test_a_cut_line_is_continued(bench: Bench, hub_url: str) -> None:
    cut = {"path": "*.gguf", "kind": "cut", "after": 1_000_000, "times": 2}
    set_faults(hub_url, cut)
    await bench.pull(bench.model(Q4))
    ranges = [asked["range"] for asked in downloads_of(hub_url) if Q4_FILE in asked["path"]]
    assert ranges == ["", "bytes=1000000-", "bytes=2000000-"]
    assert partials(bench.hub.cache_dir) == []


async def test_the_next_pull_continues_what_an_earlier_one_left(
    bench: Bench, hub_url: str
) -> None:
    set_faults(hub_url, {"path": "*.gguf", "kind": "cut", "after": 0})
    spec = bench.model(Q4)
    with pytest.raises(HubUnreachable):
        await bench.pull(spec)
    set_faults(
        hub_url,
        {"path": "*.gguf", "kind": "cut", "after": 1_500_000, "times": 1},
        {"path": "*.gguf", "kind": "status", "status": 503},
    )
    with pytest.raises(HubUnreachable, match="503"):
        await bench.pull(spec)
    assert bench.store.files(spec) is None
    (partial,) = partials(bench.hub.cache_dir)
    assert partial.stat().st_size == 1_500_000
    set_faults(hub_url)
    bench.seen.clear()
    await bench.pull(spec)
    assert downloads_of(hub_url)[-2]["range"] == "bytes=1500000-"
    first = bench.seen[0]
    assert (first.file, first.bytes_previously_downloaded) == (Q4_FILE, 1_500_000)
    assert bench.store.files(spec) is not None


@pytest.mark.parametrize("kind", ["whole", "expired"])
async def test_a_hub_that_cannot_continue_starts_over(
    bench: Bench, hub_url: str, kind: str
) -> None:
    set_faults(
        hub_url,
        {"path": "*.gguf", "kind": "cut", "after": 1_000_000, "times": 1},
        {"path": "*.gguf", "kind": kind, "times": 1},
    )
    await bench.pull(bench.model(Q4))
    assert bench.store.files(bench.model(Q4)) is not None


async def test_a_killed_download_is_continued(bench: Bench, hub_url: str, tmp_path: Path) -> None:
    set_faults(hub_url, {"path": "*.gguf", "kind": "stall", "after": 1_200_000, "times": 1})
    cache = bench.hub.cache_dir
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "tests.checkpoints.pull_program",
            hub_url,
            str(cache),
            str(tmp_path / "other"),
            Q4,
        ],
        cwd=ROOT,
    )
    try:
        await until(lambda: any(path.stat().st_size == 1_200_000 for path in partials(cache)), 40)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    spec = bench.model(Q4)
    assert bench.store.files(spec) is None
    await bench.pull(spec)
    continued = [asked for asked in downloads_of(hub_url) if asked["range"]]
    assert [asked["range"] for asked in continued] == ["bytes=1200000-"]
    assert bench.store.files(spec) is not None


async def test_cancelling_stops_the_transfer_and_keeps_what_came(
    bench: Bench, hub_url: str
) -> None:
    set_faults(hub_url, {"path": "*.gguf", "kind": "stall", "after": 1_000_000, "times": 1})
    spec = bench.model(Q4)
    cache = bench.hub.cache_dir
    async with asyncio.TaskGroup() as group:
        pull = group.create_task(bench.pull(spec))
        await until(lambda: any(p.stat().st_size == 1_000_000 for p in partials(cache)))
        pull.cancel()
    # Nobody sleeps here: the content's lock is free again because the thread has let go.
    await bench.pull(spec)
    assert "bytes=1000000-" in {asked["range"] for asked in downloads_of(hub_url)}


async def test_what_is_too_large_for_plain_http_is_left_to_huggingface_hub(
    bench_at: Any, hub_url: str
) -> None:
    patience = Patience(retries=1, first_pause=0.01, largest_plain_bytes=10_000)
    async with bench_at(hub_url, patience=patience) as bench:
        await bench.pull(bench.model(Q4))
        assert bench.store.files(bench.model(Q4)) is not None
        assert max(p.bytes_downloaded for p in bench.seen) == BIG


async def test_an_update_fetches_what_changed_and_takes_effect_at_the_end(
    bench: Bench, hub_url: str, hub_root: Path
) -> None:
    spec = bench.model(Q4, mmproj="mmproj-F16.gguf")
    await bench.pull(spec)
    before = bench.store.files(spec)
    assert before is not None
    write_repository(hub_root, "o/r-GGUF", {Q4_FILE: gguf(BIG, 5)})
    set_faults(hub_url, {"path": "*.gguf", "kind": "cut", "after": 0})
    with pytest.raises(HubUnreachable):
        await bench.pull(spec)
    assert bench.store.files(spec) == before
    set_faults(hub_url)
    count = len(downloads_of(hub_url))
    await bench.pull(spec)
    after = bench.store.files(spec)
    assert after is not None
    assert after["main"][0].parent != before["main"][0].parent
    changed = downloads_of(hub_url)[count:]
    assert [asked["path"].rpartition("/")[2] for asked in changed] == [Q4_FILE]


async def test_files_of_the_machine_are_never_asked_for(bench: Bench, hub_url: str) -> None:
    with pytest.raises(Incomplete, match="is not there"):
        await bench.pull(bench.model("/nowhere/m.gguf", source="local_path"))
    assert requests_of(hub_url) == []
