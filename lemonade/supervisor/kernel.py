"""What the kernel knows of a process that ended: whether memory ran out, and what it said.

A process that the kernel kills for memory says nothing, and its end looks like anybody's SIGKILL.
Two witnesses can be heard, each where it is allowed: the counter of such kills of its cgroup, and
the kernel's own log. Everything here blocks, and nothing of it is needed to end a child.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from lemonade.core.cgroups import cgroup_folder
from lemonade.core.process import OUT_OF_MEMORY as NAME
from lemonade.core.process import Diagnosis
from lemonade.core.records import dataclass
from lemonade.supervisor.kernel_log import LOG, KernelLog, read_kernel_log

OUT_OF_MEMORY: Final = Diagnosis(
    "The kernel killed it because memory ran out.",
    "Choose a smaller context (--ctx-size) or model, unload other models, or allow the server "
    "more memory.",
    name=NAME,
)

_MOST_LINES: Final = 50
_LINE_CHARACTERS: Final = 500
_TELLING: Final = re.compile(
    r"oom-kill:|Out of memory|NVRM: Xid"
    r"|(?:amdgpu|amdkfd|amdxdna|\bxe\b|i915).*(?:\bfault|reset|time(?:d ?)?out|hang|lost\b|wedged)"
    r"|(?:amdgpu|amdkfd|NVRM).*(?:uncorrectable|fallen off the bus)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Testimony:
    """What the kernel says of an end.

    Attributes:
        lines: of its log, from the life of the process, that name it or speak of memory or GPUs.
        out_of_memory: whether it killed one of the processes for memory.
        unread: why its log could not be read; empty if it was, or nobody tried.
    """

    lines: tuple[str, ...] = ()
    out_of_memory: bool = False
    unread: str = ""


class Witness:
    """Follows one process from its spawn."""

    def __init__(
        self,
        pid: int,
        *,
        log: Path = LOG,
        proc: Path = Path("/proc"),
    ) -> None:
        self._log = log
        self._born = time.clock_gettime(time.CLOCK_MONOTONIC)
        self._events = _events_of(pid, proc)
        ours = _events_of("self", proc)
        self._alone = ours is not None and self._events != ours  # it was put there, by us
        self._kills = _kills(self._events)

    def testify(self, pids: Sequence[int], *, killed: bool) -> Testimony:
        """What is known now that it has ended.

        Args:
            pids: it and what it had started.
            killed: whether SIGKILL ended it, and not ours. Where the log names one of them, or a
                cgroup counts nobody else, that is evidence enough: a server may end by itself when
                what it started is killed.
        """
        said = read_kernel_log(self._log)
        lines = _about(said, pids, self._born)
        named = re.compile(rf"Killed process (?:{'|'.join(map(str, pids)) or '-'})(?![0-9])")
        told = any(named.search(line) for line in lines)
        counted = self._kills is not None and (_kills(self._events) or 0) > self._kills
        return Testimony(lines, told or (counted and (killed or self._alone)), said.unread)


def _events_of(pid: int | str, proc: Path) -> Path | None:
    """`memory.events` of the process's cgroup, where there is one that we can see."""
    try:
        mounts = (proc / "self/mountinfo").read_text()
        folder = cgroup_folder(mounts, (proc / str(pid) / "cgroup").read_text())
    except OSError:
        return None
    return Path(folder) / "memory.events" if folder is not None else None


def _kills(events: Path | None) -> int | None:
    """How many processes of the cgroup the kernel has killed for memory so far."""
    try:
        text = events.read_text() if events is not None else ""
    except OSError:
        return None
    found = re.search(r"^oom_kill (\d+)$", text, re.MULTILINE)
    return int(found[1]) if found is not None else None


def _about(said: KernelLog, pids: Sequence[int], since: float) -> tuple[str, ...]:
    """What it said since then that names one of the processes, or speaks of memory or GPUs."""
    about = re.compile(rf"(?:pid[ =:]+|[Pp]rocess |\[)(?:{'|'.join(map(str, pids)) or '-'})\b")
    found = [
        text[:_LINE_CHARACTERS]
        for at, text in said.records
        if at >= since - 1.0 and (about.search(text) or _TELLING.search(text))
    ]
    return tuple(found[-_MOST_LINES:])
