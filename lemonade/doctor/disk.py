"""The disks that hold what Lemonade keeps: room, file nodes, and whether they can be used at all.

Each place is looked at where it will be: at the nearest folder above it that is there. Nothing is
written to find out.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

from lemonade.core.records import dataclass
from lemonade.core.units import render_size
from lemonade.doctor.finding import Finding, Notebook
from lemonade.hardware import Evidence

GB: Final = 10**9
_FULL: Final = GB // 5
_FEW_NODES: Final = 10_000
_IN_MEMORY: Final = frozenset({"tmpfs", "ramfs"})
_NETWORK: Final = frozenset({"nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "afs", "ceph"})


@dataclass(frozen=True, slots=True)
class Place:
    """A folder of ours.

    Attributes:
        name: what it is, for people: `cache`.
        path: where it is or will be; absolute.
        wanted_bytes: with less room than that, what goes there will soon not fit.
        runs: whether programs are started from there.
        lasting: whether what is in it should outlive a restart of the machine.
    """

    name: str
    path: Path
    wanted_bytes: int
    runs: bool = False
    lasting: bool = True


@dataclass(frozen=True, slots=True)
class DiskFacts:
    """What is true where a place is.

    Attributes:
        path: the nearest folder that is there.
        writable: whether this user may make files in it.
        owner: number of the user it belongs to.
        mode: its permissions.
        free_nodes: how many more files there may be; `None` if that has no limit.
    """

    path: Path
    writable: bool
    owner: int
    mode: int
    free_bytes: int
    free_nodes: int | None


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of `/proc/self/mountinfo`, as far as it matters."""

    point: str
    kind: str
    options: frozenset[str]


def check_disk(
    places: Sequence[Place],
    mounts: Sequence[Mount],
    user: int,
    look: Callable[[Path], DiskFacts],
) -> tuple[Finding, ...]:
    """Look at each place.

    Args:
        places: to look at.
        mounts: of this machine.
        user: number of the user who asks.
        look: reads what is true of a path; `look_at_disk` outside tests.
    """
    book = Notebook("disk")
    for place in places:
        try:
            facts = look(place.path)
        except OSError as error:
            book.error(
                "not-there",
                f"The {place.name} folder {place.path} cannot be looked at.",
                Evidence(str(place.path), error.strerror or str(error)),
                fix=_elsewhere(place),
            )
            continue
        mount = mount_of(facts.path, mounts)
        before = len(book.findings)
        _look_at_mount(book, place, facts, mount)
        _look_at_access(book, place, facts, user)
        _look_at_room(book, place, facts)
        if len(book.findings) == before:
            book.ok(
                f"{place.name}: {place.path}, {render_size(facts.free_bytes)} free"
                f"{f' ({mount.kind})' if mount else ''}."
            )
    return book.findings


def look_at_disk(path: Path) -> DiskFacts:
    """What is true of a path on this machine.

    Raises:
        OSError: not even the folders above it can be looked at.
    """
    there = path
    while not there.exists() and there != there.parent:
        there = there.parent
    there = there.resolve()
    status, disk = there.stat(), os.statvfs(there)
    return DiskFacts(
        path=there,
        writable=os.access(there, os.W_OK | os.X_OK),
        owner=status.st_uid,
        mode=stat.S_IMODE(status.st_mode),
        free_bytes=disk.f_bavail * disk.f_frsize,
        free_nodes=disk.f_favail if disk.f_files else None,
    )


def read_mounts(root: Path) -> tuple[Mount, ...]:
    """What is mounted where (proc_pid_mountinfo(5)); empty where the kernel does not say."""
    try:
        lines = (root / "proc/self/mountinfo").read_text(errors="replace").splitlines()
    except OSError:
        return ()
    found = []
    for line in lines:
        before, _, after = line.partition(" - ")
        words, rest = before.split(), after.split()
        if len(words) >= 6 and len(rest) >= 3:
            point = re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), words[4])
            options = frozenset((*words[5].split(","), *rest[2].split(",")))
            found.append(Mount(point, rest[0], options))
    return tuple(found)


def mount_of(path: Path, mounts: Iterable[Mount]) -> Mount | None:
    """The mount a path is on: the one that goes farthest, and of those the last."""
    above = [mount for mount in mounts if path.is_relative_to(mount.point)]
    longest = max((len(mount.point) for mount in above), default=0)
    return next((mount for mount in reversed(above) if len(mount.point) == longest), None)


def _look_at_mount(book: Notebook, place: Place, facts: DiskFacts, mount: Mount | None) -> None:
    if mount is None:
        return
    seen = Evidence("/proc/self/mountinfo", f"{mount.point} {mount.kind}")
    where = f"The {place.name} folder {place.path}"
    if "ro" in mount.options:
        book.error(
            "read-only",
            f"{where} is on a file system that is mounted read-only.",
            seen,
            fix=f"`sudo mount -o remount,rw {mount.point}`, or {_elsewhere(place, small=True)}",
        )
    if place.runs and "noexec" in mount.options:
        book.error(
            "no-exec",
            f"{where} is on a file system from which no program may be started, and engines "
            "are installed there.",
            seen,
            fix=f"`sudo mount -o remount,exec {mount.point}`, or {_elsewhere(place, small=True)}",
        )
    if place.lasting and mount.kind in _IN_MEMORY:
        book.warn(
            "in-memory",
            f"{where} is kept in main memory: what is there takes memory away from models, and "
            "is gone after a restart.",
            seen,
            fix=_elsewhere(place),
        )
    if place.runs and mount.kind in _NETWORK:
        book.note(
            "network-disk",
            f"{where} is on another machine ({mount.kind}): engines start as fast as the network "
            "is, and locks between servers may not hold.",
            seen,
        )


def _look_at_access(book: Notebook, place: Place, facts: DiskFacts, user: int) -> None:
    seen = Evidence(str(facts.path), f"mode {facts.mode:04o}, owner {facts.owner}")
    if not facts.writable:
        book.error(
            "not-writable",
            f"The {place.name} folder {place.path} may not be written by this user ({user}).",
            seen,
            fix=f"`sudo chown -R $USER {facts.path}` if it is meant to be yours, or "
            f"{_elsewhere(place, small=True)}",
        )
    elif facts.path == place.path and facts.owner != user:
        book.note(
            "other-owner",
            f"The {place.name} folder {place.path} belongs to another user ({facts.owner}); files "
            "that are made there now will not be that user's.",
            seen,
        )


def _look_at_room(book: Notebook, place: Place, facts: DiskFacts) -> None:
    seen = Evidence(str(facts.path), f"{render_size(facts.free_bytes)} free")
    if facts.free_bytes < _FULL:
        book.error(
            "full",
            f"The disk of the {place.name} folder {place.path} is full.",
            seen,
            fix=f"Free some space (`lemonade list --downloaded`, `lemonade delete MODEL`), or "
            f"{_elsewhere(place, small=True)}",
        )
    elif facts.free_bytes < place.wanted_bytes:
        book.warn(
            "little-room",
            f"Only {render_size(facts.free_bytes)} are free for the {place.name} folder "
            f"{place.path}; the next download will probably not fit.",
            seen,
            fix=f"Free some space, or {_elsewhere(place, small=True)}",
        )
    if facts.free_nodes is not None and facts.free_nodes < _FEW_NODES:
        book.warn(
            "few-nodes",
            f"The disk of the {place.name} folder {place.path} can hold only "
            f"{facts.free_nodes} more files, however large; an engine in Python has tens of "
            "thousands.",
            Evidence(f"df -i {facts.path}", f"{facts.free_nodes} free"),
            fix=f"Remove folders with many small files, or {_elsewhere(place, small=True)}",
        )


def _elsewhere(place: Place, *, small: bool = False) -> str:
    variable = {
        "models": "`lemonade config set models_dir=FOLDER`",
        "config": "LEMONADE_CONFIG_DIR=FOLDER",
        "runtime": "XDG_RUNTIME_DIR=FOLDER",
    }.get(place.name, "LEMONADE_CACHE_DIR=FOLDER")
    text = f"choose another folder with {variable}."
    return text if small else text[:1].upper() + text[1:]
