"""Versions side by side: which one is used, using another, going back, and removing the rest."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lemonade.core.bundle import Bundle
from lemonade.core.bus import Bus
from lemonade.core.errors import Locked, NoEarlierVersion, NotInstalled, UnsupportedHere
from lemonade.core.events import BundleRemoved, Event
from lemonade.installer import (
    Bundles,
    Installer,
    Versions,
    compile_cache,
    lease,
    make_compile_cache,
)
from lemonade.installer.activation import point, put_to_use, remove, staging_for
from lemonade.installer.pointer import read_pointer
from lemonade.installer.receipts import read_receipt
from lemonade.planning import PinKind, Selection
from lemonade.storage import FileLock
from tests.installer.planting import activated, active, planned, plant, pointing, status
from tests.installer.releases import backend_of
from tests.installer.setting import MACHINE, Setting, wanted

PROJECT = Path(__file__).parents[2]
PATIENCE = 30.0


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    bus = Bus()
    events: list[Event] = []
    bus.subscribe(Event, events.append)
    root = tmp_path / "cache" / "bin"
    environ = {"PATH": os.defpath}
    return Setting(root, environ, bus, events, Bundles(root, environ))


@pytest.fixture
def versions(setting: Setting) -> Versions:
    return Versions(setting.bundles, setting.bus)


@contextmanager
def held_elsewhere(setting: Setting, version: str) -> Iterator[subprocess.Popen[str]]:
    """Another process holds the version."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.installer.holder", str(setting.root), version],
        env={"PATH": os.defpath, "PYTHONPATH": str(PROJECT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


# ---- which version is used


def test_the_pointer_decides_also_against_what_is_wanted(setting: Setting) -> None:
    plant(setting.folder, "1.0")
    plant(setting.folder, "2.0", day=2)
    assert active(setting, "1.0") == "1.0", "without a pointer, what is wanted"
    assert active(setting, "3.0") == "2.0", "or the newest"
    pointing(setting, "1.0")
    assert active(setting, "2.0") == "1.0"
    assert status(setting, "2.0") == (
        "update_required", "1.0", "lemonade backends install tiny:engine"
    )  # fmt: skip
    pointing(setting, "2.0")
    assert active(setting, "1.0") == "2.0"
    assert status(setting, "2.0")[0] == "installed"


def test_a_version_the_operator_names_is_that_one_or_none(setting: Setting) -> None:
    plant(setting.folder, "1.0")
    plant(setting.folder, "2.0")
    pointing(setting, "1.0")
    bundles, spec = setting.bundles, backend_of()
    pinned = bundles.active(wanted(spec, "2.0"))
    assert pinned is not None
    assert pinned.version == "2.0"
    assert bundles.active(wanted(spec, "3.0")) is None


def test_a_pointer_to_what_is_gone_counts_for_nothing(setting: Setting) -> None:
    plant(setting.folder, "1.0")
    pointing(setting, "7.0", "6.0")
    assert active(setting, "1.0") == "1.0"
    assert active(setting, "2.0") == "1.0"


def test_another_gpu_has_other_builds(setting: Setting) -> None:
    plant(setting.folder, "1.0-sm_86", made_for="sm_86")
    plant(setting.folder, "1.0-sm_90", made_for="sm_90")
    pointing(setting, "1.0-sm_86")
    selection = Selection(backend_of(), PinKind.BUILTIN, "1.0-sm_90", "sm_90")
    bundle = setting.bundles.active(selection)
    assert bundle is not None
    assert bundle.version == "1.0-sm_90"


@pytest.mark.parametrize(
    "garbage",
    [
        b"", b"{", b"[]", b"7", b"null", b"\xff\xfe", b'{"schema": 1}', b'{"schema": 2}',
        b'{"schema": 1, "version": "../../etc", "since": "", "chosen": false, "history": []}',
        b'{"schema": 1, "version": "1.0", "since": "", "chosen": false, "history": "2.0"}',
        b'{"schema": 1, "version": "1.0", "since": "", "chosen": false, "history": [7]}',
        b"[" * 100_000,
    ],
)  # fmt: skip
async def test_a_pointer_that_is_garbage(
    setting: Setting, versions: Versions, garbage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    plant(setting.folder, "1.0")
    plant(setting.folder, "2.0", day=2)
    (setting.folder / "active.json").write_bytes(garbage)
    assert active(setting, "1.0") == "1.0"
    assert "is taken for missing" in caplog.text
    assert status(setting, "1.0")[0] == "installed"
    with pytest.raises(NoEarlierVersion):
        await versions.roll_back(wanted(backend_of()))
    await versions.use(wanted(backend_of()), "2.0")
    assert active(setting, "1.0") == "2.0"


def test_a_pointer_that_is_a_folder(setting: Setting) -> None:
    plant(setting.folder, "1.0")
    (setting.folder / "active.json").mkdir()
    assert active(setting, "2.0") == "1.0"


# ---- activating


def test_what_is_installed_is_used_and_the_one_before_remembered(setting: Setting) -> None:
    for version in ("1.0", "2.0", "3.0", "1.0"):
        if version in setting.names():
            point(planned(setting, backend_of(version)))
        else:
            activated(setting, version)
        assert active(setting, "9.9") == version
    pointer = read_pointer(setting.folder)
    assert pointer is not None
    assert (pointer.version, pointer.history) == ("1.0", ("3.0", "2.0"))
    assert planned(setting, backend_of("2.0")).keeps == ("1.0", "3.0")


def test_what_was_there_without_a_pointer_is_the_way_back(setting: Setting) -> None:
    plant(setting.folder, "0.8", day=3)
    plant(setting.folder, "0.9", day=2)
    activated(setting, "1.0")
    pointer = read_pointer(setting.folder)
    assert pointer is not None
    assert pointer.history == ("0.8",)


def test_a_pin_does_not_move_the_pointer(setting: Setting) -> None:
    activated(setting, "1.0")
    spec = backend_of("1.0")
    activated(setting, "2.0", planned(setting, spec, pin="2.0"))
    assert active(setting, "1.0") == "1.0"
    pinned = setting.bundles.active(wanted(spec, "2.0"))
    assert pinned is not None
    assert pinned.version == "2.0"


def test_the_same_version_is_not_replaced_under_an_engine(setting: Setting) -> None:
    activated(setting, "1.0")
    bundle = setting.bundles.active(wanted(backend_of()))
    assert bundle is not None
    held = lease(bundle)
    assert held is not None
    with pytest.raises(Locked, match=r"tiny:engine 1\.0 is used by a running engine"):
        again(setting)
    assert lease(bundle) is not None, "it is still there"
    held.release()


def again(setting: Setting) -> None:
    """Build the version anew beside the one that is there."""
    other = Setting(
        setting.root.parent / "other", setting.environ, setting.bus, [], setting.bundles
    )
    staging = staging_for(setting.folder / "1.0")
    plant(other.folder, "1.0").rename(staging)
    receipt = read_receipt(staging)
    assert receipt is not None
    put_to_use(receipt, staging, planned(setting, backend_of("1.0")))


def test_the_same_version_is_replaced_in_one_step(setting: Setting) -> None:
    activated(setting, "1.0")
    (setting.folder / "1.0" / "old").touch()
    again(setting)
    assert setting.names() == ["1.0"]
    assert not (setting.folder / "1.0" / "old").exists()
    assert active(setting) == "1.0"


# ---- using another one, and going back


async def test_using_another_version(setting: Setting, versions: Versions) -> None:
    plant(setting.folder, "1.0")
    plant(setting.folder, "2.0", day=2)
    pointing(setting, "2.0", "0.9")
    bundle = await versions.use(wanted(backend_of("2.0")), "1.0")
    assert bundle.version == "1.0"
    assert active(setting, "2.0") == "1.0"
    found = setting.bundles.status(wanted(backend_of("2.0")), MACHINE)
    assert (found.state, found.action) == (
        "update_available", "lemonade backends use tiny:engine@2.0"
    )  # fmt: skip
    assert found.message == "1.0 was chosen instead of 2.0."
    assert status(setting, "3.0")[2] == "lemonade backends install tiny:engine"
    await versions.use(wanted(backend_of("2.0")), "2.0")
    pointer = read_pointer(setting.folder)
    assert pointer is not None
    assert (pointer.chosen, pointer.history) == (False, ("1.0", "0.9"))
    assert status(setting, "2.0")[0] == "installed"


async def test_a_version_may_be_named_by_its_tag(setting: Setting, versions: Versions) -> None:
    plant(setting.folder, "1.0-sm_86", made_for="sm_86")
    plant(setting.folder, "2.0-sm_86", made_for="sm_86", day=2)
    plant(setting.folder, "1.0-sm_90", made_for="sm_90")
    selection = Selection(backend_of(), PinKind.BUILTIN, "2.0-sm_86", "sm_86")
    assert (await versions.use(selection, "1.0")).version == "1.0-sm_86"
    assert (await versions.use(selection, "2.0-sm_86")).version == "2.0-sm_86"
    with pytest.raises(UnsupportedHere, match="another GPU"):
        await versions.use(selection, "1.0-sm_90")
    with pytest.raises(NotInstalled) as caught:
        await versions.use(selection, "3.0")
    assert "lemonade backends install tiny:engine@3.0" in caught.value.remedy


async def test_no_version_leads_out_of_the_folder(setting: Setting, versions: Versions) -> None:
    plant(setting.folder, "1.0")
    plant(setting.root / "elsewhere", "1.0")
    for name in ("../../elsewhere/1.0", ".", "..", "", "1.0/", "./1.0"):
        with pytest.raises(NotInstalled):
            await versions.use(wanted(backend_of()), name)


async def test_going_back(setting: Setting, versions: Versions) -> None:
    for version in ("1.0", "2.0", "3.0"):
        activated(setting, version)
    want = wanted(backend_of("3.0"))
    assert (await versions.roll_back(want)).version == "2.0"
    assert active(setting, "3.0") == "2.0"
    assert status(setting, "3.0")[0] == "update_available"
    assert (await versions.roll_back(want)).version == "1.0"
    with pytest.raises(NoEarlierVersion) as caught:
        await versions.roll_back(want)
    assert "lemonade backends show tiny:engine" in caught.value.remedy
    point(planned(setting, backend_of("3.0")))
    assert status(setting, "3.0")[0] == "installed"
    assert (await versions.roll_back(want)).version == "1.0"


async def test_going_back_to_what_is_still_there(setting: Setting, versions: Versions) -> None:
    plant(setting.folder, "1.0")
    plant(setting.folder, "2.0", made_for="sm_86")
    (plant(setting.folder, "3.0") / "tree" / "bin" / "tiny-server").unlink()
    plant(setting.folder, "4.0")
    pointing(setting, "4.0", "9.0", "3.0", "2.0", "1.0")
    assert (await versions.roll_back(wanted(backend_of("4.0")))).version == "1.0"


async def test_nothing_changes_while_it_is_installed(setting: Setting, versions: Versions) -> None:
    plant(setting.folder, "1.0")
    want = wanted(backend_of())
    with FileLock(setting.folder / ".lock"):
        with pytest.raises(Locked):
            await versions.use(want, "1.0")
        with pytest.raises(Locked):
            await versions.roll_back(want)
        (row,) = await versions.prune(want, dry_run=False)
        assert "just now" in row.kept_because


# ---- removing


async def test_pruning(setting: Setting, versions: Versions) -> None:
    for version in ("1.0", "2.0", "3.0", "4.0"):
        activated(setting, version)
    (setting.folder / ".staging-9.0-abcdef").mkdir()
    (setting.folder / ".trash-abcdef").mkdir()
    (setting.folder / "left").mkdir()
    downloads = setting.root / ".downloads" / "tiny" / "engine"
    downloads.mkdir(parents=True)
    (downloads / "x.partial").write_bytes(b"12345")
    want = wanted(backend_of("4.0"))
    planned_removal = await versions.prune(want, dry_run=True)
    assert len(setting.names()) == 7
    done = await versions.prune(want, dry_run=False)
    assert done == planned_removal
    gone = {(row.kind, row.name) for row in done if not row.kept_because}
    assert gone == {
        ("version", "1.0"), ("version", "2.0"), ("leftover", ".staging-9.0-abcdef"),
        ("leftover", ".trash-abcdef"), ("leftover", "left"), ("download", "engine"),
    }  # fmt: skip
    kept = {row.name: row.kept_because for row in done if row.kept_because}
    assert kept == {"4.0": "it is active", "3.0": "it is the way back"}
    assert next(row.size_bytes for row in done if row.kind == "download") == 5
    assert all(row.size_bytes > 200 for row in done if row.kind == "version")
    assert setting.names() == ["3.0", "4.0"]
    assert not downloads.exists()
    pointer = read_pointer(setting.folder)
    assert pointer is not None
    assert pointer.history == ("3.0",)
    removed = {event.version for event in setting.events if isinstance(event, BundleRemoved)}
    assert removed == {"1.0", "2.0"}


async def test_what_a_setting_names_is_not_pruned(setting: Setting, versions: Versions) -> None:
    for version in ("1.0", "2.0"):
        plant(setting.folder, version)
    activated(setting, "3.0")
    await versions.prune(wanted(backend_of("3.0"), "1.0"), dry_run=False)
    assert setting.names() == ["1.0", "2.0", "3.0"], "2.0 is the way back"


async def test_downloads_of_unknown_backends_are_pruned(
    setting: Setting, versions: Versions
) -> None:
    for name in ("tiny/engine", "tiny/gone"):
        (setting.root / ".downloads" / name).mkdir(parents=True)
    (row,) = await versions.prune_shared((backend_of(),), dry_run=False)
    assert (row.backend, row.kind) == ("tiny:gone", "download")
    assert [path.name for path in (setting.root / ".downloads" / "tiny").iterdir()] == ["engine"]


async def test_what_versions_that_are_gone_have_compiled_is_pruned(
    setting: Setting, versions: Versions
) -> None:
    spec = backend_of("2.0")
    activated(setting, "2.0")
    folders = {}
    for version in ("1.0", "2.0"):
        bundle = Bundle(spec.backend_id, version, setting.folder / version, ("/engine",))
        folders[version] = compile_cache(setting.root, bundle)
    own = Bundle(spec.backend_id, "9", Path("/opt"), ("/opt/engine",), removable=False)
    folders["own"] = compile_cache(setting.root, own)
    for folder in folders.values():
        make_compile_cache(folder, {"CACHE": f"{folder}/x"})
        (folder / "kernel").write_bytes(b"12345")
    (row,) = await versions.prune_shared((spec,), dry_run=True)
    assert (row.kind, row.name, row.size_bytes) == ("compiled", folders["1.0"].name, 5)
    assert folders["1.0"].exists()
    assert await versions.prune_shared((spec,), dry_run=False) == (row,)
    assert [name for name, folder in folders.items() if folder.exists()] == ["2.0", "own"]
    assert folders["2.0"].stat().st_mode & 0o777 == 0o700


def test_no_folder_is_made_for_an_engine_that_compiles_nothing(tmp_path: Path) -> None:
    make_compile_cache(tmp_path / "compile" / "x", {"HOME": "/home/me"})
    assert not (tmp_path / "compile").exists()


@pytest.mark.slow
async def test_nothing_that_runs_is_removed(setting: Setting, versions: Versions) -> None:
    for version in ("1.0", "2.0", "3.0"):
        activated(setting, version)
    spec = backend_of("3.0")
    async with Installer(setting.bundles, setting.bus, setting.environ) as installer:
        with held_elsewhere(setting, "1.0") as holder:
            done = await versions.prune(wanted(spec), dry_run=False)
            kept = {row.name: row.kept_because for row in done if row.kept_because}
            assert kept["1.0"] == "a running engine uses it"
            with pytest.raises(Locked, match=r"tiny:engine 1\.0 is used") as caught:
                await installer.uninstall(spec)
            assert caught.value.facts["version"] == "1.0"
            assert setting.names() == ["1.0", "2.0", "3.0"]
            assert active(setting, "3.0") == "3.0"
            found = {one.name: one for one in await versions.installed(wanted(spec))}
            assert [name for name, one in found.items() if one.in_use] == ["1.0"]
            assert found["3.0"].active
            assert found["2.0"].last_good
            holder.kill()
            holder.wait(PATIENCE)
        await versions.prune(wanted(spec), dry_run=False)
        assert setting.names() == ["2.0", "3.0"], "a killed server holds nothing"
        assert await installer.uninstall(spec)
    assert setting.names() == []
    assert not (setting.folder / "active.json").exists()


async def test_what_a_kept_engine_runs_is_not_removed(setting: Setting) -> None:
    """Nobody holds it; whoever knows better is asked once it would be ours alone."""
    for version in ("1.0", "2.0", "3.0"):
        activated(setting, version)
    link = setting.root.parent / "link"
    link.symlink_to(setting.root)
    users = {str((setting.folder / "1.0").resolve()): "Tiny (pid 12)"}
    spec, bundles = backend_of("3.0"), Bundles(link, setting.environ)
    versions = Versions(bundles, setting.bus, unheld=lambda: users)
    rows = await versions.prune(wanted(spec), dry_run=False)
    kept = {row.name: row.kept_because for row in rows if row.kept_because}
    assert kept["1.0"] == "a running engine uses it: Tiny (pid 12)"
    found = await versions.installed(wanted(spec))
    assert [one.name for one in found if one.in_use] == ["1.0"]
    async with Installer(bundles, setting.bus, setting.environ, unheld=lambda: users) as installer:
        with pytest.raises(Locked, match=r"1\.0 is used by a running engine: Tiny \(pid 12\)"):
            await installer.uninstall(spec)
        assert setting.names() == ["1.0", "2.0", "3.0"]
        users.clear()
        await versions.prune(wanted(spec), dry_run=False)
        assert setting.names() == ["2.0", "3.0"]
        assert await installer.uninstall(spec)


def test_who_cannot_be_told_is_not_overruled(setting: Setting) -> None:
    def blind() -> dict[str, str]:
        raise PermissionError(13, "Permission denied")

    root = plant(setting.folder, "1.0")
    with pytest.raises(PermissionError):
        remove(backend_of().backend_id, setting.folder, "1.0", root, blind)
    assert setting.names() == ["1.0"]


def test_what_was_removed_cannot_be_held(setting: Setting) -> None:
    plant(setting.folder, "1.0")
    bundle = setting.bundles.active(wanted(backend_of()))
    assert bundle is not None
    (setting.folder / "1.0").rename(setting.folder / ".trash")
    assert lease(bundle) is None


def test_what_a_pointer_looks_like(setting: Setting) -> None:
    pointing(setting, "2.0", "1.0", chosen=True)
    assert json.loads((setting.folder / "active.json").read_text()) == {
        "schema": 1,
        "version": "2.0",
        "since": "2026-01-01T00:00:00+00:00",
        "chosen": True,
        "history": ["1.0"],
    }
