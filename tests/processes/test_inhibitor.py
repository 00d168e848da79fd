"""The child that keeps the machine awake, with a program in the place of systemd's."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from lemonade.supervisor import Inhibitor
from tests.processes.conftest import MARK, Bench, alive, until

HOLDS = """#!/bin/sh
echo "$$ $*" >> {calls}
while [ "${{1#--}}" != "$1" ]; do shift; done
exec "$@"
"""
REFUSES = """#!/bin/sh
echo "$$ $*" >> {calls}
echo "Failed to inhibit: Access denied" >&2
exit 1
"""


class Machine:
    """One that has logind, as far as the program goes."""

    def __init__(self, home: Path, mark: str) -> None:
        self.calls = home / "calls"
        self.calls.touch()
        self._folder = home / "bin"
        self._folder.mkdir()
        self.environ = {
            "PATH": f"{self._folder}:/usr/bin:/bin",
            "DBUS_SYSTEM_BUS_ADDRESS": "unix:path=/nowhere",
            MARK: mark,
        }

    def has(self, program: str) -> None:
        file = self._folder / "systemd-inhibit"
        file.write_text(program.format(calls=self.calls))
        file.chmod(0o755)

    def called(self) -> list[str]:
        return self.calls.read_text().splitlines()


@pytest.fixture
def machine(tmp_path: Path, mark: str) -> Machine:
    return Machine(tmp_path, mark)


async def test_it_is_held_by_a_child_that_is_recorded_and_ends_when_let_go(
    bench: Bench, machine: Machine
) -> None:
    machine.has(HOLDS)
    async with bench.supervisor() as supervisor:
        lock = Inhibitor(supervisor, machine.environ)
        await lock.take()
        await lock.take()
        assert lock.held
        await until(lambda: len(machine.called()) == 1)
        (call,) = machine.called()
        pid, what, mode, who, *_ = call.split()
        assert (what, mode, who) == ("--what=sleep", "--mode=block", "--who=Lemonade")
        assert len(bench.records()) == 1
        await lock.let_go()
        assert not lock.held
        assert not alive(int(pid))
        assert bench.records() == []
        await lock.take()
        await until(lambda: len(machine.called()) == 2)
        again = int(machine.called()[1].split()[0])
    assert not alive(again), "the supervisor's end is its end"


async def test_a_refusal_is_one_line_and_is_not_tried_again(
    bench: Bench, machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    machine.has(REFUSES)
    caplog.set_level(logging.INFO)
    async with bench.supervisor() as supervisor:
        lock = Inhibitor(supervisor, machine.environ)
        await lock.take()
        await until(lambda: not lock.held)
        for _ in range(3):
            await lock.take()
        await lock.let_go()
    warnings = [one for one in caplog.records if one.levelno >= logging.WARNING]
    assert len(warnings) == 1
    assert "Access denied" in warnings[0].getMessage()
    assert len(machine.called()) == 1


@pytest.mark.parametrize("lacks", ["the program", "the bus"])
async def test_a_machine_without_logind_is_left_alone(
    bench: Bench, machine: Machine, lacks: str, caplog: pytest.LogCaptureFixture
) -> None:
    if lacks == "the bus":
        if Path("/run/systemd/system").is_dir():
            pytest.skip("this machine has systemd")
        machine.has(HOLDS)
        del machine.environ["DBUS_SYSTEM_BUS_ADDRESS"]
    else:
        machine.environ["PATH"] = "/nonexistent"
    async with bench.supervisor() as supervisor:
        lock = Inhibitor(supervisor, machine.environ)
        await lock.take()
        assert not lock.held
        assert not supervisor.children
    assert [one for one in caplog.records if one.levelno >= logging.WARNING] == []
