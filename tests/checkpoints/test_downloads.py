"""Downloads from a hub process into a real cache: complete, continued, or an error in words."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from lemonade.checkpoints import Patience
from lemonade.checkpoints.downloads import _check_room, _Errand
from lemonade.core.errors import (
    CheckpointError,
    DamagedFile,
    GatedRepository,
    HubUnreachable,
    Incomplete,
    LemonadeError,
    MalformedRequest,
    NotInRepository,
    Offline,
    OutOfDisk,
    UnsupportedRegistry,
)
from lemonade.core.events import ModelDownloaded
from lemonade.core.progress import Progress
from lemonade.planning.checkpoint import RepoFile, RepoListing
from tests.checkpoints.conftest import ROOT, Bench, until
from tests.checkpoints.hub_fixture import (
    downloads_of,
    gguf,
    requests_of,
    running_hub,
    set_faults,
    write_repository,
)

BIG = 3_000_000
Q4 = "o/r-GGUF:Q4_K_M"
Q4_FILE = "r-Q4_K_M.gguf"


@pytest.fixture(autouse=True)
def repository(hub_root: Path) -> None:
    write_repository(
        hub_root,
        "o/r-GGUF",
        {
            Q4_FILE: gguf(BIG, 4),
            "r-Q8_0.gguf": gguf(5000, 8),
            "mmproj-F16.gguf": gguf(700, 16),
            "config.json": b"{}",
            "README.md": b"# r",
        },
    )


def partials(cache: Path) -> list[Path]:
    return sorted(cache.rglob("*.incomplete"))


def tree(cache: Path) -> dict[str, str]:
    return {
        path.relative_to(cache).as_posix(): str(path.readlink()) if path.is_symlink() else ""
        for path in cache.rglob("*")
        if not path.is_dir() and ".locks" not in path.parts
    }


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
    await until(lambda: not bench.downloads.snapshots()[0]["running"])
    (row,) = bench.downloads.snapshots()
    assert row["status"] == "completed"
    assert row["complete"] is True
    assert row["overall_bytes_downloaded"] == BIG + 2
    assert row["completed_files_bytes"] == BIG
    assert bench.store.files(spec) is not None


async def test_completed_downloads_leave_the_list(bench_at: Any, hub_url: str) -> None:
    now = 0.0
    async with bench_at(hub_url, clock=lambda: now) as bench:
        bench.downloads.detach(bench.model(Q4), bench.recipes["gguf"])
        await until(lambda: not bench.downloads.snapshots()[0]["running"])
        now = 29.0
        assert len(bench.downloads.snapshots()) == 1
        now = 31.0
        assert bench.downloads.snapshots() == ()


async def test_a_download_is_paused_and_taken_up_again(bench: Bench, hub_url: str) -> None:
    set_faults(hub_url, {"path": "*.gguf", "kind": "stall", "after": 1_000_000, "times": 1})
    spec = bench.model(Q4)
    job = bench.downloads.detach(spec, bench.recipes["gguf"])["id"]
    await until(lambda: any(p.stat().st_size == 1_000_000 for p in partials(bench.hub.cache_dir)))
    paused = bench.downloads.control(job, "pause")
    assert paused is not None
    assert paused["status"] == "paused"
    await until(lambda: not bench.downloads.snapshots()[0]["running"])
    assert bench.downloads.snapshots()[0]["status"] == "paused"
    bench.downloads.detach(spec, bench.recipes["gguf"])
    await until(lambda: not bench.downloads.snapshots()[0]["running"])
    assert bench.downloads.snapshots()[0]["status"] == "completed"
    late = bench.downloads.control(job, "cancel")  # a stop that comes too late undoes nothing
    assert late is not None
    assert late["status"] == "completed"
    assert bench.downloads.control(job, "remove") == {"status": "ok"}
    assert bench.downloads.snapshots() == ()


async def test_control_of_what_is_not_there(bench: Bench) -> None:
    assert bench.downloads.control("model:nobody", "pause") is None
    assert bench.downloads.control("model:nobody", "remove") == {"status": "ok", "missing": True}
    with pytest.raises(MalformedRequest):
        bench.downloads.control("model:nobody", "explode")


async def test_removing_a_running_download_cancels_it(bench: Bench, hub_url: str) -> None:
    set_faults(hub_url, {"path": "*.gguf", "kind": "stall", "after": 1000})
    job = bench.downloads.detach(bench.model(Q4), bench.recipes["gguf"])["id"]
    await until(lambda: bool(partials(bench.hub.cache_dir)))
    row = bench.downloads.control(job, "remove")
    assert row is not None
    assert row["status"] == "cancelled"
    await until(lambda: not bench.downloads.snapshots()[0]["running"])
    assert bench.downloads.control(job, "remove") == {"status": "ok"}


async def test_who_waits_for_a_download_hears_that_it_was_stopped(
    bench: Bench, hub_url: str
) -> None:
    set_faults(hub_url, {"path": "*.gguf", "kind": "stall", "after": 1000})
    spec = bench.model(Q4)
    job = bench.downloads.detach(spec, bench.recipes["gguf"])["id"]
    async with asyncio.TaskGroup() as group:
        waiter = group.create_task(_outcome(bench.pull(spec)))
        await until(lambda: bool(bench.seen))
        bench.downloads.control(job, "pause")
    assert isinstance(waiter.result(), Incomplete)
    assert "was paused" in str(waiter.result())


async def test_a_failed_detached_download_says_why(bench: Bench) -> None:
    bench.downloads.detach(bench.model("o/nothing:Q4_0"), bench.recipes["gguf"])
    await until(lambda: not bench.downloads.snapshots()[0]["running"])
    (row,) = bench.downloads.snapshots()
    assert row["status"] == "error"
    assert row["code"] == "gated-repository" or row["code"] == "not-in-repository"
    assert "o/nothing" in str(row["error"])


async def test_ending_the_server_stops_downloads(
    bench_at: Any, hub_url: str, tmp_path: Path
) -> None:
    set_faults(hub_url, {"path": "*.gguf", "kind": "stall", "after": 1000})
    async with bench_at(hub_url) as bench:
        bench.downloads.detach(bench.model(Q4), bench.recipes["gguf"])
        await until(lambda: bool(partials(bench.hub.cache_dir)))
    (row,) = bench.downloads.snapshots()
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


# ---- what can be wrong


async def test_a_repository_that_is_not_there(bench: Bench) -> None:
    # Like the real hub, it does not say to strangers whether it is missing or private.
    with pytest.raises(NotInRepository, match="o/nothing"):
        await bench.pull(bench.model("o/nothing:Q4_0"))


async def test_an_unknown_variant_lists_those_there_are(bench: Bench) -> None:
    with pytest.raises(NotInRepository) as caught:
        await bench.pull(bench.model("o/r-GGUF:Q2_K"))
    assert caught.value.facts["variants"] == ["Q4_K_M", "Q8_0"]
    assert "Q4_K_M, Q8_0" in caught.value.remedy


async def test_a_name_that_is_none(bench: Bench) -> None:
    with pytest.raises(NotInRepository):
        await bench.pull(bench.model("not a repository:Q4_0"))


async def test_a_gated_repository_wants_a_token(hub_root: Path, bench_at: Any) -> None:
    switches = ("--gated", "o/r-*", "--token", "sesame")
    with running_hub(hub_root, *switches) as url:
        async with bench_at(url) as bench:
            with pytest.raises(GatedRepository) as caught:
                await bench.pull(bench.model(Q4))
            assert "HF_TOKEN" in caught.value.remedy
        async with bench_at(url, environ={"HF_TOKEN": "wrong"}) as bench:
            with pytest.raises(GatedRepository):
                await bench.pull(bench.model(Q4))
        async with bench_at(url, environ={"HF_TOKEN": "sesame"}) as bench:
            await bench.pull(bench.model(Q4))
            assert bench.store.files(bench.model(Q4)) is not None


async def test_a_private_repository_opens_with_a_token(hub_root: Path, bench_at: Any) -> None:
    with running_hub(hub_root, "--private", "o/*", "--token", "sesame") as url:
        async with bench_at(url) as bench:
            with pytest.raises(NotInRepository) as caught:
                await bench.pull(bench.model(Q4))
            assert "HF_TOKEN" in caught.value.remedy
        async with bench_at(url, environ={"HF_TOKEN": "sesame"}) as bench:
            await bench.pull(bench.model(Q4))


async def test_the_token_does_not_leave_the_hub(hub_root: Path, bench_at: Any) -> None:
    with running_hub(hub_root, "--cdn", "--token", "sesame", "--gated", "o/*") as url:
        async with bench_at(url, environ={"HF_TOKEN": "sesame"}) as bench:
            await bench.pull(bench.model(Q4))
        elsewhere = [asked for asked in requests_of(url) if asked["path"].startswith("/cdn/")]
    assert [(asked["token"], asked["status"]) for asked in elsewhere] == [("", 200)]


async def test_nobody_answers(bench_at: Any) -> None:
    async with bench_at("http://127.0.0.1:1") as bench:
        with pytest.raises(HubUnreachable, match=r"127\.0\.0\.1:1 cannot be reached"):
            await bench.pull(bench.model(Q4))


async def test_something_else_answers(bench_at: Any) -> None:
    async with bench_at("ftp://hub") as bench:
        with pytest.raises(HubUnreachable) as caught:
            await bench.pull(bench.model(Q4))
    assert "HF_ENDPOINT" in caught.value.remedy


async def test_a_hub_that_stumbles_is_asked_again(bench: Bench, hub_url: str) -> None:
    set_faults(
        hub_url,
        {"path": "o/r-GGUF", "where": "listing", "kind": "status", "status": 500, "times": 2},
        {"path": "*.gguf", "kind": "status", "status": 503, "times": 2},
    )
    await bench.pull(bench.model(Q4))


async def test_a_hub_that_is_down_says_so(bench: Bench, hub_url: str) -> None:
    set_faults(hub_url, {"path": "*", "where": "listing", "kind": "status", "status": 500})
    with pytest.raises(HubUnreachable, match="500"):
        await bench.pull(bench.model(Q4))


async def test_offline_nothing_is_asked(bench_at: Any, hub_url: str) -> None:
    async with bench_at(hub_url) as online:
        await online.pull(online.model(Q4))
    asked = len(requests_of(hub_url))
    async with bench_at(hub_url, offline=lambda: True) as bench:
        with pytest.raises(Offline):
            await bench.pull(bench.model(Q4))
        await bench.pull(bench.model(Q4), do_not_upgrade=True)
        with pytest.raises(Offline):
            await bench.pull(bench.model("o/r-GGUF:Q8_0"), do_not_upgrade=True)
    assert len(requests_of(hub_url)) == asked


async def test_other_registries_are_refused_in_words(bench: Bench) -> None:
    with pytest.raises(UnsupportedRegistry, match="ModelScope"):
        await bench.pull(bench.model(Q4, source="modelscope"))


async def test_wrong_bytes_do_not_enter_the_cache(bench: Bench, hub_url: str) -> None:
    set_faults(hub_url, {"path": "*", "kind": "wrong"})
    with pytest.raises(DamagedFile, match="SHA-256"):
        await bench.pull(bench.model(Q4))
    assert not [name for name in tree(bench.hub.cache_dir) if "blobs" in name]


async def test_a_small_file_is_verified_too(bench: Bench, hub_url: str) -> None:
    set_faults(hub_url, {"path": "*/config.json", "kind": "wrong", "times": 1})
    with pytest.raises(DamagedFile, match="git"):
        await bench.pull(bench.model(Q4))


async def test_a_wrong_beginning_is_replaced(bench: Bench, hub_url: str) -> None:
    """What an interrupted download left need not be right."""
    set_faults(hub_url, {"path": "*.gguf", "kind": "stall", "after": 1_000_000, "times": 1})
    spec = bench.model(Q4)
    cache = bench.hub.cache_dir
    async with asyncio.TaskGroup() as group:
        pull = group.create_task(bench.pull(spec))
        await until(lambda: any(p.stat().st_size == 1_000_000 for p in partials(cache)))
        pull.cancel()
    await bench.downloads.cancel(spec)
    partials(cache)[0].write_bytes(b"x" * 1_000_000)
    await bench.pull(spec)
    assert bench.store.files(spec) is not None


async def test_a_file_that_is_no_gguf_is_refused(bench: Bench, hub_root: Path) -> None:
    write_repository(hub_root, "o/bad", {"bad-Q8_0.gguf": b"<html>not a model</html>"})
    with pytest.raises(DamagedFile, match="GGUF"):
        await bench.pull(bench.model("o/bad:Q8_0"))
    assert not [name for name in tree(bench.hub.cache_dir) if "blobs" in name]


async def test_a_damaged_file_is_noticed_and_fetched_again(bench: Bench) -> None:
    spec = bench.model(Q4)
    await bench.pull(spec)
    files = bench.store.files(spec)
    assert files is not None
    blob = files["main"][0].resolve()
    blob.write_bytes(b"nonsense" + blob.read_bytes()[8:])
    assert bench.store.files(spec) is None
    assert "damaged" in bench.store.missing(spec)
    await bench.pull(spec)
    assert bench.store.files(spec) is not None
    blob.write_bytes(blob.read_bytes()[:-1])
    assert bench.store.files(spec) is None
    await bench.pull(spec)
    assert bench.store.files(spec) is not None


async def test_a_disk_that_fills_up(bench: Bench, hub_url: str, tmp_path: Path) -> None:
    """The kernel refuses to let a file grow: the error has words, and nothing is half there."""
    cache = bench.hub.cache_dir
    arguments = [hub_url, str(cache), str(tmp_path / "other"), Q4, "1500000"]
    ended = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "tests.checkpoints.pull_program", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 1
    assert ended.stdout.startswith("out-of-disk The disk is full.")
    assert bench.store.files(bench.model(Q4)) is None
    (partial,) = partials(cache)
    assert partial.stat().st_size == 1_500_000
    await bench.pull(bench.model(Q4))
    assert bench.store.files(bench.model(Q4)) is not None


def test_what_cannot_fit_is_not_begun(tmp_path: Path) -> None:
    file = RepoFile("huge-Q4_0.gguf", 10**18, sha256="a" * 64)
    listing = RepoListing("o/huge", "c" * 40, (file,))
    with pytest.raises(OutOfDisk) as caught:
        _check_room(tmp_path / "not" / "yet", [_Errand(listing, file)])
    assert caught.value.facts["needed_bytes"] == 10**18
    assert isinstance(caught.value.facts["free_bytes"], int)
    # What is here already is not needed again.
    partial = tmp_path / "models--o--huge" / "blobs" / f"{'a' * 64}.incomplete"
    partial.parent.mkdir(parents=True)
    with partial.open("wb") as sparse:
        sparse.truncate(10**12)
    with pytest.raises(OutOfDisk) as caught:
        _check_room(tmp_path, [_Errand(listing, file)])
    assert caught.value.facts["needed_bytes"] == 10**18 - 10**12


async def test_a_cache_that_cannot_be_written(bench_at: Any, hub_url: str, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file, where a directory should be")
    async with bench_at(hub_url) as bench:
        with pytest.raises(CheckpointError, match="hub cache"):
            await bench.pull(bench.model(Q4))


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


# ---- one cache, several tools


async def test_huggingface_hub_finds_what_we_fetched(bench: Bench, hub_url: str) -> None:
    from huggingface_hub import hf_hub_download

    await bench.pull(bench.model(Q4))
    count = len(downloads_of(hub_url))
    there = await asyncio.to_thread(
        hf_hub_download, "o/r-GGUF", Q4_FILE, cache_dir=bench.hub.cache_dir, endpoint=hub_url
    )
    offline = await asyncio.to_thread(
        hf_hub_download,
        "o/r-GGUF",
        Q4_FILE,
        cache_dir=bench.hub.cache_dir,
        endpoint=hub_url,
        local_files_only=True,
    )
    files = bench.store.files(bench.model(Q4))
    assert files is not None
    assert Path(there) == Path(offline) == files["main"][0]
    assert len(downloads_of(hub_url)) == count


async def test_we_find_what_huggingface_hub_fetched(bench: Bench, hub_url: str) -> None:
    from huggingface_hub import snapshot_download

    await asyncio.to_thread(
        snapshot_download, "o/r-GGUF", cache_dir=bench.hub.cache_dir, endpoint=hub_url
    )
    count = len(downloads_of(hub_url))
    spec = bench.model(Q4)
    assert bench.store.files(spec) is not None
    assert bench.store.files(bench.model("o/r-GGUF", recipe="whole")) is not None
    await bench.pull(spec)
    assert len(downloads_of(hub_url)) == count


async def test_a_whole_repository(bench: Bench, hub_root: Path) -> None:
    write_repository(
        hub_root,
        "o/folder",
        {
            "config.json": b"{}",
            "model.safetensors": b"weights",
            "onnx/model.onnx": b"more",
            ".gitattributes": b"*.bin filter=lfs",
        },
    )
    spec = bench.model("o/folder", recipe="whole")
    await bench.pull(spec)
    files = bench.store.files(spec)
    assert files is not None
    (snapshot,) = files["main"]
    assert sorted(path.relative_to(snapshot).as_posix() for path in snapshot.rglob("*.*")) == [
        "config.json",
        "model.safetensors",
        "onnx/model.onnx",
    ]
    (snapshot / "onnx/model.onnx").unlink()
    assert bench.store.files(spec) is None
    assert "onnx/model.onnx" in bench.store.missing(spec)


async def test_a_sharded_model(bench: Bench, hub_root: Path) -> None:
    parts = {f"Q4_K_M/s-Q4_K_M-0000{i}-of-00003.gguf": gguf(2000, i) for i in (1, 2, 3)}
    write_repository(hub_root, "o/sharded", {**parts, "s-Q8_0.gguf": gguf(100)})
    spec = bench.model("o/sharded:q4_k_m")
    await bench.pull(spec)
    files = bench.store.files(spec)
    assert files is not None
    assert [path.name for path in files["main"]] == [path[7:] for path in parts]
    files["main"][1].unlink()
    assert bench.store.files(spec) is None


# ---- what a repository offers


async def test_variants(bench: Bench) -> None:
    offered = await bench.downloads.variants("o/r-GGUF")
    assert offered == {
        "checkpoint": "o/r-GGUF",
        "source": "huggingface",
        "recipe": "gguf",
        "repo_kind": "gguf",
        "suggested_name": "r-GGUF",
        "suggested_labels": ["vision", "chat"],
        "mmproj_files": ["mmproj-F16.gguf"],
        "draft_files": [],
        "variants": [
            {
                "name": name,
                "primary_file": f"r-{name}.gguf",
                "files": [f"r-{name}.gguf"],
                "sharded": False,
                "size_bytes": size,
            }
            for name, size in (("Q4_K_M", BIG), ("Q8_0", 5000))
        ],
    }
    page = await bench.downloads.variants("https://huggingface.co/o/r-GGUF", "hf")
    assert page == offered


async def test_variants_of_other_kinds(bench_at: Any, hub_url: str, hub_root: Path) -> None:
    write_repository(hub_root, "o/npu", {"genai_config.json": b"{}", "model.onnx": b"123"})
    write_repository(hub_root, "o/Team", {"Team.json": b'{"components": ["a", "b"], "size": 3}'})
    write_repository(hub_root, "o/nothing", {"README.md": b"#"})
    kinds = {"onnx-ryzenai": "whole", "collection": "team"}
    async with bench_at(hub_url, kinds=kinds) as bench:
        npu = await bench.downloads.variants("o/npu")
        assert (npu["recipe"], npu["repo_kind"]) == ("whole", "onnx-ryzenai")
        assert [variant["name"] for variant in npu["variants"]] == ["default"]
        team = await bench.downloads.variants("o/Team")
        assert (team["variants"], team["component_count"], team["size"]) == ([], 2, 3)
        with pytest.raises(CheckpointError, match="no GGUF"):
            await bench.downloads.variants("o/nothing")
    async with bench_at(hub_url) as bench:
        with pytest.raises(CheckpointError, match="onnx-ryzenai"):
            await bench.downloads.variants("o/npu")


async def test_variants_of_what_cannot_be_asked(bench: Bench) -> None:
    with pytest.raises(MalformedRequest):
        await bench.downloads.variants("no-owner")
    with pytest.raises(MalformedRequest):
        await bench.downloads.variants("https://huggingface.co/o/r-GGUF", "modelscope")
    with pytest.raises(UnsupportedRegistry):
        await bench.downloads.variants("o/r-GGUF", "modelscope")
    with pytest.raises(NotInRepository):
        await bench.downloads.variants("o/nobody")


# ---- helpers


async def _outcome(work: Coroutine[Any, Any, None]) -> LemonadeError | None:
    try:
        await work
    except LemonadeError as error:
        return error
    return None


def _heads(url: str) -> list[dict[str, Any]]:
    return [asked for asked in requests_of(url) if asked["method"] == "HEAD"]
