"""What an earlier Lemonade installed: used, kept beside ours, removed when nobody needs it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lemonade.core.bus import Bus
from lemonade.core.errors import Locked
from lemonade.core.events import Event
from lemonade.installer import Bundles, Installer, Versions, lease
from lemonade.planning import PinKind, Selection
from tests.installer.planting import (
    activated,
    active,
    plant,
    plant_legacy,
    pointing,
    program,
    status,
)
from tests.installer.releases import backend_of
from tests.installer.setting import MACHINE, Setting, wanted


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


@pytest.mark.parametrize("line", ["", "-stable", "-nightly"])
def test_a_legacy_tree_is_used(setting: Setting, line: str) -> None:
    folder = plant_legacy(setting.folder.with_name(f"engine{line}"), "1.0")
    program(folder / "zz" / "tiny-server", "0.0")
    bundle = setting.bundles.active(wanted(backend_of()))
    assert bundle is not None
    assert bundle.argv == (str(folder / "build" / "bin" / "tiny-server"),)
    assert not bundle.verified
    found = setting.bundles.status(wanted(backend_of()), MACHINE)
    assert (found.state, found.version, found.action) == ("installed", "1.0", "")
    assert (found.usable, found.can_uninstall) == (True, True)
    assert "earlier Lemonade" in found.message
    found = setting.bundles.status(wanted(backend_of("2.0")), MACHINE)
    assert (found.state, found.version) == ("update_required", "1.0")
    assert found.action == "lemonade backends install tiny:engine"
    assert "earlier Lemonade" in found.message
    assert setting.bundles.active(wanted(backend_of(), "1.0")) == bundle
    assert setting.bundles.active(wanted(backend_of(), "2.0")) is None


def test_a_legacy_tag_says_nothing_about_the_gpu(setting: Setting) -> None:
    plant_legacy(setting.folder, "1.0")
    selection = Selection(backend_of(), PinKind.BUILTIN, "1.0-sm_86", "sm_86")
    assert setting.bundles.status(selection, MACHINE).state == "installed"


@pytest.mark.parametrize("text", ["", "\n", "../..", "a b", "x" * 5000])
def test_a_legacy_version_that_says_nothing(setting: Setting, text: str) -> None:
    plant_legacy(setting.folder, "1.0")
    (setting.folder / "version.txt").write_text(text)
    assert active(setting, "1.0") == "unknown"


def test_a_legacy_tree_without_its_program(setting: Setting) -> None:
    (setting.folder / "share").mkdir(parents=True)
    (setting.folder / "version.txt").write_text("1.0\n")
    assert active(setting) == ""
    found = setting.bundles.status(wanted(backend_of()), MACHINE)
    assert (found.state, found.can_uninstall) == ("update_required", True)
    program(setting.folder / "tiny-server", "1.0")
    assert active(setting) == "1.0"


def test_our_versions_are_not_taken_for_a_legacy_tree(setting: Setting) -> None:
    plant(setting.folder, "0.5")
    plant_legacy(setting.folder, "0.9", at="zz/tiny-server")
    pointing(setting, "0.9")
    bundle = setting.bundles.active(wanted(backend_of()))
    assert bundle is not None
    assert bundle.argv == (str(setting.folder / "zz" / "tiny-server"),)


@pytest.mark.parametrize("line", ["", "-stable"])
async def test_ours_takes_the_place_of_a_legacy_tree(
    setting: Setting, versions: Versions, line: str
) -> None:
    folder = plant_legacy(setting.folder.with_name(f"engine{line}"), "0.9")
    setting.folder.mkdir(exist_ok=True)
    activated(setting, "1.0")
    want = wanted(backend_of())
    assert active(setting) == "1.0"
    assert status(setting, "1.0")[0] == "installed"
    found = {one.name: one for one in await versions.installed(want)}
    assert (found["0.9"].last_good, found["0.9"].receipt) == (True, None)
    await versions.prune(want, dry_run=False)
    assert (folder / "version.txt").exists(), "it is the way back"
    assert (await versions.roll_back(want)).version == "0.9"
    assert active(setting) == "0.9"
    activated(setting, "1.1")
    activated(setting, "1.2")
    old = setting.bundles.find(want, "0.9")
    assert old is not None
    held = lease(old)
    assert held is not None
    await versions.prune(want, dry_run=False)
    assert (folder / "version.txt").exists(), "an engine runs it"
    held.release()
    await versions.prune(want, dry_run=False)
    assert setting.names() == ["1.1", "1.2"]
    assert not folder.exists() or folder == setting.folder
    assert active(setting, "1.2") == "1.2"


@pytest.mark.parametrize("line", ["", "-nightly"])
async def test_a_legacy_tree_is_uninstalled(setting: Setting, line: str) -> None:
    folder = plant_legacy(setting.folder.with_name(f"engine{line}"), "0.9")
    plant(setting.folder, "1.0")
    async with Installer(setting.bundles, setting.bus, setting.environ) as installer:
        bundle = setting.bundles.find(wanted(backend_of()), "0.9")
        assert bundle is not None
        held = lease(bundle)
        assert held is not None
        with pytest.raises(Locked, match=r"0\.9"):
            await installer.uninstall(backend_of())
        assert (setting.folder / "1.0").is_dir()
        held.release()
        assert await installer.uninstall(backend_of())
    assert setting.names() == []
    assert not (folder / "version.txt").exists()


async def test_remains_of_a_legacy_tree(setting: Setting, versions: Versions) -> None:
    plant_legacy(setting.folder, "0.9")
    (setting.folder / "version.txt").unlink()
    plant(setting.folder, "1.0")
    assert active(setting) == "1.0"
    done = await versions.prune(wanted(backend_of()), dry_run=False)
    assert {row.name for row in done if row.kind == "leftover"} == {"build", "share"}
    assert setting.names() == ["1.0"]
