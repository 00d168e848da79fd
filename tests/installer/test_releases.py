"""Installing from a host of releases: real archives, real programs, a real server with faults."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lemonade.catalog import BackendSpec
from lemonade.core.bus import Bus
from lemonade.core.errors import (
    ChecksumMismatch,
    DownloadFailed,
    NoSpace,
    SetupFailed,
    UnsafeArchive,
)
from lemonade.core.events import BundleInstalled, Event
from lemonade.core.progress import Progress
from lemonade.installer import Bundles, Installer
from lemonade.installer.fetch import Patience
from tests.installer.releases import BROKEN, backend_of, build_archive, contents, publish, split
from tests.installer.setting import MACHINE, Setting, wanted
from tests.programs.release_server import PATIENCE, Releases, serving

pytestmark = pytest.mark.slow

QUICK = Patience(retries=3, first_pause=0.0, silent_within=20.0)
ARCHIVE = "tiny-1.0-linux.tar.gz"


def nobody(_: Progress) -> None:
    """Listen to nothing."""


@pytest.fixture
def releases(tmp_path: Path) -> Iterator[Releases]:
    (tmp_path / "releases").mkdir()
    with serving(tmp_path / "releases") as host:
        yield host


@pytest.fixture
def setting(tmp_path: Path, releases: Releases) -> Setting:
    bus = Bus()
    events: list[Event] = []
    bus.subscribe(Event, events.append)
    root = tmp_path / "cache" / "bin"
    environ = {"PATH": os.defpath, **releases.environ}
    return Setting(root, environ, bus, events, Bundles(root, environ))


def installer(setting: Setting, patience: Patience = QUICK) -> Installer:
    return Installer(setting.bundles, setting.bus, setting.environ, patience=patience)


async def install(setting: Setting, spec: BackendSpec, patience: Patience = QUICK) -> list[str]:
    """Install it and run it; what it says."""
    async with installer(setting, patience) as one:
        bundle = await one.install(setting.plan(spec), nobody)
    assert setting.bundles.active(wanted(spec)) == bundle
    assert not (setting.root / ".downloads" / "tiny" / "engine").exists()
    said = subprocess.run([*bundle.argv, "hello"], capture_output=True, text=True, check=True)
    return said.stdout.split()


async def failing(setting: Setting, spec: BackendSpec, kind: type[Exception], words: str) -> None:
    """It fails, with a remedy, and nothing is visible."""
    async with installer(setting) as one:
        with pytest.raises(kind, match=words) as caught:
            await one.install(setting.plan(spec), nobody)
    assert caught.value.remedy  # type: ignore[attr-defined]
    assert setting.names() == []
    assert setting.bundles.active(wanted(spec)) is None
    assert setting.bundles.status(wanted(spec), MACHINE).state == "installable"


async def test_a_bundle_appears_complete(setting: Setting, releases: Releases) -> None:
    archive = publish(releases.folder)
    spec = backend_of()
    assert setting.bundles.status(wanted(spec), MACHINE).state == "installable"
    seen: list[Progress] = []
    async with installer(setting) as one:
        bundle = await one.install(setting.plan(spec), seen.append)
    assert setting.bundles.active(wanted(spec)) == bundle
    assert setting.bundles.status(wanted(spec), MACHINE).state == "installed"
    assert bundle.argv == (str(bundle.root / "tree" / "bin" / "tiny-server"),)
    said = subprocess.run(bundle.argv, capture_output=True, text=True, check=True)
    assert said.stdout == "tiny 1.0\n"
    receipt = json.loads((bundle.root / "receipt.json").read_text())
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    (asset,) = receipt["assets"]
    assert (asset["name"], asset["sha256"], asset["size"]) == (
        ARCHIVE,
        digest,
        archive.stat().st_size,
    )
    listed = (bundle.root / "files.json").read_bytes()
    assert receipt["files_sha256"] == hashlib.sha256(listed).hexdigest()
    expected = {
        f"tree/{name}": [len(data), hashlib.sha256(data).hexdigest()]
        for name, data in contents().items()
    }
    assert json.loads(listed) == expected
    assert sorted(p.name for p in bundle.root.iterdir()) == ["files.json", "receipt.json", "tree"]
    assert setting.names() == ["1.0"]
    assert setting.events == [BundleInstalled(spec.backend_id, "1.0")]
    names = list(dict.fromkeys(frame.file for frame in seen))
    fetched = f"fetch {ARCHIVE}"
    assert names == ["find release", fetched, f"unpack {ARCHIVE}", "check", "tiny:engine"]
    assert max(f.bytes_downloaded for f in seen if f.file == fetched) == archive.stat().st_size
    assert {frame.total_files for frame in seen[1:-1]} == {4}
    assert seen[-1].complete


@pytest.mark.parametrize("ending", [".tar.gz", ".tar.xz", ".tar.bz2", ".zip", ".tgz"])
async def test_kinds_of_archives(setting: Setting, releases: Releases, ending: str) -> None:
    publish(releases.folder, ending=ending)
    assert await install(setting, backend_of(asset=f"tiny-{{version}}-linux{ending}")) == [
        "tiny", "1.0", "hello"
    ]  # fmt: skip
    tree = setting.folder / "1.0" / "tree"
    assert stat.S_IMODE((tree / "bin" / "tiny-server").stat().st_mode) == 0o755
    assert stat.S_IMODE((tree / "share" / "notes.txt").stat().st_mode) == 0o644


async def test_a_star_in_the_name(setting: Setting, releases: Releases) -> None:
    archive = publish(releases.folder)
    assert (await install(setting, backend_of(asset="tiny-*-linux.tar.gz")))[0] == "tiny"
    archive.with_name("tiny-1.0-old-linux.tar.gz").write_bytes(b"")
    spec = backend_of(asset="tiny-*-linux.tar.gz")
    async with installer(setting) as one:
        with pytest.raises(DownloadFailed, match="Exactly one file"):
            await one.install(setting.plan(spec), nobody, force=True)
    assert setting.bundles.active(wanted(spec)) is not None, "what was there still is"


async def test_an_archive_in_parts(setting: Setting, releases: Releases) -> None:
    parts = split(publish(releases.folder), 3)
    seen: list[Progress] = []
    async with installer(setting) as one:
        bundle = await one.install(setting.plan(backend_of(parts=True)), seen.append)
    assert subprocess.run(bundle.argv, check=True, capture_output=True).stdout == b"tiny 1.0\n"
    assert releases.fetched() == ["tiny-1.0-linux.partcount", *(part.name for part in parts)]
    assert seen[-2].total_files == 6


async def test_what_may_be_in_parts_may_be_whole(setting: Setting, releases: Releases) -> None:
    publish(releases.folder)
    assert (await install(setting, backend_of(parts=True)))[0] == "tiny"
    assert releases.fetched() == [ARCHIVE]


async def test_parts_are_pinned_as_a_whole(setting: Setting, releases: Releases) -> None:
    archive = publish(releases.folder)
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    split(archive, 2)
    spec = backend_of(parts=True, sha256={ARCHIVE: "0" * 64})
    await failing(setting, spec, ChecksumMismatch, "not the file that was pinned")
    await install(setting, backend_of(parts=True, sha256={ARCHIVE: digest}))


@pytest.mark.parametrize("count", ["0", "100", "two", ""])
async def test_a_strange_number_of_parts(setting: Setting, releases: Releases, count: str) -> None:
    archive = publish(releases.folder)
    split(archive, 2)
    archive.with_name("tiny-1.0-linux.partcount").write_text(count)
    await failing(setting, backend_of(parts=True), DownloadFailed, "in how many parts")


async def test_a_pin_is_above_what_the_host_says(setting: Setting, releases: Releases) -> None:
    publish(releases.folder)
    spec = backend_of(sha256={ARCHIVE: "0" * 64})
    await failing(setting, spec, ChecksumMismatch, "SHA-256")
    assert not any("api" in one["path"] for one in releases.seen), "nobody needs to be asked"


async def test_without_a_digest_the_first_is_believed(
    setting: Setting, releases: Releases
) -> None:
    releases.digests = False
    publish(releases.folder)
    spec = backend_of()
    await install(setting, spec)
    publish(releases.folder, program="#!/bin/sh\necho another\n")
    async with installer(setting) as one:
        with pytest.raises(ChecksumMismatch):
            await one.install(setting.plan(spec), nobody, force=True)
    bundle = setting.bundles.active(wanted(spec))
    assert bundle is not None
    said = subprocess.run(bundle.argv, capture_output=True, check=True)
    assert said.stdout == b"tiny 1.0\n", "the old one works"


async def test_an_api_that_is_not_there(setting: Setting, releases: Releases) -> None:
    releases.api = False
    publish(releases.folder)
    await install(setting, backend_of())
    spec = backend_of("2.0", asset="tiny-*.tar.gz")
    async with installer(setting) as one:
        with pytest.raises(DownloadFailed, match="no release"):
            await one.install(setting.plan(spec), nobody)


@pytest.mark.parametrize(
    ("faults", "tries"),
    [
        ([["cut", 2]], 3),
        ([["stall", 1]], 2),
        ([["status:429", 2]], 3),
        ([["status:503", 3]], 4),
        ([["cut", 1], ["no-range", 1]], 2),
        ([["cut", 1], ["corrupt", 1]], 2),
    ],
    ids=str,
)
async def test_faults_that_pass(
    setting: Setting, releases: Releases, faults: list[list[object]], tries: int
) -> None:
    publish(releases.folder, bulk=8 << 20)  # what is still in buffers is lost with the line
    releases.faults = {ARCHIVE: faults}
    patience = Patience(retries=3, first_pause=0.0, silent_within=0.2)
    assert (await install(setting, backend_of(), patience))[0] == "tiny"
    contents_asked = [one for one in releases.seen if one["storage"]]
    assert len(contents_asked) == tries
    if faults[0][0] in ("cut", "stall"):
        assert all(one["range"] for one in contents_asked[1:]), "it goes on where it was"


@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [
        ("corrupt", ChecksumMismatch, "SHA-256"),
        ("status:404", DownloadFailed, "has no tiny"),
        ("status:403", DownloadFailed, "refuses"),
        ("status:500", DownloadFailed, "answers 500"),
        ("elsewhere", DownloadFailed, "not encrypted"),
        ("nowhere", DownloadFailed, "what is to be fetched is none"),
    ],
)
async def test_faults_that_stay(
    setting: Setting, releases: Releases, fault: str, kind: type[Exception], words: str
) -> None:
    publish(releases.folder)
    releases.faults = {ARCHIVE: [[fault, -1]]}
    await failing(setting, backend_of(), kind, words)
    releases.faults = {}
    await install(setting, backend_of())


async def test_releases_and_files_that_are_not_there(setting: Setting, releases: Releases) -> None:
    await failing(setting, backend_of(), DownloadFailed, "has no file")
    publish(releases.folder)
    await failing(setting, backend_of(asset="x.tar.gz"), DownloadFailed, "has no file x.tar.gz")


async def test_nobody_answers(setting: Setting) -> None:
    setting.environ |= {
        "LEMONADE_GITHUB_URL": "http://127.0.0.1:9",
        "LEMONADE_GITHUB_API_URL": "http://127.0.0.1:9",
    }
    await failing(setting, backend_of(), DownloadFailed, "could not be fetched")


async def test_plain_http_elsewhere_is_refused(setting: Setting) -> None:
    setting.environ["LEMONADE_GITHUB_URL"] = "http://mirror.invalid"
    spec = backend_of(sha256={ARCHIVE: "0" * 64})
    await failing(setting, spec, DownloadFailed, "LEMONADE_ALLOW_HTTP|not encrypted")


async def test_the_token_goes_to_the_host_alone(setting: Setting, releases: Releases) -> None:
    setting.environ["GITHUB_TOKEN"] = "sesame"
    publish(releases.folder)
    await install(setting, backend_of())
    for one in releases.seen:  # storage is localhost, the host 127.0.0.1
        assert one["token"] == ("" if one["path"].startswith("/storage") else "Bearer sesame")


async def test_too_large_for_this_disk(setting: Setting, releases: Releases) -> None:
    publish(releases.folder)
    releases.wrong_size = 10**15
    await failing(setting, backend_of(), NoSpace, "needs about")
    assert releases.fetched() == [], "not one byte"


async def test_a_program_that_does_not_start(setting: Setting, releases: Releases) -> None:
    publish(releases.folder)
    await install(setting, backend_of())
    publish(releases.folder, "2.0", BROKEN)
    async with installer(setting) as one:
        with pytest.raises(SetupFailed, match=r"needs the library libx\.so\.1") as caught:
            await one.install(setting.plan(backend_of("2.0")), nobody)
    assert caught.value.facts["exit_status"] == 127
    assert setting.names() == ["1.0"]
    assert setting.bundles.active(wanted(backend_of())) is not None
    assert setting.bundles.status(wanted(backend_of("2.0")), MACHINE).state == "update_required"


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"a/tiny-server": b"x", "b/tiny-server": b"x"}, "in several places: a/tiny"),
        ({"a/other": b"x", "b": b"y"}, "is missing"),
        ({}, "is empty"),
    ],
)
async def test_archives_without_the_program(
    setting: Setting, releases: Releases, files: dict[str, bytes], words: str
) -> None:
    build_archive(releases.folder / "somebody" / "tiny" / "1.0" / ARCHIVE, files)
    await failing(setting, backend_of(), SetupFailed, words)
    assert not (setting.root / ".downloads" / "tiny" / "engine").exists()


async def test_a_program_that_lost_its_mode(setting: Setting, releases: Releases) -> None:
    data = contents()
    files = {"tiny-server": data["bin/tiny-server"], "lib/x": b"x"}
    build_archive(releases.folder / "somebody" / "tiny" / "1.0" / ARCHIVE, files)
    assert (await install(setting, backend_of()))[0] == "tiny"


@pytest.mark.parametrize("cut", [True, False])
async def test_what_is_no_archive(setting: Setting, releases: Releases, *, cut: bool) -> None:
    archive = publish(releases.folder)
    archive.write_bytes(archive.read_bytes()[:-5000] if cut else b"<html>not here</html>")
    await failing(setting, backend_of(), SetupFailed, "cannot be unpacked")


async def test_a_hostile_archive(setting: Setting, releases: Releases) -> None:
    files = {**contents(), "../../../evil": b"x"}
    build_archive(releases.folder / "somebody" / "tiny" / "1.0" / ARCHIVE, files)
    await failing(setting, backend_of(), UnsafeArchive, "leads out")
    assert not list(setting.root.parent.rglob("evil"))


async def test_cancelled_half_way_it_goes_on_there(setting: Setting, releases: Releases) -> None:
    publish(releases.folder)
    releases.faults = {ARCHIVE: [["slow", 1]]}
    async with installer(setting) as one, asyncio.TaskGroup() as group:
        task = group.create_task(one.install(setting.plan(backend_of()), nobody))
        assert await asyncio.to_thread(releases.reached.wait, PATIENCE)
        folder = setting.root / ".downloads" / "tiny" / "engine"

        def some() -> bool:
            return any(p.suffix == ".partial" and p.stat().st_size for p in folder.iterdir())

        async with asyncio.timeout(PATIENCE):
            while not await asyncio.to_thread(some):
                await asyncio.sleep(0.01)
        task.cancel()
    assert setting.names() == []
    assert stat.S_IMODE((setting.root / ".downloads").stat().st_mode) == 0o700
    releases.go.set()
    await install(setting, backend_of())
    assert [one["range"] for one in releases.seen if one["storage"]][-1].startswith("bytes=")


async def test_two_requests_are_one_installation(setting: Setting, releases: Releases) -> None:
    publish(releases.folder)
    releases.faults = {ARCHIVE: [["slow", 1]]}
    late: list[Progress] = []
    async with installer(setting) as one, asyncio.TaskGroup() as group:
        first = group.create_task(one.install(setting.plan(backend_of()), nobody))
        assert await asyncio.to_thread(releases.reached.wait, PATIENCE)
        second = group.create_task(one.install(setting.plan(backend_of()), late.append))
        await asyncio.sleep(0)
        assert late
        releases.go.set()
    assert first.result() == second.result()
    assert releases.fetched() == [ARCHIVE]


async def test_removed_with_all_that_was_fetched(setting: Setting, releases: Releases) -> None:
    publish(releases.folder)
    await install(setting, backend_of())
    leftover = setting.root / ".downloads" / "tiny" / "engine" / "x.partial"
    leftover.parent.mkdir(parents=True)
    leftover.write_bytes(b"x")
    async with installer(setting) as one:
        assert await one.uninstall(backend_of())
    assert setting.names() == []
    assert not leftover.exists()
