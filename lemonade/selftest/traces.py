"""Which processes are ours: all that carry the random mark of this run, whoever started them.

The mark is part of the name of the directory that everything of a run lives in, and that name is
in the environment or the command line of every process: what left its session, or lost its parent,
is found all the same. No process without the mark is ever signalled.
"""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

from lemonade.core.records import dataclass

_PROC = Path("/proc")
_DEAD = ("Z", "X")


@dataclass(frozen=True, slots=True)
class Trace:
    """A living process that carries the mark."""

    pid: int
    parent: int
    command: str

    def __str__(self) -> str:
        return f"{self.pid} ({self.command or 'ending'})"


def living(mark: str) -> tuple[Trace, ...]:
    """All of them; what is dead and waits to be collected is not alive."""
    numbers = (int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit())
    found = (_trace(pid, mark) for pid in numbers if pid != os.getpid())
    return tuple(one for one in found if one is not None)


def alive(pid: int) -> bool:
    """Whether the process of that number does anything."""
    return (stat := _stat(pid)) is not None and stat[0] not in _DEAD


def open_files(pid: int) -> int:
    """How many files and connections a process has open; 0 if it is gone."""
    try:
        return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return 0


def resident_bytes(pid: int) -> int:
    """Main memory that a process has in use, shared pages included; 0 if it is gone."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def tell(pid: int, number: int, mark: str) -> bool:
    """Signal a process if it carries the mark; whether it was there to be signalled."""
    try:
        descriptor = os.pidfd_open(pid)  # from here on the number means this process or nobody
    except OSError:
        return False
    try:
        if _trace(pid, mark) is None:
            return False
        signal.pidfd_send_signal(descriptor, number)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def end_all(mark: str) -> tuple[Trace, ...]:
    """Kill everything that carries the mark; what that was."""
    found = living(mark)
    for one in found:
        tell(one.pid, signal.SIGKILL, mark)
    return found


def _trace(pid: int, mark: str) -> Trace | None:
    stat = _stat(pid)
    if stat is None or stat[0] in _DEAD:
        return None
    command, text = b"", b""
    with contextlib.suppress(OSError):
        command = (_PROC / str(pid) / "cmdline").read_bytes()
        text = command + (_PROC / str(pid) / "environ").read_bytes()
    if mark.encode() not in text:
        return None
    words = command.decode("utf-8", "replace").replace("\0", " ").strip()
    return Trace(pid, int(stat[1]), words[:300])


def _stat(pid: int) -> list[str] | None:
    """State, parent and what follows."""
    try:
        text = (_PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return None
    return text.rpartition(")")[2].split()
