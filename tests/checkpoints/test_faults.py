"""Whatever is wrong with hub, network, content or disk is an error in words."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lemonade.checkpoints.downloads import _check_room, _Errand
from lemonade.core.errors import (
    CheckpointError,
    DamagedFile,
    GatedRepository,
    HubUnreachable,
    NotInRepository,
    Offline,
    OutOfDisk,
    UnsupportedRegistry,
)
from lemonade.planning.checkpoint import RepoFile, RepoListing
from tests.checkpoints.conftest import ROOT, Bench, until
from tests.checkpoints.examples import Q4, partials, tree
from tests.checkpoints.hub_fixture import (
    requests_of,
    running_hub,
    set_faults,
    write_repository,
)

pytestmark = pytest.mark.usefixtures("repository")


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
