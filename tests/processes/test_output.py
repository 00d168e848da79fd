"""What children print: kept, bounded, cleaned, redacted; and it never holds anything up."""

from __future__ import annotations

import asyncio
import logging
import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from lemonade.core.logs import LevelRule, LogRecord
from lemonade.supervisor.journal import Follower, Journal, JournalHandler
from lemonade.supervisor.logfile import LogFile
from lemonade.supervisor.logs import LINE_BYTES, RING_CHARACTERS, RING_LINES, Output, PipeReader
from tests.processes.conftest import Bench, pid_said, until


async def test_lines_are_put_together_from_pieces() -> None:
    output = Output("tiny")
    for piece in (b"one\ntw", b"o", b"\r\nthree"):
        output.feed(piece)
    assert output.tail(10) == ("one", "two", "three")
    assert output.tail(2) == ("two", "three")
    assert output.tail(0) == ()
    output.close()
    assert output.tail(1) == ("three",)


async def test_only_the_last_lines_are_kept() -> None:
    output = Output("tiny")
    output.feed(b"".join(b"%d\n" % n for n in range(RING_LINES + 5)))
    assert len(output.tail(10**6)) == RING_LINES
    assert output.tail(1) == (str(RING_LINES + 4),)


async def test_many_long_lines_are_bounded_as_a_whole() -> None:
    output = Output("tiny")
    for _ in range(RING_CHARACTERS // LINE_BYTES + 10):
        output.feed(b"x" * LINE_BYTES + b"\n")
    assert sum(len(line) for line in output.tail(RING_LINES)) <= RING_CHARACTERS


@pytest.mark.parametrize("piece", [1000, LINE_BYTES, 10 * LINE_BYTES])
async def test_a_line_without_end_is_cut(piece: int) -> None:
    output = Output("tiny")
    for _ in range(10 * LINE_BYTES // piece):
        output.feed(b"x" * piece)
    output.feed(b"\nnext\n")
    cut, following = output.tail(2)
    assert len(cut) == LINE_BYTES + len(" …[cut]")
    assert following == "next"


async def test_noise_is_harmless() -> None:
    output = Output("tiny")
    output.feed(bytes(range(256)) + b"\nafter\0wards\n")
    assert output.tail(1) == ("after\ufffdwards",)


async def test_a_progress_bar_shows_its_last_state() -> None:
    output = Output("tiny")
    for percent in range(0, 101, 10):
        output.feed(b"\rloading %d%%" % percent)
    assert output.tail(5) == ("loading 100%",)
    output.feed(b"\ndone\n")
    assert output.tail(5) == ("loading 100%", "done")


async def test_a_progress_bar_never_grows_too_long() -> None:
    output = Output("tiny")
    for percent in range(LINE_BYTES):
        output.feed(b"loading %d\r" % percent)
    assert output.tail(1) == (f"loading {LINE_BYTES - 1}",)


async def test_secrets_are_not_kept() -> None:
    output = Output("tiny", ("s3cret", ""))
    output.feed(b"key is s3cret\n" + b"x" * (LINE_BYTES - 3) + b"s3cret and more\n")
    assert output.tail(2)[0] == "key is ***"
    assert "s3c" not in output.tail(1)[0]


async def test_a_slow_follower_loses_lines_and_is_told() -> None:
    output = Output("tiny")
    follower = output.follow()
    async with asyncio.TaskGroup() as group:
        first = group.create_task(anext(follower))
        await asyncio.sleep(0)
        output.feed(b"first\n")
        assert await first == "first"
    output.feed(b"".join(b"%d\n" % n for n in range(1500)))
    output.close()
    lines = [line async for line in follower]
    assert lines[0] == "[500 lines were left out: they came too fast]"
    assert lines[1:] == [str(n) for n in range(500, 1500)]
    assert [line async for line in output.follow()] == []


async def test_a_journal_outlives_children_and_sorts_by_model_and_level() -> None:
    journal = Journal()
    rules = (LevelRule("error", "^E "), LevelRule("warning", "W"))
    with journal.follow(model="tiny", level="warning") as follower:
        for pid in (11, 12):
            output = Output("tiny", pid=pid, rules=rules, journal=journal)
            other = Output("other", pid=99, rules=rules, journal=journal)
            output.feed(b"fine\nE bad\n")
            other.feed(b"E not ours\n")
            output.close()
        journal.close()
        seen = [record async for record in _all_of(follower)]
    assert [(one.pid, one.level, one.text) for one in seen] == [
        (11, "error", "E bad"),
        (12, "error", "E bad"),
    ]
    assert [record.seq for record in journal.recent(4)] == [5, 6]
    with journal.follow() as late:
        assert await late.next() is None


async def test_a_journal_and_its_followers_are_bounded_in_characters() -> None:
    journal = Journal()
    output = Output("tiny", journal=journal)
    with journal.follow() as follower:
        for _ in range(200):
            output.feed(b"x" * LINE_BYTES + b"\n")
        journal.close()
        seen = [record async for record in _all_of(follower)]
    dropped = sum(record.dropped for record in seen)
    lines = [record for record in seen if not record.dropped]
    assert dropped + len(lines) == 200
    assert sum(len(record.text) for record in lines) <= RING_CHARACTERS
    assert sum(len(record.text) for record in journal.recent()) <= RING_CHARACTERS


async def _all_of(follower: Follower) -> AsyncIterator[LogRecord]:
    while (record := await follower.next()) is not None:
        yield record


async def test_what_the_server_logs_is_in_the_journal_from_any_thread() -> None:
    journal = Journal()
    logger = logging.getLogger("lemonade.test-of-the-journal")
    handler = JournalHandler(journal)
    logger.addHandler(handler)
    try:
        with journal.follow() as follower:
            logger.warning("here %d", 1)
            await asyncio.to_thread(logger.error, "there\nand on")
            logging.getLogger("lemonade.child.tiny").warning("printed")
            seen = [await follower.next() for _ in range(3)]
    finally:
        logger.removeHandler(handler)
    assert [(one.text, one.level, one.stream) for one in seen if one] == [
        ("here 1", "warning", "server"),
        ("there", "error", "server"),
        ("and on", "error", "server"),
    ]


def test_a_log_file_is_private_and_replaced_when_full(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "tiny.log"
    file = LogFile(path, limit=10, kept=3)
    for number in range(5):
        file.append(b"%d-------\n" % number)
    assert sorted(p.name for p in path.parent.iterdir()) == [
        "tiny.log",
        "tiny.log.1",
        "tiny.log.2",
    ]
    assert path.read_bytes() == b"4-------\n"
    assert Path(f"{path}.2").read_bytes() == b"2-------\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_a_child_s_output_goes_to_memory_to_its_file_and_to_its_logger(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    log_file = bench.home / "logs" / "tiny.log"
    caplog.set_level(logging.DEBUG, "lemonade.child.Tiny")
    async with bench.supervisor() as supervisor:
        child = await bench.ready(supervisor, "--print-secrets", log_file=log_file)
        await child.stop()
    said = child.tail(100)
    assert said[0].startswith("argv: ")
    assert said[-1].startswith("listening on ")
    assert log_file.read_text().splitlines() == list(said)
    records = [r.getMessage() for r in caplog.records if r.name == "lemonade.child.Tiny"]
    assert records == list(said)


async def test_a_secret_that_a_child_prints_is_shown_nowhere(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    log_file = bench.home / "tiny.log"
    async with bench.supervisor() as supervisor:
        child = await bench.ready(
            supervisor,
            "--print-secrets",
            "--api-key",
            bench.mark,
            secrets=(bench.mark,),
            log_file=log_file,
        )
        [record] = bench.records()
        ledger = record.read_text()
        await child.stop()
    everything = "\n".join((*child.tail(100), log_file.read_text(), caplog.text, ledger))
    assert "'--api-key', '***'" in everything
    assert bench.mark not in everything


async def test_a_flood_holds_up_neither_the_engine_nor_us(bench: Bench) -> None:
    async with bench.supervisor() as supervisor:
        child = await bench.ready(
            supervisor,
            "--flood-log",
            "50000",
            "--big-lines",
            "5000000",
            "--binary-log",
            log_file=bench.home / "tiny.log",
        )
        await child.stop()
    assert len(child.tail(10**6)) == RING_LINES
    assert child.tail(1)[0].startswith("listening on ")
    assert sum(len(line) for line in child.tail(RING_LINES)) <= RING_CHARACTERS


async def test_lines_can_be_followed_until_the_end(bench: Bench) -> None:
    async with bench.supervisor() as supervisor:
        child = await bench.start(supervisor)
        lines: list[str] = []

        async def follow() -> None:
            lines.extend([line async for line in child.follow()])

        async with asyncio.TaskGroup() as group:
            group.create_task(follow())
            await asyncio.sleep(0)
            await child.ready()
            await child.stop()
    assert [line[:9] for line in lines] == ["listening"]


async def test_a_file_that_cannot_be_written_is_given_up(bench: Bench) -> None:
    (bench.home / "logs").write_text("not a directory")
    async with bench.supervisor() as supervisor:
        child = await bench.ready(supervisor, log_file=bench.home / "logs" / "tiny.log")
        await child.stop()
    assert child.tail(1)[0].startswith("listening on ")


async def test_a_grandchild_that_holds_the_pipe_does_not_hold_up_the_end(bench: Bench) -> None:
    """What was printed up to the end is there, though nobody has closed the pipe."""
    async with bench.supervisor() as supervisor:
        child = await bench.start(
            supervisor,
            "--spawn-engine",
            "--engine-escapes",
            "--exit-after",
            "0.1",
            "--never-ready",
        )
        report = await child.ended()
        core = await pid_said(child, "engine-core")
        assert report.swept == (core,)
        await until(lambda: any(line.startswith("listening") for line in report.last_lines))


async def test_an_engine_that_floods_its_pipe_leaves_turns_to_others() -> None:
    pieces: list[int] = []

    class Counted(Output):
        def feed(self, data: bytes) -> None:
            pieces.append(len(data))
            super().feed(data)

    reading, writing = os.pipe2(os.O_NONBLOCK)
    reader = PipeReader(reading, Counted("flood"))
    try:
        written = os.write(writing, b"\n" * 65536)
        await until(lambda: sum(pieces) == written)
        assert max(pieces) <= 8192
    finally:
        os.close(writing)
        reader.finish()
