"""Engines are asked once which flags they know, and whatever they do, nobody waits for ever."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from lemonade.catalog import HelpSpec
from lemonade.core.bundle import Bundle
from lemonade.core.ids import BackendId
from lemonade.installer import KnownFlags

SPEC = HelpSpec(argv=(("--help=all",), ("--help",)), within=20.0)
ENV = {"PATH": os.environ["PATH"]}

GOOD = """
import sys, pathlib
calls = pathlib.Path(__file__).with_suffix(".calls")
calls.write_text((calls.read_text() if calls.exists() else "") + sys.argv[1] + "\\n")
if sys.argv[1] != "--help":
    sys.exit(2)
print("  -a, --alpha N   one\\n  --beta, --no-beta\\n  --gamma")
"""
FLAGS = {"-a", "--alpha", "--beta", "--no-beta", "--gamma"}


def a_bundle(root: Path, *, removable: bool = True, version: str = "1") -> Bundle:
    return Bundle(BackendId("mill", "cpu"), version, root, ("python",), removable=removable)


def program(folder: Path, text: str) -> tuple[str, str]:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "engine.py"
    file.write_text(text)
    return sys.executable, str(file)


def calls(folder: Path) -> list[str]:
    file = folder / "engine.calls"
    return file.read_text().split() if file.exists() else []


async def test_it_is_asked_until_it_answers_and_then_never_again(tmp_path: Path) -> None:
    argv = program(tmp_path / "engine", GOOD)
    root = tmp_path / "bundle"
    root.mkdir()
    known = KnownFlags(tmp_path / "cache")
    async with asyncio.TaskGroup() as together:
        for _ in range(5):
            together.create_task(known.of(a_bundle(root), argv, ENV, SPEC))
    assert await known.of(a_bundle(root), argv, ENV, SPEC) == FLAGS
    assert await KnownFlags(tmp_path / "cache").of(a_bundle(root), argv, ENV, SPEC) == FLAGS
    assert calls(tmp_path / "engine") == ["--help=all", "--help"]
    assert [file.name for file in root.iterdir()] == ["known-flags.json"]


async def test_another_version_is_asked_again(tmp_path: Path) -> None:
    argv = program(tmp_path / "engine", GOOD)
    known = KnownFlags(tmp_path / "cache")
    for version in ("1", "2"):
        assert await known.of(a_bundle(tmp_path, version=version), argv, ENV, SPEC) == FLAGS
    assert len(calls(tmp_path / "engine")) == 4


async def test_of_somebody_elses_program_the_cache_remembers_until_it_changes(
    tmp_path: Path,
) -> None:
    argv = program(tmp_path / "engine", GOOD)
    bundle = a_bundle(tmp_path / "engine", removable=False)
    assert await KnownFlags(tmp_path / "cache").of(bundle, argv, ENV, SPEC) == FLAGS
    assert await KnownFlags(tmp_path / "cache").of(bundle, argv, ENV, SPEC) == FLAGS
    assert len(calls(tmp_path / "engine")) == 2
    assert not (tmp_path / "engine" / "known-flags.json").exists()
    program(tmp_path / "engine", GOOD.replace("--gamma", "--gamma\\n  --delta"))
    changed = await KnownFlags(tmp_path / "cache").of(bundle, argv, ENV, SPEC)
    assert changed == {*FLAGS, "--delta"}


@pytest.mark.parametrize(
    "text",
    [
        "import sys; sys.exit(1)",
        "print('usage: read the manual')",
        "print('  --one\\n  --two')",
        "import sys; print('  --a\\n  --b\\n  --c'); sys.exit(3)",
    ],
)
async def test_what_cannot_be_learnt_is_not_known(tmp_path: Path, text: str) -> None:
    argv = program(tmp_path / "engine", text)
    known = KnownFlags(tmp_path / "cache")
    assert await known.of(a_bundle(tmp_path), argv, ENV, SPEC) is None
    assert not (tmp_path / "known-flags.json").exists()


async def test_a_program_that_is_not_there_is_no_error(tmp_path: Path) -> None:
    known = KnownFlags(tmp_path / "cache")
    assert await known.of(a_bundle(tmp_path), (str(tmp_path / "none"),), ENV, SPEC) is None


async def test_one_that_hangs_is_ended_with_all_it_started(tmp_path: Path) -> None:
    argv = program(
        tmp_path / "engine",
        "import os, pathlib, time\n"
        "child = os.fork()\n"
        "if child: pathlib.Path(__file__).with_suffix('.pid').write_text(str(child))\n"
        "time.sleep(3600)\n",
    )
    known = KnownFlags(tmp_path / "cache")
    spec = HelpSpec(argv=(("--help",),), within=1.0)
    assert await known.of(a_bundle(tmp_path), argv, ENV, spec) is None
    child = int((tmp_path / "engine" / "engine.pid").read_text())
    async with asyncio.timeout(20):
        while not _dead(child):
            await asyncio.sleep(0.02)


async def test_its_environment_is_the_one_it_is_given(tmp_path: Path) -> None:
    text = (
        "import os\nfor name in os.environ: print('  --' + name.lower())\nprint('  --x\\n  --y')"
    )
    argv = program(tmp_path / "engine", text)
    known = KnownFlags(tmp_path / "cache")
    flags = await known.of(a_bundle(tmp_path), argv, {"ALONE": "1"}, SPEC)
    assert flags is not None
    assert "--alone" in flags
    assert not {"--path", "--home", "--pythonpath"} & flags


async def test_a_damaged_memory_is_no_memory(tmp_path: Path) -> None:
    argv = program(tmp_path / "engine", GOOD)
    (tmp_path / "known-flags.json").write_text("{")
    assert await KnownFlags(tmp_path).of(a_bundle(tmp_path), argv, ENV, SPEC) == FLAGS


def _dead(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True
    return stat.rpartition(")")[2].split()[0] == "Z"
