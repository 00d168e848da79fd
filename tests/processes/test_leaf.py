"""A cgroup for each child: what it holds, what it ends, and whose it is."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lemonade.core.ids import ChildId
from lemonade.core.process import StopPolicy
from lemonade.supervisor.delegation import MAIN, Delegation, claim, find_delegation
from lemonade.supervisor.grove import Grove, recorded_leaf
from lemonade.supervisor.kin import Family
from lemonade.supervisor.leaf import Leaf, enter
from lemonade.supervisor.ledger import Owner
from lemonade.supervisor.processes import own_identity
from lemonade.supervisor.reaper import foretell, reap_ledger
from lemonade.supervisor.spawn import spawn
from tests.processes.conftest import CHILD, MARK, PATIENCE, Bench, alive, pid_said, post, until
from tests.processes.test_guardian import guardians
from tests.processes.test_reaper import NOBODY, PROGRAM, record_of, router

HIDES_FROM_ALL = ("--spawn-engine", "--double-fork", "--engine-escapes", "--engine-is-silent")
"""No session, no parent and no pipe lead to what this starts."""


@pytest.fixture
def leaf(base: Path) -> Iterator[Leaf]:
    one = Leaf(base / f"lemonade.test-{secrets.token_hex(4)}")
    yield one
    one.kill()
    assert one.remove()


def inhabitant(leaf: Leaf, mark: str) -> subprocess.Popen[bytes]:
    entrance = leaf.make()
    assert entrance is not None
    try:
        return subprocess.Popen(
            PROGRAM,
            env={MARK: mark},
            start_new_session=True,
            preexec_fn=lambda: enter(entrance),  # noqa: PLW1509
        )
    finally:
        os.close(entrance)


def leaves_of(base: Path, server: int) -> list[Path]:
    return sorted(base.glob(f"lemonade.*.{server}-*"))


async def test_a_child_has_a_cgroup_as_long_as_it_lives(bench: Bench, base: Path) -> None:
    async with bench.supervisor() as supervisor:
        assert supervisor.delegation.base == base
        child = await bench.ready(supervisor, *HIDES_FROM_ALL)
        core = await pid_said(child, "engine-core")
        [record] = bench.records()
        path = Path(json.loads(record.read_text())["cgroup"])
        assert path.parent == base
        assert set((path / "cgroup.procs").read_text().split()) == {str(child.pid), str(core)}
        assert str(os.getpid()) not in (path / "cgroup.procs").read_text()
        await child.stop()
        assert not path.exists()


@pytest.mark.parametrize("ignores", [(), ("--engine-ignores-term",)], ids=["ends", "ignores"])
async def test_what_hides_from_everything_is_in_it(
    bench: Bench, base: Path, ignores: tuple[str, ...]
) -> None:
    """Nobody has looked before the crash, so nothing but the cgroup knows it."""
    policy = StopPolicy(grace=0.1, kill_within=PATIENCE)
    async with bench.supervisor(notice_interval=PATIENCE * 4) as supervisor:
        child = await bench.ready(supervisor, stop=policy)
        other = await bench.ready(supervisor, *HIDES_FROM_ALL[1:], *ignores, stop=policy)
        await post(other.spec.endpoint.port, "/fake/spawn")
        core = await pid_said(other, "engine-core")
        assert core not in other.descendants
        await post(other.spec.endpoint.port, "/fake/crash")
        report = await other.ended()
        assert core in report.swept
        assert not alive(core)
        assert alive(child.pid or 0), "the other one is not in it"
    assert leaves_of(base, os.getpid()) == []


def test_it_is_enough_to_be_recognised(bench: Bench, leaf: Leaf) -> None:
    spawned = spawn(bench.spec(0), CHILD, leaf)
    stranger = subprocess.Popen(PROGRAM, env={MARK: bench.mark}, start_new_session=True)
    entrance = os.open(leaf.path / "cgroup.procs", os.O_WRONLY)
    try:
        family = Family(spawned.identity, spawned.mark, CHILD, spawned.leaf)
        assert family.living() == ()
        os.write(entrance, str(stranger.pid).encode())
        assert [facts.pid for facts in family.living()] == [stranger.pid]
        assert not family.note(())
        assert [known.identity.pid for known in family.descendants()] == [stranger.pid]
    finally:
        os.close(entrance)
        family.end_leaf()
        assert stranger.wait() == -signal.SIGKILL
        assert spawned.collect(within=PATIENCE)
        os.close(spawned.output)


def test_those_in_a_cgroup_below_it_are_ended_too(leaf: Leaf, mark: str) -> None:
    process = inhabitant(leaf, mark)
    below = leaf.path / "of-the-engine"
    below.mkdir()
    (below / "cgroup.procs").write_text(str(process.pid))
    assert leaf.pids() == {process.pid}
    assert not leaf.remove(within=0.0), "somebody lives in it"
    leaf.kill()
    assert process.wait() == -signal.SIGKILL
    assert leaf.pids() == frozenset()
    assert leaf.remove()
    assert not leaf.path.exists()
    assert leaf.remove(), "and again"


def test_where_there_are_no_cgroups_a_child_goes_without(tmp_path: Path, bench: Bench) -> None:
    """An ordinary folder can be made, but is none."""
    missing = Leaf(tmp_path / "one")
    spawned = spawn(bench.spec(0), CHILD, missing)
    try:
        assert spawned.leaf is None
        assert not missing.path.exists()
    finally:
        spawned.signal_group(signal.SIGKILL)
        assert spawned.collect(within=PATIENCE)
        os.close(spawned.output)


async def test_without_delegation_everything_is_as_before(bench: Bench) -> None:
    why = "the kernel is in a bad mood"
    async with bench.supervisor(delegation=lambda: Delegation(None, why)) as supervisor:
        assert supervisor.delegation.reason == why
        child = await bench.ready(supervisor, "--spawn-engine", "--engine-escapes")
        [record] = bench.records()
        assert json.loads(record.read_text())["cgroup"] == ""
        core = await pid_said(child, "engine-core")
        assert core in (await child.stop()).swept
    assert bench.records() == []


@pytest.mark.slow
async def test_the_guardian_ends_what_nothing_else_leads_to(bench: Bench, base: Path) -> None:
    with router(bench, "--guarded", *HIDES_FROM_ALL, "--engine-ignores-term") as (server, said):
        await until(lambda: guardians(bench.ledger) != [])
        _forget_descendants(bench)
        server.kill()
        server.wait()
        await until(lambda: not any(map(alive, (said["child"], *said["descendants"]))))
        await until(lambda: not leaves_of(base, server.pid))
        await until(lambda: not guardians(bench.ledger))
    assert bench.records() == []


@pytest.mark.slow
async def test_the_next_server_does_so_too(bench: Bench, base: Path) -> None:
    with router(bench, *HIDES_FROM_ALL) as (server, said):
        _forget_descendants(bench)
        server.kill()
        server.wait()
        [core] = said["descendants"]
        [account] = await asyncio.to_thread(foretell, bench.ledger)
        assert core in [one.pid for one in account.processes]
        assert alive(core)
        async with bench.supervisor():
            assert not alive(core)
            assert leaves_of(base, server.pid) == []
    assert bench.records() == []


def _forget_descendants(bench: Bench) -> None:
    [path] = bench.records()
    path.write_text(json.dumps({**json.loads(path.read_text()), "descendants": []}))


async def test_one_that_no_record_names_is_cleared_away(
    bench: Bench, base: Path, mark: str
) -> None:
    """Its server died between making it and recording the child."""
    us = await asyncio.to_thread(Owner.ourselves)
    dead = replace(us, identity=NOBODY)

    def leaf_of(owner: Owner, ledger: Path) -> Leaf:
        return Grove(base, ledger, owner).leaf(ChildId("tiny-1"))

    leaf = await asyncio.to_thread(leaf_of, dead, bench.ledger)
    ours = await asyncio.to_thread(leaf_of, us, bench.ledger)
    elsewhere = await asyncio.to_thread(leaf_of, dead, bench.home / "other")
    process = await asyncio.to_thread(inhabitant, leaf, mark)
    try:
        for other in (ours, elsewhere):
            os.close(await asyncio.to_thread(other.make) or -1)
        await reap_ledger(bench.ledger, grace=0.0, only=us.identity)
        assert process.poll() is None, "another server was asked about"
        await reap_ledger(bench.ledger, grace=0.0)
        assert process.wait() == -signal.SIGKILL
        assert not leaf.path.exists()
        assert ours.path.exists(), "its server lives: it is us"
        assert elsewhere.path.exists(), "it is of another ledger"
    finally:
        process.kill()
        process.wait()
        for one in (leaf, ours, elsewhere):
            await asyncio.to_thread(one.remove)


def test_a_record_is_not_believed_about_other_cgroups(base: Path, bench: Bench, mark: str) -> None:
    owner = replace(Owner.ourselves(), identity=NOBODY)
    leaf = Grove(base, bench.ledger, owner).leaf(ChildId("tiny-1"))
    os.close(leaf.make() or -1)
    try:
        record = record_of(os.getpid(), owner=owner, child=ChildId("tiny-1"))
        assert recorded_leaf(replace(record, cgroup=str(leaf.path))) == leaf
        others = (
            "",
            str(base),
            str(base / ".." / base.name / leaf.path.name),
            leaf.path.name,
            str(bench.home / leaf.path.name),
            str(leaf.path) + "1",
        )
        for path in others:
            assert recorded_leaf(replace(record, cgroup=path)) is None, path
        mine = replace(record, cgroup=str(leaf.path))
        assert recorded_leaf(replace(mine, child=ChildId("tiny-2"))) is None
        assert recorded_leaf(replace(mine, owner=Owner.ourselves())) is None
    finally:
        leaf.remove()


def test_what_the_kernel_counts(tmp_path: Path) -> None:
    leaf = Leaf(tmp_path)
    assert (leaf.held_bytes(), leaf.left_bytes()) == (None, 0)
    (tmp_path / "memory.current").write_text("1000\n")
    (tmp_path / "memory.stat").write_text("anon 300\nfile 600\nshmem 50\nkernel 100\n")
    assert leaf.held_bytes() == 450
    assert leaf.left_bytes() == 50


# ---- where one may be made


def kernel(root: Path, mounts: str, membership: str = "0::/\n") -> Path:
    (root / "self").mkdir()
    (root / "self" / "mountinfo").write_text(mounts)
    (root / "self" / "cgroup").write_text(membership)
    return root


def test_no_cgroups_at_all(tmp_path: Path) -> None:
    assert find_delegation(tmp_path) == Delegation(None, "this system has no cgroups")


def test_none_that_can_be_seen(tmp_path: Path) -> None:
    found = find_delegation(kernel(tmp_path, "31 23 0:28 / /sys rw - sysfs sysfs rw\n"))
    assert found.base is None
    assert "cannot be seen" in found.reason


@pytest.mark.parametrize("place", ["file", "folder"])
def test_a_place_that_is_none(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    mount = f"41 31 0:38 / {tmp_path / place} rw - cgroup2 cgroup2 rw\n"
    found = find_delegation(kernel(tmp_path, mount))
    assert found.base is None
    assert str(tmp_path / place) in found.reason
    assert list((tmp_path / "folder").iterdir()) == [], "nothing of the trial stays"


def test_this_machine_s_own(base: Path) -> None:
    assert str(os.getpid()) in (base / "cgroup.procs").read_text().split() or base.name != MAIN
    assert not list(base.glob("lemonade.trial-*"))


STEPS_ASIDE = """
import os, sys
from pathlib import Path
from lemonade.supervisor.delegation import claim, find_delegation
os.write(int(sys.argv[1]), b"0")
found = find_delegation()
claim(found, ("hugetlb",))
own = Path("/proc/self/cgroup").read_text().splitlines()[-1].rpartition("/")[2]
print(found.base, found.marked, own, find_delegation().base, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def counted(leaf: Leaf) -> Iterator[Leaf]:
    """A cgroup, not made yet, in which a controller can be asked for."""
    control = leaf.path.parent / "cgroup.subtree_control"
    if "hugetlb" not in (leaf.path.parent / "cgroup.controllers").read_text().split():
        pytest.skip("this machine's hierarchy has no controller to ask for")
    given = control.read_text().split()
    try:
        control.write_text("+hugetlb")
    except OSError as error:
        pytest.skip(f"no controller can be had here: {error}")
    yield leaf
    assert leaf.remove()
    if "hugetlb" not in given:
        control.write_text("-hugetlb")


@pytest.mark.slow
@pytest.mark.parametrize("alone", [True, False], ids=["alone", "with others"])
def test_a_server_steps_aside_in_what_is_its_own(counted: Leaf, mark: str, *, alone: bool) -> None:
    """The kernel counts nothing below a cgroup that holds a process."""
    bystander = None if alone else inhabitant(counted, mark)
    if alone:
        counted.path.mkdir()
    try:
        os.setxattr(counted.path, "user.delegate", b"1")
    except OSError as error:
        pytest.skip(f"this kernel marks no cgroup: {error}")
    entrance = os.open(counted.path / "cgroup.procs", os.O_WRONLY)
    process = subprocess.Popen(
        (sys.executable, "-c", STEPS_ASIDE, str(entrance)),
        env={MARK: mark, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        pass_fds=(entrance,),
    )
    os.close(entrance)
    with process:
        assert process.stdout is not None
        base, marked, own, again = process.stdout.readline().split()
        given = (counted.path / "cgroup.subtree_control").read_text().split()
    if bystander is not None:
        assert bystander.poll() is None, "nobody else is moved or ended"
        bystander.kill()
        bystander.wait()
    assert (base, marked, again) == (str(counted.path), "True", base)
    assert (own, given) == ((MAIN, ["hugetlb"]) if alone else (counted.path.name, []))


def test_nobody_steps_aside_in_what_is_others(base: Path) -> None:
    before = (base / "cgroup.subtree_control").read_text()
    claim(Delegation(base, marked=False), ("hugetlb",))
    claim(Delegation(None, "no"), ("hugetlb",))
    assert (base / "cgroup.subtree_control").read_text() == before
    assert own_identity().pid == os.getpid()
