"""What the kernel knows of a process that ended: whether memory ran out, and what it said.

A process that the kernel kills for memory says nothing, and its end looks like anybody's SIGKILL.
Two witnesses can be heard, each where it is allowed: the counter of such kills of its cgroup, and
the kernel's own log. Everything here blocks, and nothing of it is needed to end a child.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from lemonade.core.process import Diagnosis
from lemonade.core.records import dataclass

OUT_OF_MEMORY: Final = Diagnosis(
    "The kernel killed it because memory ran out.",
    "Choose a smaller context (--ctx-size) or model, unload other models, or allow the server "
    "more memory.",
)

_LOG: Final = Path("/dev/kmsg")
_MOST_LINES: Final = 50
_LINE_CHARACTERS: Final = 500
_READ_BYTES: Final = 16384
_READ_SECONDS: Final = 0.5
_RECORD: Final = re.compile(r"\d+,\d+,(\d+),[^;]*;(.*)")
_TELLING: Final = re.compile(
    r"oom-kill:|Out of memory|NVRM: Xid"
    r"|(?:amdgpu|\bxe\b|i915).*(?:fault|reset|timeout|hang)"
)


@dataclass(frozen=True, slots=True)
class Testimony:
    """What the kernel says of an end.

    Attributes:
        lines: of its log, from the life of the process, that name it or speak of memory or GPUs.
        out_of_memory: whether it killed the process for memory.
    """

    lines: tuple[str, ...] = ()
    out_of_memory: bool = False


class Witness:
    """Follows one process from its spawn."""

    def __init__(
        self,
        pid: int,
        *,
        log: Path = _LOG,
        proc: Path = Path("/proc"),
        cgroups: Path = Path("/sys/fs/cgroup"),
    ) -> None:
        self._log = log
        self._born = time.clock_gettime(time.CLOCK_MONOTONIC)
        self._events = _events_of(pid, proc, cgroups)
        self._kills = _kills(self._events)

    def testify(self, pids: Sequence[int], *, killed: bool) -> Testimony:
        """What is known now that it has ended.

        Args:
            pids: it and what it had started.
            killed: whether SIGKILL ended it, and not ours.
        """
        lines = _lines_about(self._log, pids, self._born)
        named = re.compile(rf"Killed process (?:{'|'.join(map(str, pids)) or '-'})(?![0-9])")
        told = any(named.search(line) for line in lines)
        counted = self._kills is not None and (_kills(self._events) or 0) > self._kills
        return Testimony(lines, killed and (told or counted))


def _events_of(pid: int, proc: Path, cgroups: Path) -> Path | None:
    """`memory.events` of the process's cgroup, where there is one that we can see."""
    try:
        text = (proc / str(pid) / "cgroup").read_text()
    except OSError:
        return None
    for line in text.splitlines():
        if line.startswith("0::"):
            return cgroups / line.removeprefix("0::").lstrip("/") / "memory.events"
    return None


def _kills(events: Path | None) -> int | None:
    """How many processes of the cgroup the kernel has killed for memory so far."""
    try:
        text = events.read_text() if events is not None else ""
    except OSError:
        return None
    found = re.search(r"^oom_kill (\d+)$", text, re.MULTILINE)
    return int(found[1]) if found is not None else None


def _lines_about(log: Path, pids: Sequence[int], since: float) -> tuple[str, ...]:
    about = re.compile(rf"(?:pid[ =:]+|[Pp]rocess |\[)(?:{'|'.join(map(str, pids)) or '-'})\b")
    found = [
        text[:_LINE_CHARACTERS]
        for at, text in _records(log)
        if at >= since - 1.0 and (about.search(text) or _TELLING.search(text))
    ]
    return tuple(found[-_MOST_LINES:])


def _records(log: Path) -> Iterator[tuple[float, str]]:
    """Every record the kernel still has: seconds since boot, and what it says.

    Reading never waits. Where it is not allowed, there are none.
    """
    try:
        descriptor = os.open(log, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return
    begun = time.monotonic()
    try:
        while time.monotonic() - begun < _READ_SECONDS:
            try:
                data = os.read(descriptor, _READ_BYTES)
            except BrokenPipeError:  # the record was overwritten while we read
                continue
            except OSError:  # that was the last
                return
            if not data:
                return
            for line in data.decode("utf-8", "replace").splitlines():
                if (record := _RECORD.match(line)) is not None:
                    yield int(record[1]) / 1e6, record[2]
    finally:
        os.close(descriptor)
