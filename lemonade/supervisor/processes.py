"""What the kernel says about processes: a reading of /proc, and two requests made to the kernel.

Nothing here decides whose a process is. A pid alone is never an identity, since numbers come back:
a pid with its start time is. Reading /proc blocks for microseconds a process, so scans run beside
the event loop.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from lemonade.core.records import dataclass

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36

_PROC: Final = "/proc"

CHILD_VARIABLE: Final = "LEMONADE_CHILD"
"""In the environment of every child: its id, a random word that all it starts inherits."""
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")

_EXHAUSTED: Final = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
"""Errors that speak of us, and not of what we wanted to look at."""


@dataclass(frozen=True, slots=True, order=True)
class Identity:
    """One process, told apart from every other that had or will have its number.

    Attributes:
        pid: its number.
        start_ticks: kernel clock ticks from boot to its start (field 22 of `/proc/PID/stat`).
    """

    pid: int
    start_ticks: int


@dataclass(frozen=True, slots=True)
class ProcessFacts:
    """What `/proc/PID/stat` said.

    Attributes:
        pid: its number.
        start_ticks: see `Identity`.
        parent: who is told of its end; changes when the parent dies.
        group: process group.
        session: session; a child of ours leads its own.
        state: one letter, as the kernel gives it.
        threads: how many it has; a dead one that nobody has collected counts one.
    """

    pid: int
    start_ticks: int
    parent: int
    group: int
    session: int
    state: str
    threads: int

    @property
    def ending(self) -> bool:
        """Its first thread has ended; others may still hold its memory."""
        return self.state in ("Z", "X")

    @property
    def dead(self) -> bool:
        """All of it has ended, though its number may not have been collected yet."""
        return self.ending and self.threads <= 1

    @property
    def identity(self) -> Identity:
        """The pair that is never reused within one boot."""
        return Identity(self.pid, self.start_ticks)


def read_process(pid: int) -> ProcessFacts | None:
    """The facts of one process; `None` if there is none of that number.

    Raises:
        OSError: we may open nothing more; that says nothing about the process.
    """
    raw = _read(f"{_PROC}/{pid}/stat")
    # The name stands in brackets and may hold anything, brackets included.
    fields = raw[raw.rfind(b")") + 2 :].split()
    if len(fields) < 20:
        return None
    return ProcessFacts(
        pid=pid,
        start_ticks=int(fields[19]),
        parent=int(fields[1]),
        group=int(fields[2]),
        session=int(fields[3]),
        state=fields[0].decode(),
        threads=int(fields[17]),
    )


@dataclass(frozen=True, slots=True)
class Effort:
    """What some processes have done since they started, as far as they are still here.

    Attributes:
        cpu_seconds: user and system time, of children they have collected as well.
        read_bytes: what storage has delivered to them, mapped files included.
        written_bytes: what they have for storage to keep: caches that grow.
        resident_bytes: memory they hold now; shared pages count for each.
    """

    cpu_seconds: float = 0.0
    read_bytes: int = 0
    written_bytes: int = 0
    resident_bytes: int = 0


def effort_of(numbers: Iterable[int]) -> Effort:
    """What these processes have done together; those that are gone count nothing.

    Raises:
        OSError: we may open nothing more.
    """
    ticks = read = written = pages = 0
    for pid in numbers:
        stat = _read(f"{_PROC}/{pid}/stat")
        fields = stat[stat.rfind(b")") + 2 :].split()
        if len(fields) < 22:
            continue
        ticks += sum(map(int, fields[11:15]))
        pages += int(fields[21])
        for line in _read(f"{_PROC}/{pid}/io").splitlines():
            if line.startswith(b"read_bytes:"):
                read += int(line.split()[1])
            elif line.startswith(b"write_bytes:"):
                written += int(line.split()[1])
    return Effort(ticks / _TICKS, read, written, pages * _PAGE)


def own_memory_of(numbers: Iterable[int]) -> int:
    """Bytes of main memory that end with these processes.

    Pages of files are left out: they are the kernel's to keep or drop, whoever has mapped them.

    Raises:
        OSError: we may open nothing more.
    """
    kibibytes = 0
    for pid in numbers:
        for line in _read(f"{_PROC}/{pid}/status").splitlines():
            if line.startswith((b"RssAnon:", b"RssShmem:")):
                kibibytes += int(line.split()[1])
    return kibibytes << 10


def shared_memory_of(numbers: Iterable[int]) -> int:
    """The same, with what several of them share counted once; 0 if one of them cannot be seen.

    The kernel looks at every page for that, which takes a moment for each gigabyte.

    Raises:
        OSError: we may open nothing more.
    """
    kibibytes = 0
    for pid in numbers:
        text = _read(f"{_PROC}/{pid}/smaps_rollup")
        if not text:
            return 0
        for line in text.splitlines():
            if line.startswith((b"Pss_Anon:", b"Pss_Shmem:")):
                kibibytes += int(line.split()[1])
    return kibibytes << 10


def _read(path: str) -> bytes:
    """The beginning of a small file of /proc; empty if it cannot be had."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError as error:
        if error.errno in _EXHAUSTED:
            raise
        return b""
    try:
        return os.read(descriptor, 4096)
    except OSError:  # it went away in between
        return b""
    finally:
        os.close(descriptor)


def pids() -> list[int]:
    """The numbers of all processes we can see.

    Raises:
        OSError: we may open nothing more. So do those that ask this one.
    """
    with os.scandir(_PROC) as entries:
        return [int(entry.name) for entry in entries if entry.name.isdecimal()]


def scan() -> dict[int, ProcessFacts]:
    """The facts of all processes we can see."""
    return {pid: facts for pid in pids() if (facts := read_process(pid)) is not None}


def is_alive(identity: Identity) -> bool:
    """Whether exactly this process is still running."""
    facts = read_process(identity.pid)
    return facts is not None and not facts.dead and facts.start_ticks == identity.start_ticks


def identity_of(pid: int) -> Identity | None:
    """Who has that number now, and is alive."""
    facts = read_process(pid)
    return facts.identity if facts is not None and not facts.dead else None


def own_identity() -> Identity:
    """Who we are."""
    pid = os.getpid()
    facts = read_process(pid)
    return Identity(pid, facts.start_ticks if facts is not None else 0)


def executable_of(pid: int) -> str | None:
    """Absolute path of the program it runs; `None` if it is gone or not ours to ask."""
    try:
        path = str(Path(f"{_PROC}/{pid}/exe").readlink())
    except OSError:
        return None
    return path.removesuffix(" (deleted)")  # an update may have replaced the file


def user_of(pid: int) -> int | None:
    """The user it runs as."""
    try:
        return Path(f"{_PROC}/{pid}").stat().st_uid
    except OSError:
        return None


def boot_id() -> str:
    """A word that changes with every boot; start times of different boots cannot be compared."""
    try:
        return Path(f"{_PROC}/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return "unknown"


def pid_namespace() -> str:
    """A word for the world our pids are numbers of: containers of one boot each have their own."""
    try:
        return str(Path(f"{_PROC}/self/ns/pid").readlink())
    except OSError:
        return "unknown"


def holds_output(pid: int, mark: str) -> bool:
    """Whether the process can write to that pipe (`pipe:[INODE]`) or file.

    A child's descendants inherit the writing end of its output, whatever they do to their session,
    parent or name; nobody else has it.
    """
    return any(
        target == mark and _opened_for_writing(pid, number) for number, target in _descriptors(pid)
    )


def carries(pid: int, child: str) -> bool:
    """Whether the process has the id of that child in the environment it was started with.

    What rewrites its environment can only lose it.

    Raises:
        OSError: we may open nothing more.
    """
    try:
        environment = Path(f"{_PROC}/{pid}/environ").read_bytes()
    except OSError as error:
        if error.errno in _EXHAUSTED:
            raise
        return False
    return f"{CHILD_VARIABLE}={child}".encode() in environment.split(b"\0")


def sockets_of(pid: int) -> frozenset[int] | None:
    """Inodes of the sockets it has open; `None` if we may not look."""
    found = _descriptors(pid)
    if not found:
        return None
    return frozenset(int(target[8:-1]) for _, target in found if target.startswith("socket:["))


def _descriptors(pid: int) -> list[tuple[str, str]]:
    found = []
    try:
        for link in Path(f"{_PROC}/{pid}/fd").iterdir():
            try:
                found.append((link.name, str(link.readlink())))
            except OSError:  # closed meanwhile
                continue
    except OSError as error:
        if error.errno in _EXHAUSTED:
            raise
        return []
    return found


def _opened_for_writing(pid: int, number: str) -> bool:
    try:
        lines = Path(f"{_PROC}/{pid}/fdinfo/{number}").read_text().splitlines()
    except OSError:
        return False
    flags = next((line.split()[1] for line in lines if line.startswith("flags:")), "0")
    return int(flags, 8) & os.O_ACCMODE != os.O_RDONLY


def send_signal(identity: Identity, number: int) -> bool:
    """Signal exactly this process; `False` if it is gone, not ours to signal or not to be seen.

    The descriptor is taken first and the start time is read after: once they agree, the number
    cannot come to mean another process.
    """
    try:
        descriptor = os.pidfd_open(identity.pid)
    except ProcessLookupError:
        return False
    except (AttributeError, OSError):  # another system, an old kernel, or a sandbox without it
        return _is_seen_alive(identity) and _kill(identity.pid, number)
    try:
        if not is_alive(identity):
            return False
        signal.pidfd_send_signal(descriptor, number)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def _is_seen_alive(identity: Identity) -> bool:
    try:
        return is_alive(identity)
    except OSError:
        return False


def _kill(pid: int, number: int) -> bool:
    try:
        os.kill(pid, number)
    except OSError:
        return False
    return True


def reap_adopted(pid: int) -> None:
    """Collect a dead process that was re-parented to us. Harmless if it was not."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except OSError:
        return


_libc: Final = ctypes.CDLL(None, use_errno=True)


def become_subreaper() -> bool:
    """Have orphaned descendants re-parented to us instead of to process 1."""
    return bool(_libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)


def ask_for_parent_death_signal(number: int) -> None:
    """For the moment between fork and exec: be sent `number` when the parent's thread ends.

    Nothing is imported and little is allocated here, since only the forking thread exists.
    """
    _libc.prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
