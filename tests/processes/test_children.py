"""From a spawn to readiness, to health, or to a failure that says why."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import stat
import sys
from pathlib import Path

import pytest

from lemonade.core.bus import Bus
from lemonade.core.errors import (
    BadConfigFile,
    ExitedWhileStarting,
    NeverReady,
    OutOfDisk,
    ShuttingDown,
)
from lemonade.core.events import (
    ChildBecameReady,
    ChildBecameUnhealthy,
    ChildEnded,
    ChildRecovered,
    ChildSpawned,
    ChildStopping,
)
from lemonade.core.process import ProbeSpec
from lemonade.supervisor import Phase, Supervisor
from tests.processes.conftest import MARK, PATIENCE, Bench, alive, post, until


async def test_a_child_is_started_recorded_used_and_ended(bench: Bench) -> None:
    async with bench.supervisor() as supervisor:
        child = await bench.start(supervisor, labels={"recipe": "fake"})
        assert list(supervisor.children) == [child.id]
        [path] = bench.records()
        record = json.loads(path.read_text())
        assert (record["pid"], record["session"]) == (child.pid, child.pid)
        assert record["executables"] == [str(Path(sys.executable).resolve())]
        assert record["labels"] == {"recipe": "fake"}
        assert record["owner"]["pid"] == os.getpid()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        await child.ready()
        assert child.phase is Phase.READY
        pid = child.pid
        report = await child.stop()
        assert (report.status, report.expected, report.survivors) == (0, True, ())
        assert child.phase is Phase.STOPPED
        assert child.pid is None
        assert not alive(pid or 0)
        await until(lambda: not supervisor.children)
        assert bench.records() == []
        assert await child.stop() is report
    kinds = [type(event) for event in bench.events]
    assert kinds == [ChildSpawned, ChildBecameReady, ChildStopping, ChildEnded]


async def test_a_child_gets_exactly_its_environment_and_its_id(bench: Bench) -> None:
    async with bench.supervisor() as supervisor:
        child = await bench.ready(supervisor)
        environ = Path(f"/proc/{child.pid}/environ").read_bytes()
    assert environ == f"{MARK}={bench.mark}\0LEMONADE_CHILD={child.id}\0".encode()


async def test_a_child_has_no_descriptor_of_ours(bench: Bench) -> None:
    with socket.socket() as ours:
        os.set_inheritable(ours.fileno(), True)
        async with bench.supervisor() as supervisor:
            child = await bench.ready(supervisor)
            links = {fd.name: str(fd.readlink()) for fd in Path(f"/proc/{child.pid}/fd").iterdir()}
            inode = os.fstat(ours.fileno()).st_ino
    assert links["0"] == "/dev/null"
    assert links["1"] == links["2"]
    assert f"socket:[{inode}]" not in links.values()


async def test_a_failed_start_quotes_what_the_engine_printed(bench: Bench) -> None:
    async with bench.supervisor() as supervisor:
        child = await bench.start(supervisor, "--exit-at-start", "3")
        with pytest.raises(ExitedWhileStarting) as caught:
            await child.ready()
    error = caught.value
    assert error.message.startswith("Tiny: the engine exited with status 3 after ")
    assert " while starting. Its last lines: error: failed to load" in error.message
    assert error.facts["exit_status"] == 3
    assert error.facts["last_lines"] == [
        "error: failed to load the model 'fake.gguf'",
        "error: giving up",
    ]
    assert error.remedy
    assert child.phase is Phase.FAILED
    assert bench.records() == []


async def test_an_unknown_flag_is_told_by_the_engine_itself(bench: Bench) -> None:
    async with bench.supervisor() as supervisor:
        child = await bench.start(supervisor, "--no-such-flag")
        with pytest.raises(ExitedWhileStarting, match="unrecognized arguments: --no-such-flag"):
            await child.ready()


async def test_a_start_killed_by_a_signal_names_it(bench: Bench) -> None:
    async with bench.supervisor() as supervisor:
        child = await bench.start(supervisor, "--never-ready")
        await until(lambda: "listening" in "".join(child.tail(1)))
        os.kill(child.pid or 0, signal.SIGSEGV)
        with pytest.raises(ExitedWhileStarting, match="was ended by SIGSEGV") as caught:
            await child.ready()
    assert caught.value.facts["signal"] == signal.SIGSEGV
    assert caught.value.facts["exit_status"] is None


async def test_a_child_that_is_never_ready_is_ended(bench: Bench) -> None:
    probe = ProbeSpec("/health", interval=0.01, ready_within=0.2)
    async with bench.supervisor() as supervisor:
        child = await bench.start(supervisor, "--never-ready", probe=probe)
        pid = child.pid or 0
        with pytest.raises(NeverReady, match=r"not ready after 0\.2 s") as caught:
            await child.ready()
        assert not alive(pid)
    assert caught.value.facts["ready_within"] == 0.2
    assert child.phase is Phase.FAILED


async def test_a_probe_that_hangs_is_no_answer(bench: Bench) -> None:
    probe = ProbeSpec("/health", interval=0.01, timeout=0.05, ready_within=0.3)
    async with bench.supervisor() as supervisor:
        child = await bench.start(supervisor, "--hang-health", probe=probe)
        with pytest.raises(NeverReady):
            await child.ready()


async def test_a_stop_while_starting_ends_the_wait_for_readiness(bench: Bench) -> None:
    async with bench.supervisor() as supervisor, asyncio.TaskGroup() as group:
        child = await bench.start(supervisor, "--never-ready")

        async def wait() -> None:
            with pytest.raises(ExitedWhileStarting, match="was stopped before it was ready"):
                await child.ready()

        group.create_task(wait())
        await child.stop()
    assert child.phase is Phase.STOPPED


async def test_an_unhealthy_child_is_reported_and_may_recover(bench: Bench) -> None:
    probe = ProbeSpec("/health", interval=0.01, timeout=0.2, ready_within=PATIENCE, patience=2)
    async with bench.supervisor(watch_interval=0.01) as supervisor:
        child = await bench.ready(supervisor, probe=probe)
        port = child.spec.endpoint.port
        await post(port, "/fake/hang")
        await until(lambda: child.phase is Phase.UNHEALTHY)
        assert any(isinstance(event, ChildBecameUnhealthy) for event in bench.events)
        await child.ready()  # it is still the one that became ready
        await post(port, "/fake/heal")
        await until(lambda: child.phase is Phase.READY)
        assert child.report is None
    assert sum(isinstance(event, ChildBecameReady) for event in bench.events) == 1
    assert sum(isinstance(event, ChildRecovered) for event in bench.events) == 1


async def test_a_crash_after_readiness_is_a_failure(bench: Bench) -> None:
    async with bench.supervisor() as supervisor:
        child = await bench.ready(supervisor)
        await post(child.spec.endpoint.port, "/fake/crash?code=9")
        report = await child.ended()
        assert (report.status, report.expected) == (9, False)
        assert child.phase is Phase.FAILED
        with pytest.raises(ExitedWhileStarting, match="exited with status 9"):
            await child.ready()
        await until(lambda: not supervisor.children)


async def test_a_program_that_ends_by_itself_with_zero_has_crashed_too(bench: Bench) -> None:
    async with bench.supervisor() as supervisor:
        child = await bench.ready(supervisor)
        await post(child.spec.endpoint.port, "/fake/crash?code=0")
        report = await child.ended()
    assert (report.status, report.expected, child.phase) == (0, False, Phase.FAILED)


async def test_a_stranger_on_the_port_is_not_taken_for_the_child(bench: Bench) -> None:
    probe = ProbeSpec("/health", interval=0.01, ready_within=0.5)
    async with bench.supervisor() as supervisor:
        stranger = await bench.ready(supervisor)
        port = stranger.spec.endpoint.port

        async def always() -> bool:
            return True

        # It binds another port than the one where it is asked for.
        spec = bench.spec(port, probe=probe)
        with supervisor.lease_port() as elsewhere:
            argv = tuple(str(elsewhere.port) if w == str(port) else w for w in spec.argv)
            spec = bench.spec(port, probe=probe, argv=argv)
            child = await supervisor.start(spec, always)
            with pytest.raises(NeverReady):
                await child.ready()
        assert stranger.phase is Phase.READY


async def test_a_cancelled_start_leaves_nothing(bench: Bench) -> None:
    async with bench.supervisor() as supervisor, asyncio.TaskGroup() as group:
        starting = group.create_task(bench.start(supervisor))
        await asyncio.sleep(0)
        [child] = supervisor.children.values()
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        assert child.report is not None, "its port and memory are taken until then"
        assert child.report.signal == signal.SIGKILL
    assert bench.records() == []


async def test_waiting_may_be_given_up_without_harm(bench: Bench) -> None:
    async with bench.supervisor() as supervisor:
        child = await bench.start(supervisor, "--ready-after", "0.2")
        for wait in (child.ready, child.ended):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await wait()
        await child.ready()
        assert child.phase is Phase.READY


async def test_a_child_that_cannot_be_recorded_is_not_started(bench: Bench) -> None:
    bench.ledger.write_text("not a directory")
    async with bench.supervisor() as supervisor:
        with pytest.raises((BadConfigFile, OutOfDisk)):
            await bench.start(supervisor)
        await until(lambda: not supervisor.children)


async def test_what_could_not_be_written_for_a_while_is_written_when_it_can_be(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    away = bench.ledger.with_name("away")
    async with bench.supervisor() as supervisor:
        child = await bench.ready(supervisor)
        [record] = bench.records()
        bench.ledger.rename(away)
        bench.ledger.touch()  # no file can be made below it
        await post(child.spec.endpoint.port, "/fake/spawn")
        await until(lambda: "could not be amended" in caplog.text)
        await until(lambda: len(child.descendants) == 1)
        assert json.loads((away / record.name).read_text())["descendants"] == []
        bench.ledger.unlink()
        away.rename(bench.ledger)
        [core] = child.descendants
        await until(
            lambda: [d["pid"] for d in json.loads(record.read_text())["descendants"]] == [core]
        )
        assert caplog.text.count("could not be amended") == 1, "once is enough"
        await child.stop(now=True)
    assert bench.records() == []


async def test_nothing_is_started_on_the_way_out(bench: Bench) -> None:
    async with bench.supervisor() as supervisor:
        pass
    with pytest.raises(ShuttingDown):
        await bench.start(supervisor)


async def test_a_bug_in_a_probe_ends_that_child_only(bench: Bench) -> None:
    async def broken() -> bool:
        raise ZeroDivisionError

    async with bench.supervisor() as supervisor:
        other = await bench.ready(supervisor)
        with supervisor.lease_port() as lease:
            child = await supervisor.start(bench.spec(lease.port), broken)
        with pytest.raises(ExitedWhileStarting):
            await child.ready()
        assert other.phase is Phase.READY


async def test_the_body_s_own_error_is_passed_on_as_it_is(bench: Bench) -> None:
    children = []

    async def fail() -> None:
        async with Supervisor(ledger_dir=bench.ledger, bus=Bus()) as supervisor:
            children.append(await bench.ready(supervisor))
            raise KeyError

    with pytest.raises(KeyError):
        await fail()
    [child] = children
    assert child.phase is Phase.STOPPED
