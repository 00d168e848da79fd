"""What the kernel says of an end, from logs and counters that a test wrote."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from lemonade.supervisor.kernel import Witness
from lemonade.supervisor.spawn import Ending

PID = 4321


def witness(root: Path, *, kills: int | None = 0) -> Witness:
    (root / "proc" / str(PID)).mkdir(parents=True)
    (root / "proc" / str(PID) / "cgroup").write_text("1:name=systemd:/x\n0::/ours\n")
    (root / "proc" / "self").mkdir(exist_ok=True)
    mount = f"41 31 0:38 / {root}/cgroups rw,relatime - cgroup2 cgroup2 rw\n"
    (root / "proc" / "self" / "mountinfo").write_text(mount)
    (root / "cgroups" / "ours").mkdir(parents=True)
    count(root, kills)
    return Witness(PID, log=root / "kmsg", proc=root / "proc")


def count(root: Path, kills: int | None) -> None:
    text = "low 0\nhigh 0\nmax 12\noom 3\n"
    if kills is not None:
        text += f"oom_kill {kills}\noom_group_kill 0\n"
    (root / "cgroups" / "ours" / "memory.events").write_text(text)


def say(root: Path, *messages: str, after: float = 1.0) -> None:
    at = int((time.clock_gettime(time.CLOCK_MONOTONIC) + after) * 1e6)
    lines = [f"6,{number},{at},-;{text}\n SUBSYSTEM=x\n" for number, text in enumerate(messages)]
    (root / "kmsg").write_text("".join(lines))


def test_a_kill_that_the_cgroup_has_counted_is_for_memory(tmp_path: Path) -> None:
    one = witness(tmp_path)
    count(tmp_path, 1)
    assert one.testify((PID,), killed=True).out_of_memory
    assert not one.testify((PID,), killed=False).out_of_memory


def test_in_a_cgroup_of_its_own_whoever_is_killed_is_one_of_it(tmp_path: Path) -> None:
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "self" / "cgroup").write_text("0::/\n")
    one = witness(tmp_path)
    assert not one.testify((PID,), killed=False).out_of_memory
    count(tmp_path, 1)
    assert one.testify((PID,), killed=False).out_of_memory


def test_without_evidence_a_kill_is_anybodys(tmp_path: Path) -> None:
    one = witness(tmp_path, kills=7)
    assert not one.testify((PID,), killed=True).out_of_memory


@pytest.mark.parametrize("victim", [PID, 99])
def test_a_line_of_the_kernel_that_names_it_is_evidence(tmp_path: Path, victim: int) -> None:
    one = witness(tmp_path, kills=None)
    said = f"Out of memory: Killed process {victim} (engine) total-vm:1kB"
    say(tmp_path, "usb 1-1: new device", said, f"Killed process {PID}9 (other)")
    told = one.testify((PID, 99), killed=True)
    assert told.out_of_memory
    assert told.lines == (said,)


def test_a_kill_of_what_it_had_started_is_evidence_however_it_ended_itself(
    tmp_path: Path,
) -> None:
    one = witness(tmp_path)
    say(tmp_path, "Out of memory: Killed process 99 (EngineCore) total-vm:1kB")
    assert one.testify((PID, 99), killed=False).out_of_memory


def test_why_nothing_was_heard_is_known(tmp_path: Path) -> None:
    one = witness(tmp_path)
    assert "kmsg cannot be read: No such file" in one.testify((PID,), killed=True).unread
    say(tmp_path, "quiet")
    assert one.testify((PID,), killed=True).unread == ""


def test_what_a_shell_makes_of_a_kill_is_one() -> None:
    assert Ending(137, None).by(signal.SIGKILL)
    assert Ending(None, 9).by(signal.SIGKILL)
    assert not Ending(9, None).by(signal.SIGKILL)
    assert not Ending(None, None).by(signal.SIGKILL)


def test_others_kills_are_no_evidence(tmp_path: Path) -> None:
    one = witness(tmp_path)
    say(tmp_path, f"Out of memory: Killed process {PID}9 (other)")
    assert not one.testify((PID,), killed=True).out_of_memory


def test_what_it_said_of_devices_and_of_our_processes_is_kept(tmp_path: Path) -> None:
    one = witness(tmp_path)
    told = (
        "NVRM: Xid (PCI:0000:01:00): 31, pid=1, name=x",
        "amdgpu 0000:c5:00.0: amdgpu: GPU reset begin!",
        f"engine[{PID}]: segfault at 0 ip 0 sp 0 error 4",
    )
    say(tmp_path, *told, "wlan0: authenticated")
    assert one.testify((PID,), killed=False).lines == told


def test_what_it_said_before_is_not(tmp_path: Path) -> None:
    one = witness(tmp_path)
    say(tmp_path, f"Out of memory: Killed process {PID} (an earlier one)", after=-60.0)
    assert one.testify((PID,), killed=True).lines == ()


def test_a_log_that_may_not_be_read_says_nothing(tmp_path: Path) -> None:
    one = witness(tmp_path)
    os.mkfifo(tmp_path / "kmsg")
    assert one.testify((PID,), killed=True).lines == ()
    assert Witness(PID, log=tmp_path / "none", proc=tmp_path).testify((), killed=True).lines == ()
