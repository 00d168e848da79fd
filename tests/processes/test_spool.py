"""Output through a file: nothing is lost, the file stays small, the next reader goes on."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from lemonade.supervisor.spool import RECALLED_BYTES, Spool, open_spool
from tests.processes.conftest import Bench, post, until


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger" / "one.out"


def printed(path: Path, data: bytes) -> None:
    descriptor = open_spool(path)
    os.write(descriptor, data)
    os.close(descriptor)


def all_of(spool: Spool) -> bytes:
    while spool.take():
        pass
    data = bytes(spool.taken)
    spool.taken.clear()
    return data


def test_it_is_read_as_it_grows(path: Path) -> None:
    printed(path, b"one\n")
    spool = Spool(path)
    assert all_of(spool) == b"one\n"
    assert all_of(spool) == b""
    printed(path, b"two\n" * 50_000)
    assert all_of(spool) == b"two\n" * 50_000
    assert path.stat().st_mode & 0o777 == 0o600
    spool.close()


def test_what_was_read_is_cut_off(path: Path) -> None:
    spool = Spool(path, limit=1000)
    writer = open_spool(path)
    for number in range(20):
        os.write(writer, b"%99d\n" % number)
        assert all_of(spool) == b"%99d\n" % number
    assert path.stat().st_size <= 1100
    os.write(writer, b"goes on\n")  # the child knows nothing of it
    assert all_of(spool) == b"goes on\n"
    os.close(writer)
    spool.close()


def test_who_prints_too_fast_is_cut_off_and_told_so(path: Path) -> None:
    printed(path, b"x" * 5000)
    spool = Spool(path, limit=1000, most=2000)
    assert b"5000 bytes were left out" in all_of(spool)
    assert path.stat().st_size == 0
    printed(path, b"y\n")
    assert all_of(spool).endswith(b"y\n")
    spool.close()


def test_the_next_reader_begins_where_the_last_one_ended(path: Path) -> None:
    printed(path, b"old\n")
    first = Spool(path)
    assert all_of(first) == b"old\n"
    first.close()
    printed(path, b"new\n")
    second = Spool(path)
    assert second.recall() == b"old\n"
    assert all_of(second) == b"new\n"
    second.close()


def test_what_was_cut_off_is_recalled(path: Path) -> None:
    first = Spool(path, limit=10)
    printed(path, b"long ago and far away\n")
    assert all_of(first) == b"long ago and far away\n"
    assert path.stat().st_size == 0
    printed(path, b"later\n")
    assert all_of(first) == b"later\n"
    first.close()
    second = Spool(path)
    assert second.recall() == b"long ago and far away\nlater\n"
    assert len(second.recall()) <= RECALLED_BYTES
    second.close()


async def test_a_child_with_a_file_is_like_another(bench: Bench) -> None:
    async with bench.supervisor(keep=lambda: True) as supervisor:
        child = await bench.ready(supervisor, "--spawn-engine", "--double-fork")
        assert child.pid is not None
        assert bench.ledger.joinpath(f"{child.id}.out").exists()
        await until(lambda: any(line.startswith("engine-core") for line in child.tail(100)))
        await post(child.spec.endpoint.port, "/fake/say?line=hello")
        await until(lambda: "hello" in child.tail(10))
        report = await child.stop()
        assert "hello" in report.last_lines
        assert report.expected
    left = await asyncio.to_thread(lambda: [path.suffix for path in bench.ledger.iterdir()])
    assert left in ([], [".lock"])
