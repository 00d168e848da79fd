"""What a server leaves behind when it is killed, and what the next one makes of it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from lemonade.core.events import OrphanReaped
from lemonade.core.ids import ChildId
from lemonade.supervisor.kin import Descendant
from lemonade.supervisor.ledger import Ledger, Owner, Record
from lemonade.supervisor.processes import Identity, read_process
from lemonade.supervisor.proof import left_behind
from lemonade.supervisor.reaper import foretell, reap_ledger
from tests.processes.conftest import MARK, PATIENCE, PROGRAMS, Bench, alive, until

ROOT = Path(__file__).resolve().parents[2]
NOBODY = Identity(2**22 + 1, 1)


@contextmanager
def router(bench: Bench, *switches: str) -> Iterator[tuple[subprocess.Popen[str], dict]]:
    """A server of its own with one child; killed at the end if it is not yet."""
    argv = (sys.executable, PROGRAMS / "router.py", bench.ledger, bench.mark, *switches)
    process = subprocess.Popen(
        argv,
        cwd=ROOT,
        env={MARK: bench.mark, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield process, json.loads(process.stdout.readline())
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        for record in bench.records():  # the test did not have it cleared up
            cgroup = json.loads(record.read_text()).get("cgroup")
            if cgroup:
                with suppress(OSError):
                    Path(cgroup).rmdir()


PROGRAM = (sys.executable, "-S", "-c", "import time; time.sleep(600)")


@contextmanager
def bystander(bench: Bench, argv: tuple[str, ...] = PROGRAM) -> Iterator[subprocess.Popen[bytes]]:
    """A process that may look like somebody's child and is none."""
    process = subprocess.Popen(
        argv,
        env={MARK: bench.mark},
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def identity_of(pid: int) -> Identity:
    facts = read_process(pid)
    assert facts is not None
    return facts.identity


def record_of(pid: int, **changes: object) -> Record:
    """The record of a process whose server is dead."""
    base = Record(
        child=ChildId("tiny-1"),
        name="Tiny",
        owner=replace(Owner.ourselves(), identity=NOBODY),
        leader=identity_of(pid),
        executables=(str(Path(sys.executable).resolve()),),
        executable_root=str(Path(sys.executable).resolve().parent),
        argv0=sys.executable,
        port=1,
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def write(bench: Bench, record: Record) -> None:
    Ledger(bench.ledger).write(record)


async def test_a_killed_server_takes_its_child_along(bench: Bench) -> None:
    with router(bench) as (server, said):
        assert alive(said["child"])
        server.kill()
        server.wait()
        await until(lambda: not alive(said["child"]))
    async with bench.supervisor():
        pass
    assert bench.records() == []
    assert bench.events == []


@pytest.mark.parametrize("names", [(), ("--renamed",)], ids=["by its names", "by other names"])
async def test_the_next_server_ends_what_escaped(bench: Bench, names: tuple[str, ...]) -> None:
    switches = (*names, "--spawn-engine", "--engine-escapes", "--engine-ignores-term")
    with router(bench, *switches) as (server, said):
        server.kill()
        server.wait()
        await until(lambda: not alive(said["child"]))
        [core] = said["descendants"]
        assert alive(core)
        async with bench.supervisor():
            assert not alive(core)
            assert bench.records() == []
        [event] = [event for event in bench.events if isinstance(event, OrphanReaped)]
        assert (event.child, event.name, event.pids) == (said["id"], "Tiny", (core,))


async def test_descendants_nobody_noted_are_found_by_their_session(bench: Bench) -> None:
    with router(bench, "--spawn-engine", "--engine-has-worker") as (server, said):
        server.kill()
        server.wait()
        await until(lambda: not alive(said["child"]))
        record_file = bench.ledger / f"{said['id']}.json"
        record = json.loads(record_file.read_text())
        record_file.write_text(json.dumps({**record, "descendants": []}))
        async with bench.supervisor():
            assert not any(alive(pid) for pid in said["descendants"])
        [event] = [event for event in bench.events if isinstance(event, OrphanReaped)]
        assert len(event.pids) == 2


async def test_a_living_server_s_children_are_left_alone(bench: Bench) -> None:
    with router(bench, "--spawn-engine", "--engine-escapes") as (server, said):
        async with bench.supervisor():
            assert alive(said["child"])
            assert all(alive(pid) for pid in said["descendants"])
            assert [path.stem for path in bench.records()] == [said["id"]]
        server.send_signal(signal.SIGTERM)
        assert server.wait(PATIENCE) == 0
        assert not alive(said["child"])
        assert not any(alive(pid) for pid in said["descendants"])
        assert bench.records() == []


MISMATCHES = {
    "another start time": {"leader": "later"},
    "another program": {"executables": ("/opt/other/engine",), "executable_root": "/opt/other"},
    "another boot": {"owner": {"boot": "before"}},
}


@pytest.mark.parametrize("changes", MISMATCHES.values(), ids=MISMATCHES.keys())
async def test_a_mismatch_is_left_alone_and_forgotten(
    bench: Bench, changes: dict[str, object]
) -> None:
    with bystander(bench) as process:
        record = record_of(process.pid)
        if changes.get("leader") == "later":
            leader = replace(record.leader, start_ticks=record.leader.start_ticks - 1)
            changes = {"leader": leader}
        elif "owner" in changes:
            changes = {"owner": replace(record.owner, **changes["owner"])}  # type: ignore[arg-type]
        write(bench, replace(record, **changes))  # type: ignore[arg-type]
        async with bench.supervisor():
            pass
        assert process.poll() is None
        assert bench.records() == []
        assert bench.events == []


async def test_a_directory_of_everybody_s_programs_proves_nothing(bench: Bench) -> None:
    """The session's number has come back, and what runs in it lies beside the engine."""
    sleep = Path("/usr/bin/sleep") if Path("/usr/bin/sleep").exists() else Path("/bin/sleep")
    with bystander(bench, (str(sleep), "600")) as process:
        record = record_of(
            process.pid,
            executables=(str(sleep.with_name("llama-server")),),
            executable_root=str(sleep.parent),
        )
        write(bench, record)
        async with bench.supervisor():
            pass
        assert process.poll() is None


async def test_the_same_process_with_a_true_record_is_ended(bench: Bench) -> None:
    """The counterpart: so it is the mismatch that protects, and not chance."""
    with bystander(bench) as process:
        write(bench, record_of(process.pid))
        async with bench.supervisor():
            assert process.wait(PATIENCE) == -signal.SIGTERM
        assert bench.records() == []


async def test_another_user_s_record_is_kept(bench: Bench) -> None:
    with bystander(bench) as process:
        record = record_of(process.pid)
        write(bench, replace(record, owner=replace(record.owner, user=4_000_000)))
        async with bench.supervisor():
            pass
        assert process.poll() is None
        assert len(bench.records()) == 1


async def test_a_newer_lemonade_s_record_is_kept_whatever_it_says(bench: Bench) -> None:
    with bystander(bench) as process:
        write(bench, record_of(process.pid))
        [path] = bench.records()
        text = json.dumps({**json.loads(path.read_text()), "schema": 2, "pid": "?"})
        path.write_text(text)
        async with bench.supervisor():
            pass
        assert process.poll() is None
        assert path.read_text() == text
        [account] = await reap_ledger(bench.ledger, grace=0.1)
        assert (account.outcome, account.name) == ("left-alone", "Tiny")
        assert "newer Lemonade" in account.reason


async def test_a_reaper_accounts_for_every_file(bench: Bench) -> None:
    """One of each kind, foretold without a change and then dealt with as foretold."""
    with bystander(bench) as orphan, bystander(bench) as stranger, bystander(bench) as served:
        write(bench, record_of(orphan.pid))
        record = record_of(stranger.pid, child=ChildId("tiny-2"))
        earlier = replace(record.leader, start_ticks=record.leader.start_ticks - 1)
        write(bench, replace(record, leader=earlier))
        ours = await asyncio.to_thread(Owner.ourselves)
        write(bench, record_of(served.pid, child=ChildId("tiny-3"), owner=ours))
        (bench.ledger / "tiny-4.json").write_text("{")
        before = [path.read_bytes() for path in bench.records()]
        told = await asyncio.to_thread(foretell, bench.ledger)
        assert [path.read_bytes() for path in bench.records()] == before
        done = await reap_ledger(bench.ledger, grace=PATIENCE)
        for accounts in (told, done):
            outcomes = [account.outcome for account in accounts]
            assert outcomes == ["ended", "forgotten", "left-alone", "dropped"]
            assert [process.pid for process in accounts[0].processes] == [orphan.pid]
            [other] = accounts[1].strangers
            assert (other.pid, other.reason) == (stranger.pid, "it started at another time")
            assert f"its server lives (pid {os.getpid()})" in accounts[2].reason
        assert orphan.wait(PATIENCE) == -signal.SIGTERM
        assert stranger.poll() is None
        assert served.poll() is None
        assert [path.stem for path in bench.records()] == ["tiny-3"]
        (bench.ledger / "tiny-3.json").unlink()


async def test_another_world_s_record_is_kept(bench: Bench) -> None:
    """Its server may be alive where we cannot see it: in a container beside ours."""
    with bystander(bench) as process:
        record = record_of(process.pid)
        owner = replace(record.owner, namespace="pid:[1]")
        write(bench, replace(record, owner=owner))
        async with bench.supervisor():
            pass
        assert process.poll() is None
        assert len(bench.records()) == 1


def test_a_session_of_a_living_server_s_child_is_protected(bench: Bench) -> None:
    """The number of a dead child's session has come to a child of another server."""
    with bystander(bench) as process:
        stale = record_of(process.pid)
        stale = replace(stale, leader=replace(stale.leader, start_ticks=0))
        assert left_behind(stale, frozenset()) == ()
        session = replace(stale, leader=stale.leader)
        assert left_behind(session, frozenset({process.pid})) == ()


def test_we_never_end_ourselves(bench: Bench) -> None:
    write(bench, record_of(os.getpid()))
    facts = left_behind(record_of(os.getpid()), frozenset())
    assert os.getpid() not in {process.pid for process in facts}
    for path in bench.records():
        path.unlink()


DAMAGED = (
    "",
    "nonsense",
    "[]",
    "{}",
    '{"schema": 0}',
    '{"schema": "2"}',
    '{"schema": 1, "child": "x"}',
)


@pytest.mark.parametrize("text", DAMAGED)
async def test_a_damaged_record_stops_nobody(bench: Bench, text: str) -> None:
    bench.ledger.mkdir()
    (bench.ledger / "tiny.json").write_text(text)
    async with bench.supervisor() as supervisor:
        assert bench.records() == []
        await bench.ready(supervisor)


@pytest.mark.parametrize("pid", [0, 1, -1])
def test_no_record_can_name_process_one_or_a_group(bench: Bench, pid: int) -> None:
    value = record_of(os.getpid()).as_json()
    bench.ledger.mkdir()
    (bench.ledger / "tiny.json").write_text(json.dumps({**value, "pid": pid}))
    [account] = foretell(bench.ledger)
    assert account.outcome == "dropped"


def test_a_record_can_be_read_back(bench: Bench) -> None:
    known = Descendant(identity_of(os.getpid()), None)
    record = record_of(os.getpid(), descendants=(known,), labels={"backend": "fake:program"})
    ledger = Ledger(bench.ledger)
    ledger.write(record)
    [path] = bench.records()
    assert Record.from_json(json.loads(path.read_text())) == record
