"""Programs that cannot be started, and the sentence each gets; where spawning is allowed."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from lemonade.core.errors import SpawnFailed
from lemonade.supervisor.spawn import Ending, spawn
from tests.processes.conftest import CHILD, Bench


def written(path: Path, text: bytes, mode: int = 0o755) -> Path:
    path.write_bytes(text)
    path.chmod(mode)
    return path


def test_a_missing_program(bench: Bench, tmp_path: Path) -> None:
    program = tmp_path / "engine"
    with pytest.raises(SpawnFailed, match=f"Tiny: the executable {program} does not exist") as e:
        spawn(bench.spec(1, argv=(str(program),)), CHILD)
    assert e.value.remedy
    assert e.value.facts["executable"] == str(program)


def test_a_missing_interpreter(bench: Bench, tmp_path: Path) -> None:
    program = written(tmp_path / "engine", b"#!/no/such/interpreter\n")
    with pytest.raises(SpawnFailed, match="the interpreter or loader that"):
        spawn(bench.spec(1, argv=(str(program),)), CHILD)


def test_a_program_that_may_not_be_executed(bench: Bench, tmp_path: Path) -> None:
    program = written(tmp_path / "engine", b"#!/bin/sh\n", 0o644)
    with pytest.raises(SpawnFailed, match="may not be executed") as caught:
        spawn(bench.spec(1, argv=(str(program),)), CHILD)
    assert f"chmod +x {program}" in caught.value.remedy


def test_a_directory(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(SpawnFailed, match="is a directory"):
        spawn(bench.spec(1, argv=(str(tmp_path),)), CHILD)


@pytest.mark.parametrize("content", [b"", b"not a program", b"\x7fELF" + bytes(60)])
def test_a_damaged_program(bench: Bench, tmp_path: Path, content: bytes) -> None:
    program = written(tmp_path / "engine", content)
    with pytest.raises(SpawnFailed, match="is not a program for this machine"):
        spawn(bench.spec(1, argv=(str(program),)), CHILD)


def test_a_missing_working_directory(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(SpawnFailed, match=r"the working directory .* does not exist"):
        spawn(bench.spec(1, cwd=tmp_path / "gone"), CHILD)


def test_a_command_line_that_is_too_long(bench: Bench) -> None:
    with pytest.raises(SpawnFailed, match="too long"):
        spawn(bench.spec(1, argv=(sys.executable, "x" * 10_000_000)), CHILD)


def test_a_null_byte_in_an_argument(bench: Bench) -> None:
    with pytest.raises(SpawnFailed, match="could not be started"):
        spawn(bench.spec(1, argv=(sys.executable, "a\0b")), CHILD)


async def test_only_the_main_thread_may_spawn(bench: Bench) -> None:
    with pytest.raises(RuntimeError, match="main thread"):
        await asyncio.to_thread(spawn, bench.spec(1), CHILD)


async def test_a_failed_spawn_leaves_no_trace(bench: Bench, tmp_path: Path) -> None:
    async with bench.supervisor() as supervisor:
        with pytest.raises(SpawnFailed):
            await bench.start(supervisor, argv=(str(tmp_path / "engine"),))
        assert not supervisor.children
        assert bench.records() == []
    assert bench.events == []


def test_an_ending_can_be_read_more_than_once(bench: Bench) -> None:
    """The process is not collected by looking, so its number stays ours."""
    spawned = spawn(bench.spec(1, "--exit-at-start", "5"), CHILD)
    while spawned.ending() is None:
        pass
    assert spawned.ending() == spawned.ending() == Ending(5, None)
    assert spawned.collect()
    spawned.signal_group(9)  # nobody is signalled: the group may be somebody else's by now


async def test_an_exit_is_noticed_without_a_descriptor_for_the_process(bench: Bench) -> None:
    spawned = spawn(bench.spec(1, "--exit-at-start", "5"), CHILD)
    noticed = asyncio.Event()
    spawned._poll(asyncio.get_running_loop(), noticed.set)
    await noticed.wait()
    assert spawned.ending() == Ending(5, None)
    assert spawned.collect()
