"""`reap` and `ps --orphans`: no server, a real ledger, and processes that are truly there."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lemonade.core.ids import ChildId
from lemonade.supervisor.ledger import Ledger, Owner, Record
from lemonade.supervisor.processes import Identity, read_process
from tests.cli.conftest import PATIENCE, Cli

NOBODY = Identity(2**22 + 1, 1)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "cache" / "state" / "children")


@pytest.fixture
def engine() -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-S", "-c", "import time; print(1, flush=True); time.sleep(600)"],
        stdout=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.readline()
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def record_of(process: subprocess.Popen[str]) -> Record:
    seen = read_process(process.pid)
    assert seen is not None
    program = Path(sys.executable).resolve()
    return Record(
        child=ChildId("tiny-1"),
        name="Tiny",
        owner=replace(Owner.ourselves(), identity=NOBODY),
        leader=seen.identity,
        executables=(str(program),),
        executable_root=str(program.parent),
        argv0=sys.executable,
        port=1,
    )


def test_orphans_are_listed_foretold_and_ended(
    lonely: Cli, ledger: Ledger, engine: subprocess.Popen[str]
) -> None:
    ledger.write(record_of(engine))
    listed = lonely("ps", "--orphans")
    assert str(engine.pid) in listed.stdout
    assert "lemonade reap" in listed.stderr

    told = lonely("reap", "--dry-run")
    assert told.stdout.startswith("Would be done: end Tiny")
    assert engine.poll() is None

    done = lonely("reap")
    assert done.returncode == 0, done.stderr
    assert f"ended: {engine.pid}" in done.stdout
    assert engine.wait(PATIENCE) == -signal.SIGTERM
    assert lonely("reap").stdout == "Nothing is recorded: no server has left anything behind.\n"


def test_what_is_not_proven_is_left_alone_and_told(
    lonely: Cli, ledger: Ledger, engine: subprocess.Popen[str]
) -> None:
    record = record_of(engine)
    leader = replace(record.leader, start_ticks=record.leader.start_ticks - 1)
    ledger.write(replace(record, leader=leader))
    ledger.write(replace(record, child=ChildId("tiny-2"), owner=Owner.ourselves()))
    newer = ledger.directory / "tiny-3.json"
    newer.write_text('{"schema": 7}')
    done = json.loads(lonely("reap", "--json").stdout)
    assert engine.poll() is None
    assert (done["schema"], done["dry_run"]) == (1, False)
    first, second, third = done["records"]
    assert (first["outcome"], first["left_alone"][0]["pid"]) == ("forgotten", engine.pid)
    assert (second["outcome"], second["model"]) == ("left-alone", "Tiny")
    assert "its server lives" in second["reason"]
    assert (third["outcome"], "schema 7" in third["reason"]) == ("left-alone", True)
    assert newer.exists()
