"""What the ledger calls kept, who may end it, and who is asked before it is taken away."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from lemonade.core.ids import ChildId
from lemonade.doctor.orphans import check_orphans
from lemonade.residency import kept_versions
from lemonade.supervisor import inspect_ledger, marked_children
from lemonade.supervisor.inheritance import renounce
from lemonade.supervisor.kept import Kept
from lemonade.supervisor.ledger import Ledger, Owner, Record
from lemonade.supervisor.reaper import Account, Spared, foretell, reap_ledger
from tests.processes.conftest import MARK, PATIENCE, Bench
from tests.processes.test_reaper import record_of

LISTENS = """
import socket, time
listening = socket.create_server(("127.0.0.1", 0))
print(listening.getsockname()[1], flush=True)
time.sleep(600)
"""


@contextmanager
def engine(bench: Bench) -> Iterator[tuple[subprocess.Popen[str], Record]]:
    """What a dead server has kept: a process that listens, and its record."""
    process = subprocess.Popen(
        [sys.executable, "-S", "-c", LISTENS],
        env={MARK: bench.mark},
        stdout=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )
    try:
        assert process.stdout is not None
        record = record_of(process.pid, port=int(process.stdout.readline()))
        ledger = Ledger(bench.ledger)
        ledger.write(record)
        ledger.keep(kept(bench, record))
        yield process, record
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def kept(bench: Bench, record: Record, **facts: object) -> Kept:
    spool = str(bench.ledger / "tiny.out")
    return Kept(record.child, record.leader, 5.0, "", spool, (), facts)


def states(bench: Bench) -> list[str]:
    return [entry.state for entry in inspect_ledger(bench.ledger)]


def test_only_what_can_be_taken_over_is_kept(bench: Bench) -> None:
    ledger = Ledger(bench.ledger)
    with engine(bench) as (process, record):
        [entry] = inspect_ledger(bench.ledger)
        assert (entry.state, entry.started_at) == ("kept", 5.0)
        assert [one.pid for one in entry.processes] == [process.pid]
        assert [one.rule for one in check_orphans(bench.ledger)] == ["kept", "ok"]

        ledger.write(replace(record, port=1))  # nobody listens there
        assert states(bench) == ["left-behind"]
        ledger.write(record)
        ledger.keep(replace(kept(bench, record), spool=""))  # nobody has its pipe
        assert states(bench) == ["left-behind"]
        other = replace(record.leader, start_ticks=record.leader.start_ticks - 1)
        ledger.keep(replace(kept(bench, record), leader=other))
        assert states(bench) == ["left-behind"]
        ledger.forget(record.child)
        assert states(bench) == ["left-behind"]
        assert [one.rule for one in check_orphans(bench.ledger)] == ["left-behind"]


def test_it_is_ended_by_who_spares_nobody(bench: Bench) -> None:
    def reaped(spare: Spared) -> tuple[Account, ...]:
        return asyncio.run(reap_ledger(bench.ledger, grace=PATIENCE, spare=spare))

    with engine(bench) as (process, _):
        assert [one.outcome for one in foretell(bench.ledger, spare="kept")] == ["kept"]
        assert [one.outcome for one in foretell(bench.ledger)] == ["ended"]
        assert reaped("marked") == ()
        assert [one.outcome for one in reaped("kept")] == ["kept"]
        assert process.poll() is None
        [done] = reaped("nobody")
        assert done.outcome == "ended"
        assert done.sentence().startswith("Tiny was kept for the next server by one that")
        assert process.wait(PATIENCE) == -signal.SIGTERM
        assert bench.records() == []


def test_what_somebody_has_taken_over_meanwhile_is_his(bench: Bench) -> None:
    ledger = Ledger(bench.ledger)
    record = record_of(os.getpid())
    ledger.write(replace(record, owner=Owner.ourselves()))
    ledger.keep(kept(bench, record))
    assert not renounce(ledger, record)
    assert ledger.kept(record.child) is not None
    ledger.write(record)
    assert renounce(ledger, record)
    assert ledger.kept(record.child) is None
    assert not renounce(ledger, replace(record, child=ChildId("tiny-9")))
    ledger.remove(record.child)


@pytest.mark.parametrize("lives", [False, True], ids=["without a server", "between two lives"])
def test_what_it_runs_from_is_known(bench: Bench, tmp_path: Path, *, lives: bool) -> None:
    ledger = Ledger(bench.ledger)
    version = tmp_path / "bin" / "v1"
    version.mkdir(parents=True)
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "bin")
    with engine(bench) as (process, record):
        if lives:
            ledger.write(replace(record, owner=Owner.ourselves()))
        ledger.keep(kept(bench, record, lock=str(link / "v1" / "receipt.json")))
        [one] = marked_children(bench.ledger)
        assert (one.name, one.pids) == ("Tiny", (process.pid,))
        assert kept_versions(bench.ledger) == {
            str(version.resolve()): f"Tiny (pid {process.pid}), kept for the next server"
        }
        ledger.keep(kept(bench, record, lock=""))  # a program that is not ours to remove
        assert kept_versions(bench.ledger) == {}
        ledger.forget(record.child)
        assert marked_children(bench.ledger) == ()
        ledger.keep(kept(bench, record))
    assert marked_children(bench.ledger) == (), "it has ended"
    ledger.remove(record.child)


def test_no_ledger_keeps_nothing(tmp_path: Path) -> None:
    assert marked_children(tmp_path / "nothing") == ()
