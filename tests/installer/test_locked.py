"""Installing what a lock says, with a real pip and tiny wheels."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lemonade.catalog import BackendSpec, LockedPackage
from lemonade.core.errors import ChecksumMismatch, DownloadFailed, SetupFailed
from lemonade.core.progress import Progress
from tests.installer.index import Index, serving
from tests.installer.setting import Setting
from tests.installer.wheels import Wheel, build_wheel

pytestmark = pytest.mark.slow

OURS = f"{sys.version_info.major}.{sys.version_info.minor}"
ASKS_FOR_ITSELF = """\
import importlib.metadata, os
print(importlib.metadata.version("the-engine"), os.environ["MY_VARIABLE"], os.environ["MEMORY"])
"""


def nobody(_: Progress) -> None:
    """Listen to nothing."""


def locking(*packages: LockedPackage, **pin: object) -> BackendSpec:
    """A backend `tiny:engine` that consists of these."""
    spec = BackendSpec.model_validate(
        {
            "schema": 1,
            "id": "tiny:engine",
            "title": "Tiny engine",
            "preference": 10,
            "devices": ["cpu"],
            "pin": {"source": "pypi", "version": "1.0", "lock": "tiny-engine.lock", **pin},
            "runs_on": [{"os": ["linux"]}],
            "bundle": {"argv": ["{python}", "-I", "-m", "tinyengine"]},
            "environment": {"MY_VARIABLE": "declared"},
            "defaults": {"MEMORY": "2"},
        }
    )
    return spec.model_copy(update={"pin": spec.pin.with_lock(packages)})


def locked(wheel: Wheel, **more: str) -> LockedPackage:
    return LockedPackage("tinyengine", wheel.version, (wheel.sha256,), **more)


async def test_an_engine_finds_itself_under_the_name_that_is_provided(
    setting: Setting, tmp_path: Path, index: Index
) -> None:
    wheel = build_wheel(tmp_path / "index", program=ASKS_FOR_ITSELF)
    spec = locking(locked(wheel), provides={"the-engine": "1.0+tiny"}, python=[OURS])
    async with setting.installer() as installer:
        bundle = await installer.install(setting.plan(spec), nobody)
    env = {"MY_VARIABLE": "given", "MEMORY": "1"}
    said = subprocess.run(bundle.argv, env=env, capture_output=True, text=True, check=True)
    assert said.stdout == "1.0+tiny given 1\n"
    receipt = json.loads((bundle.root / "receipt.json").read_text())
    assert [package["sha256"] for package in receipt["packages"]] == [wheel.sha256]
    assert receipt["python"].startswith(f"{OURS}.")
    (info,) = bundle.root.glob("venv/lib/python3*/site-packages/the_engine-1.0+tiny.dist-info")
    record = (info / "RECORD").read_text().splitlines()
    assert sorted(path.name for path in info.iterdir()) == sorted(
        line.partition(",")[0].rpartition("/")[2] for line in record
    )


async def test_a_condition_decides_which_of_two_is_taken(
    setting: Setting, tmp_path: Path, index: Index
) -> None:
    old, new = build_wheel(tmp_path / "index", "1.0"), build_wheel(tmp_path / "index", "2.0")
    spec = locking(
        locked(old, marker=f'python_version != "{OURS}"'),
        locked(new, marker=f'python_version == "{OURS}"'),
    )
    async with setting.installer() as installer:
        await installer.install(setting.plan(spec), nobody)
    assert index.downloads == [new.path.name]


async def test_another_file_than_the_locked_one(
    setting: Setting, tmp_path: Path, index: Index, wheel: Wheel
) -> None:
    spec = locking(LockedPackage("tinyengine", "1.0", ("0" * 64,)))
    async with setting.installer() as installer:
        with pytest.raises(ChecksumMismatch):
            await installer.install(setting.plan(spec), nobody)
    assert setting.names() == []


async def test_a_build_that_only_its_makers_have(
    setting: Setting, tmp_path: Path, index: Index
) -> None:
    wheel = build_wheel(tmp_path / "makers", "1.0+special")
    spec = locking(locked(wheel))
    async with setting.installer() as installer:
        with pytest.raises(DownloadFailed, match=r"needs tinyengine==1\.0\+special") as caught:
            await installer.install(setting.plan(spec), nobody)
        assert "LEMONADE_PYPI_EXTRA_URL" in caught.value.remedy
        with serving(tmp_path / "makers") as makers:
            setting.environ["LEMONADE_PYPI_EXTRA_URL"] = f"{index.url} {makers.url}"
            await installer.install(setting.plan(spec), nobody)
            assert makers.downloads == [wheel.path.name]
    assert setting.names() == ["1.0"]


async def test_a_folder_with_everything_needs_no_index(
    setting: Setting, tmp_path: Path, index: Index
) -> None:
    wheel = build_wheel(tmp_path / "wheels", "1.0+special", extra_bytes=600_000)
    setting.environ["LEMONADE_WHEELS"] = str(tmp_path / "wheels")
    setting.environ["LEMONADE_PYPI_URL"] = "http://127.0.0.1:9/simple"
    seen: list[Progress] = []
    async with setting.installer() as installer:
        await installer.install(setting.plan(locking(locked(wheel))), seen.append)
    sizes = [frame.bytes_total for frame in seen if frame.file == f"fetch {wheel.path.name}"]
    assert sizes[-1] == wheel.path.stat().st_size


async def test_another_python_is_looked_for_on_path(
    setting: Setting, tmp_path: Path, index: Index, wheel: Wheel
) -> None:
    spec = locking(locked(wheel), python=["3.99"])
    async with setting.installer() as installer:
        with pytest.raises(SetupFailed, match=r"made for Python 3\.99") as caught:
            await installer.install(setting.plan(spec), nobody)
        assert "python3.99" in caught.value.remedy
        programs = tmp_path / "programs"
        programs.mkdir()
        (programs / "python3.99").symlink_to(sys.executable)
        setting.environ["PATH"] = os.pathsep.join([str(programs), setting.environ["PATH"]])
        bundle = await installer.install(setting.plan(spec), nobody)
    assert f"{programs}/python3.99" in (bundle.root / "venv" / "pyvenv.cfg").read_text()


def test_the_plan_says_what_is_locked(setting: Setting, wheel: Wheel) -> None:
    marker = 'python_version == "3.11"'
    plan = setting.plan(locking(locked(wheel, marker=marker)))
    assert plan.requirements() == (f"tinyengine==1.0 ; {marker} --hash=sha256:{wheel.sha256}\n")
