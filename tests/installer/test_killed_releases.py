"""Killed anywhere: what was there works or the new one does, and the next try succeeds."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lemonade.core.bus import Bus
from lemonade.core.progress import Progress
from lemonade.installer import Bundles, Installer
from tests.installer.releases import backend_of, publish
from tests.installer.setting import MACHINE, Setting, mentioning, wanted
from tests.programs.release_server import PATIENCE, Releases, serving

PROJECT = Path(__file__).parents[2]
POINTS = 10
"""Of each kind of installation."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


def nobody(_: Progress) -> None:
    """Listen to nothing."""


@pytest.fixture
def releases(tmp_path: Path) -> Iterator[Releases]:
    with serving(tmp_path / "releases") as host:
        publish(tmp_path / "releases", "1.0", bulk=50_000)
        publish(tmp_path / "releases", "2.0", bulk=50_000)
        yield host


@pytest.fixture
def setting(tmp_path: Path, releases: Releases) -> Iterator[Setting]:
    root = tmp_path / "cache" / "bin"
    environ = {"PATH": os.defpath, **releases.environ}
    yield Setting(root, environ, Bus(), [], Bundles(root, environ))
    assert mentioning(root) == []


def killed(setting: Setting, version: str, force: str, point: int) -> tuple[int, str]:
    """Install in a process that dies at a point; how it ended, and what it said."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.installer.release_program", str(setting.root), version,
         force, str(point)],
        env={**setting.environ, "PYTHONPATH": str(PROJECT)},
        cwd=PROJECT, capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode, done.stdout.strip()


def works(setting: Setting, version: str) -> bool:
    """Whether that version is there; if so it runs, and with all its files."""
    bundles = Bundles(setting.root, setting.environ)
    bundle = bundles.find(wanted(backend_of(version)), version)
    if bundle is None:
        return False
    for name, (size, sha256) in json.loads((bundle.root / "files.json").read_text()).items():
        data = (bundle.root / name).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (size, sha256), name
    said = subprocess.run(bundle.argv, capture_output=True, text=True, check=True)
    return said.stdout == f"tiny {version}\n"


def active(setting: Setting, want: str) -> str:
    """The version the next engine would be started from."""
    bundle = Bundles(setting.root, setting.environ).active(wanted(backend_of(want)))
    return bundle.version if bundle is not None else ""


@pytest.mark.parametrize("kind", ["first", "update", "again"])
async def test_killed_anywhere(setting: Setting, kind: str) -> None:
    old, new = ("1.0", "2.0") if kind == "update" else ("1.0", "1.0")
    force = "again" if kind == "again" else "once"
    if kind != "first":
        await install(setting, old)
    status, said = killed(setting, new, force, 0)
    assert status == 0
    operations = int(said)
    assert operations > 50
    points = random.Random(f"{kind} of {POINTS}").sample(range(1, operations), POINTS)
    for point in points:
        await put_back(setting, kind, old, new)
        status, _ = killed(setting, new, force, point)
        seen = Bundles(setting.root, setting.environ)
        complete = {bundle.version for bundle in seen.present(backend_of())}
        assert complete <= {old, new}
        for version in complete:
            assert works(setting, version), f"{kind}: {version} at point {point}"
        if kind != "first":
            assert works(setting, old), f"the old one at point {point}"
            assert active(setting, new) in complete, f"one of them is used at point {point}"
        state = seen.status(wanted(backend_of(new)), MACHINE).state
        assert (state == "installed") is (active(setting, new) == new)
        await install(setting, new, force=kind == "again")
        assert works(setting, new), f"{kind}: after point {point}"
        assert active(setting, old) == new, "the pointer has moved"
        assert setting.names() == sorted({new} | ({old} if kind != "first" else set()))
        assert not (setting.root / ".downloads" / "tiny" / "engine").exists()


async def install(setting: Setting, version: str, *, force: bool = False) -> None:
    bundles = Bundles(setting.root, setting.environ)
    again = Setting(setting.root, setting.environ, setting.bus, setting.events, bundles)
    async with Installer(bundles, setting.bus, setting.environ) as installer:
        await installer.install(again.plan(backend_of(version)), nobody, force=force)


async def put_back(setting: Setting, kind: str, old: str, new: str) -> None:
    """As it was before the first attempt."""
    async with Installer(setting.bundles, setting.bus, setting.environ) as installer:
        if kind != "again":
            await installer.uninstall(backend_of(new))
    if kind != "first":
        await install(setting, old)
