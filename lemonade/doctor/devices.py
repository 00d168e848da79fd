"""Which GPUs and NPUs are here, whether each can be used, and who is let in.

The facts and their reasons are those of `lemonade.hardware`; added is what only the person at this
machine can see: that a group was joined, but after this session began.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Final

from lemonade.core.records import dataclass
from lemonade.core.units import render_size
from lemonade.doctor.finding import Finding, Notebook
from lemonade.hardware import Evidence, Gpu, Machine, Npu

_ACCESS: Final = frozenset({"no-permission", "device-missing"})


@dataclass(frozen=True, slots=True)
class User:
    """Who is asking.

    Attributes:
        groups: numbers of the groups this process has.
        home: absolute path of the home directory; empty if there is none.
    """

    uid: int
    name: str
    groups: frozenset[int]
    home: str


def check_devices(machine: Machine) -> tuple[Finding, ...]:
    """Every device with the reason why it cannot be used; access is `check_access`'s business."""
    book = Notebook("devices")
    cpu = machine.cpu
    book.ok(
        f"Processor: {cpu.name}, {cpu.family}, {cpu.cores} cores, "
        f"{cpu.threads} threads that may be used."
    )
    devices: tuple[Gpu | Npu, ...] = (*machine.gpus, *machine.npus)
    for device in devices:
        if device.problem is None:
            seen = (device.seen,) if device.seen else ()
            book.ok(f"{described(device)} can be used.", *seen)
        elif device.problem.rule not in _ACCESS:
            book.warn(
                device.problem.rule,
                f"{described(device)} cannot be used. {device.problem.reason}",
                device.problem.evidence,
                fix=device.problem.fix,
            )
    for problem in machine.problems:
        book.warn(
            "not-detected",
            problem,
            fix="What could not be read is probably hidden from this process by a container or "
            "a sandbox; run `lemonade doctor` outside of it.",
        )
    if not machine.gpus and not machine.npus:
        book.note(
            "processor-only",
            "No GPU and no NPU that engines could use is on the bus; models run on the processor.",
            Evidence("/sys/bus/pci/devices", "none of AMD's or NVIDIA's"),
        )
    return book.findings


def check_access(machine: Machine, root: Path, user: User) -> tuple[Finding, ...]:
    """Whether this user may open the nodes of the devices that are here."""
    book = Notebook("access")
    devices: tuple[Gpu | Npu, ...] = (*machine.gpus, *machine.npus)
    told: set[str] = set()
    for device in devices:
        problem = device.problem
        if problem is None or problem.rule not in _ACCESS or problem.evidence.path in told:
            continue
        told.add(problem.evidence.path)
        fix = problem.fix
        if joined := _joined_later(root, problem.evidence.path, user):
            fix = (
                f"{user.name or 'This user'} is in the group {joined} by now, but this session "
                f"began before: log out and in again, or try `newgrp {joined}`. A service needs "
                "a restart."
            )
        book.warn(
            problem.rule,
            f"{_names(devices, problem.evidence.path)} cannot be used. {problem.reason}",
            problem.evidence,
            fix=fix,
        )
    nodes = [_node(device) for device in devices if device.problem is None]
    if nodes:
        book.ok(f"This user may open {', '.join(filter(None, nodes)) or 'the devices'}.")
    elif not devices:
        book.ok("There is no device that would have to be opened.")
    return book.findings


def described(device: Gpu | Npu) -> str:
    """The device as people know it: `Radeon 8060S (gfx1151, 64 GB shared)`."""
    facts = [device.family or "family unknown"]
    if isinstance(device, Gpu) and device.pool_bytes:
        shared = " shared with the processor" if device.integrated else ""
        facts.append(f"{render_size(device.pool_bytes)}{shared}")
    return f"{device.name} ({', '.join(facts)})"


def _names(devices: Sequence[Gpu | Npu], path: str) -> str:
    return " and ".join(
        described(device)
        for device in devices
        if device.problem is not None and device.problem.evidence.path == path
    )


def _node(device: Gpu | Npu) -> str:
    return device.render_node if isinstance(device, Gpu) else device.device_node


def _joined_later(root: Path, node: str, user: User) -> str:
    """The group of the node if the user is listed in it and this process does not have it."""
    try:
        gid = (root / node.lstrip("/")).stat().st_gid
        lines = (root / "etc/group").read_text(errors="replace").splitlines()
    except OSError:
        return ""
    return _group_with(lines, gid, user.name) if gid not in user.groups else ""


def _group_with(lines: Collection[str], gid: int, name: str) -> str:
    for line in lines:
        words = line.split(":")
        if len(words) == 4 and words[2] == str(gid) and name in words[3].split(","):
            return words[0]
    return ""
