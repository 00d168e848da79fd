"""Memory, swap and limits of this process: what makes loads fail long after they were planned."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from lemonade.core.records import dataclass
from lemonade.core.units import render_size
from lemonade.doctor.finding import Finding, Notebook
from lemonade.hardware import Evidence, Machine

GB: Final = 10**9
_LITTLE: Final = 2 * GB
_FEW_FILES: Final = 4096
_NEVER_OVERCOMMIT: Final = "2"


@dataclass(frozen=True, slots=True)
class Limits:
    """Of this process and what it starts.

    Attributes:
        files: descriptors it may allow itself; -1 is no limit.
        locked_bytes: memory it may lock; -1 is no limit.
    """

    files: int
    locked_bytes: int


def check_memory(machine: Machine, root: Path, limits: Limits) -> tuple[Finding, ...]:
    """Look at memory and limits."""
    book = Notebook("memory")
    values = _meminfo(root)
    total, free = values.get("MemTotal", machine.memory_bytes), values.get("MemAvailable")
    swap, free_swap = values.get("SwapTotal"), values.get("SwapFree", 0)
    said = f"{render_size(machine.memory_bytes)} of memory"
    if machine.memory_bytes and machine.memory_bytes < total:
        book.note(
            "memory-limit",
            f"Only {said} may be used of the {render_size(total)} that are here: a container or "
            "a service's limit.",
            Evidence("/sys/fs/cgroup", f"memory.max {machine.memory_bytes}"),
        )
    if free is not None and free < _LITTLE:
        book.warn(
            "little-memory",
            f"Only {render_size(free)} of memory are free; loading a model may end other "
            "programs, or be ended by the kernel.",
            Evidence("/proc/meminfo", f"MemAvailable {free // 1024} kB"),
            fix="`lemonade unload` frees what models take; `ps aux --sort=-rss | head` shows who "
            "else takes much.",
        )
    if swap and free_swap < swap // 10:
        book.warn(
            "swap-full",
            "The swap is almost full: the machine has been short of memory.",
            Evidence("/proc/meminfo", f"SwapFree {free_swap // 1024} of {swap // 1024} kB"),
            fix="`lemonade unload` frees what models take, or load smaller ones.",
        )
    if _text(root / "proc/sys/vm/overcommit_memory") == _NEVER_OVERCOMMIT:
        book.warn(
            "overcommit",
            "The kernel promises no more memory than there is, and engines reserve far more than "
            "they use: loads fail though there is enough.",
            Evidence("/proc/sys/vm/overcommit_memory", _NEVER_OVERCOMMIT),
            fix="`sudo sysctl vm.overcommit_memory=0`, and for good in /etc/sysctl.d.",
        )
    if 0 <= limits.files < _FEW_FILES:
        book.warn(
            "few-files",
            f"The server may open {limits.files} files and connections at most; each stream "
            "takes two.",
            Evidence("ulimit -Hn", str(limits.files)),
            fix="Raise it: `* hard nofile 65536` in /etc/security/limits.d/99-lemonade.conf; for "
            "a service, `LimitNOFILE=65536`.",
        )
    free_text = f", {render_size(free)} free" if free is not None else ""
    swap_text = f", {render_size(swap)} of swap" if swap else ", no swap"
    files = "any number of" if limits.files < 0 else str(limits.files)
    book.ok_unless_trouble(f"{said}{free_text}{swap_text}; {files} files may be open.")
    return book.findings


def _meminfo(root: Path) -> dict[str, int]:
    """/proc/meminfo in bytes."""
    pairs = (line.split() for line in _text(root / "proc/meminfo").splitlines())
    return {w[0].rstrip(":"): int(w[1]) * 1024 for w in pairs if len(w) > 1 and w[1].isdigit()}


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
