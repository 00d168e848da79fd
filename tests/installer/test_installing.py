"""Installing and removing with a real pip, a real index and tiny wheels."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from lemonade.catalog import BackendSpec
from lemonade.core.errors import (
    ChecksumMismatch,
    DownloadFailed,
    Locked,
    SetupFailed,
)
from lemonade.core.events import BundleInstalled, BundleRemoved
from lemonade.core.progress import Progress
from lemonade.storage import FileLock
from tests.installer.index import Index
from tests.installer.setting import MACHINE, Setting, wanted
from tests.installer.wheels import BROKEN, Wheel, backend_of, build_wheel

pytestmark = pytest.mark.slow


def nobody(_: Progress) -> None:
    """Listen to nothing."""


async def test_a_bundle_appears_complete(
    setting: Setting, spec: BackendSpec, wheel: Wheel, index: Index
) -> None:
    seen: list[Progress] = []
    async with setting.installer() as installer:
        bundle = await installer.install(setting.plan(spec), seen.append)
    assert setting.bundles.active(wanted(spec)) == bundle
    said = subprocess.run([*bundle.argv, "hello"], capture_output=True, text=True, check=True)
    assert said.stdout == "tinyengine hello\n"
    receipt = json.loads((bundle.root / "receipt.json").read_text())
    assert receipt["backend"] == "tiny:engine"
    assert receipt["packages"] == [
        {
            "name": "tinyengine",
            "version": "1.0",
            "file": wheel.path.name,
            "sha256": wheel.sha256,
        }
    ]
    assert setting.names() == ["1.0"]
    assert sorted(path.name for path in bundle.root.iterdir()) == ["receipt.json", "venv"]
    assert setting.events == [BundleInstalled(spec.backend_id, "1.0")]
    assert index.downloads == [wheel.path.name]
    names = list(dict.fromkeys(frame.file for frame in seen))
    fetched = f"fetch {wheel.path.name}"
    assert names == ["create environment", "fetch", fetched, "install", "check", "tiny:engine"]
    size = wheel.path.stat().st_size
    assert max(f.bytes_downloaded for f in seen if f.file == fetched) == size
    assert seen[-1].complete


async def test_what_is_there_is_not_installed_again(
    setting: Setting, spec: BackendSpec, index: Index
) -> None:
    async with setting.installer() as installer:
        first = await installer.install(setting.plan(spec), nobody)
        seen: list[Progress] = []
        assert await installer.install(setting.plan(spec), seen.append) == first
        assert [frame.complete for frame in seen] == [True]
        assert len(index.downloads) == 1
        await installer.install(setting.plan(spec), nobody, force=True)
        assert len(index.downloads) == 2
    assert setting.names() == ["1.0"]


async def test_a_folder_of_wheels_needs_no_index(
    setting: Setting, spec: BackendSpec, wheel: Wheel, index: Index
) -> None:
    setting.environ["LEMONADE_WHEELS"] = str(wheel.path.parent)
    seen: list[Progress] = []
    async with setting.installer() as installer:
        await installer.install(setting.plan(spec), seen.append)
    assert index.downloads == []
    size = wheel.path.stat().st_size
    assert any(f.bytes_downloaded == f.bytes_total == size for f in seen)


async def test_an_index_on_this_machine_is_not_asked_through_a_proxy(
    setting: Setting, spec: BackendSpec, index: Index
) -> None:
    del setting.environ["NO_PROXY"]
    setting.environ["http_proxy"] = setting.environ["ALL_PROXY"] = "http://127.0.0.1:9"
    async with setting.installer() as installer:
        await installer.install(setting.plan(spec), nobody)
    assert len(index.downloads) == 1


async def test_a_folder_without_the_wheel_leaves_the_index(
    setting: Setting, spec: BackendSpec, tmp_path: Path, index: Index
) -> None:
    (tmp_path / "empty").mkdir()
    setting.environ["LEMONADE_WHEELS"] = str(tmp_path / "empty")
    async with setting.installer() as installer:
        await installer.install(setting.plan(spec), nobody)
    assert len(index.downloads) == 1


async def test_another_file_than_the_pinned_one(setting: Setting, wheel: Wheel) -> None:
    spec = backend_of(wheel, digests={wheel.path.name: "0" * 64})
    async with setting.installer() as installer:
        with pytest.raises(ChecksumMismatch) as caught:
            await installer.install(setting.plan(spec), nobody)
    assert caught.value.remedy
    assert "HASHES" in str(caught.value.facts["last_lines"])
    assert setting.names() == []
    assert setting.bundles.status(wanted(spec), MACHINE).state == "installable"


async def test_no_index_answers(setting: Setting, spec: BackendSpec) -> None:
    setting.environ["LEMONADE_PYPI_URL"] = "http://127.0.0.1:9/simple"
    async with setting.installer() as installer:
        with pytest.raises(DownloadFailed, match="does not answer"):
            await installer.install(setting.plan(spec), nobody)
    assert setting.names() == []


async def test_the_index_has_no_such_file(
    setting: Setting, spec: BackendSpec, wheel: Wheel
) -> None:
    plan = setting.plan(spec)
    wheel.path.unlink()
    async with setting.installer() as installer:
        with pytest.raises(DownloadFailed, match="has no file"):
            await installer.install(plan, nobody)
    assert setting.names() == []


async def test_what_does_not_start_is_not_activated(
    setting: Setting, spec: BackendSpec, wheel: Wheel
) -> None:
    async with setting.installer() as installer:
        before = await installer.install(setting.plan(spec), nobody)
        newer = backend_of(build_wheel(wheel.path.parent, "2.0", BROKEN))
        with pytest.raises(SetupFailed, match="does not start") as caught:
            await installer.install(setting.plan(newer), nobody)
    assert caught.value.facts["last_lines"] == ["a library is missing"]
    assert caught.value.facts["exit_status"] == 3
    assert setting.names() == ["1.0"]
    assert setting.bundles.present(spec) == (before,)
    status = setting.bundles.status(wanted(newer), MACHINE)
    assert (status.state, status.version) == ("update_required", "1.0")
    assert status.message == "1.0 is installed, 2.0 is needed."


async def test_versions_live_side_by_side(
    setting: Setting, spec: BackendSpec, wheel: Wheel
) -> None:
    newer = backend_of(build_wheel(wheel.path.parent, "2.0"))
    async with setting.installer() as installer:
        first = await installer.install(setting.plan(spec), nobody)
        second = await installer.install(setting.plan(newer), nobody)
        assert setting.bundles.active(wanted(newer)) == second
        assert setting.bundles.active(wanted(spec)) == second, "the last one activated"
        assert await installer.install(setting.plan(spec), nobody) == first
        assert setting.bundles.active(wanted(spec)) == first
        assert await installer.uninstall(newer)
    assert setting.names() == []
    assert setting.events[2:] == [
        BundleRemoved(spec.backend_id, "1.0"),
        BundleRemoved(spec.backend_id, "2.0"),
    ]


async def test_uninstalling_what_is_not_there(setting: Setting, spec: BackendSpec) -> None:
    async with setting.installer() as installer:
        assert not await installer.uninstall(spec)
        await installer.install(setting.plan(spec), nobody)
        assert await installer.uninstall(spec)
        assert not await installer.uninstall(spec)
    assert setting.bundles.active(wanted(spec)) is None
    assert setting.bundles.status(wanted(spec), MACHINE).state == "installable"


async def test_uninstalling_what_another_process_installs(
    setting: Setting, spec: BackendSpec
) -> None:
    async with setting.installer() as installer:
        await installer.install(setting.plan(spec), nobody)
        with FileLock(setting.folder / ".lock"), pytest.raises(Locked):
            await installer.uninstall(spec)
    assert setting.bundles.active(wanted(spec)) is not None


async def test_an_environment_whose_python_is_gone(setting: Setting, spec: BackendSpec) -> None:
    async with setting.installer() as installer:
        bundle = await installer.install(setting.plan(spec), nobody)
        python = bundle.root / "venv" / "bin" / "python"
        python.unlink()
        python.symlink_to("/nowhere/python3")
        status = setting.bundles.status(wanted(spec), MACHINE)
        assert (status.state, status.can_uninstall) == ("update_required", True)
        assert "is gone" in status.message
        assert status.action == "lemonade backends install tiny:engine"
        assert setting.bundles.active(wanted(spec)) is None
        assert await installer.install(setting.plan(spec), nobody) == bundle
    assert setting.bundles.status(wanted(spec), MACHINE).state == "installed"


async def test_a_read_only_cache(setting: Setting, spec: BackendSpec) -> None:
    setting.folder.parent.mkdir(parents=True)
    setting.folder.write_text("a file where a folder should be")
    async with setting.installer() as installer:
        with pytest.raises(Exception, match="tiny") as caught:
            await installer.install(setting.plan(spec), nobody)
    assert caught.value.remedy  # type: ignore[attr-defined]


async def test_what_others_put_beside_the_versions_hinders_nobody(
    setting: Setting, spec: BackendSpec, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    async with setting.installer() as installer:
        bundle = await installer.install(setting.plan(spec), nobody)
        bundle.root.rename(elsewhere)
        bundle.root.symlink_to(elsewhere)
        (setting.folder / "notes.txt").write_text("not ours")
        assert setting.bundles.active(wanted(spec)) is not None
        assert await installer.uninstall(spec)
    assert setting.names() == []
    assert (elsewhere / "receipt.json").is_file()


async def test_a_receipt_that_cannot_be_read(setting: Setting, spec: BackendSpec) -> None:
    async with setting.installer() as installer:
        bundle = await installer.install(setting.plan(spec), nobody)
        (bundle.root / "receipt.json").unlink()
        (bundle.root / "receipt.json").mkdir()
        assert setting.bundles.status(wanted(spec), MACHINE).state == "installable"
        assert await installer.install(setting.plan(spec), nobody) == bundle
    assert setting.bundles.status(wanted(spec), MACHINE).state == "installed"
