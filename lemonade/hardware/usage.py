"""How busy the machine is now. What the kernel does not say is `None`, never a made-up zero."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from lemonade.core.records import dataclass
from lemonade.hardware.files import number
from lemonade.hardware.linux import meminfo, memory_limits


@dataclass(frozen=True, slots=True)
class SystemUsage:
    """One look.

    Attributes:
        cpu_percent: of all processors since the look before; `None` at the first.
        memory_bytes: taken and not to be had by dropping caches. Counted in our control group
            where that has a limit, as `Machine.memory_bytes` is.
        gpu_percent: of the busiest AMD GPU.
        vram_bytes: taken of the GPUs' own memory, all together.
        npu_percent: not known yet.
    """

    cpu_percent: float | None
    memory_bytes: int
    gpu_percent: float | None = None
    vram_bytes: int | None = None
    npu_percent: float | None = None


class UsageMeter:
    """Looks at one machine, and remembers its last look at the processors."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._last: tuple[int, int] | None = None
        self._percent: float | None = None

    def look(self) -> SystemUsage:
        """How busy it is now. Reads some small files."""
        devices = [path / "device" for path in (self._root / "sys/class/drm").glob("renderD*")]
        busy = [number(d / "gpu_busy_percent") for d in devices if _has(d, "gpu_busy_percent")]
        taken = [
            number(d / "mem_info_vram_used") for d in devices if _has(d, "mem_info_vram_used")
        ]
        return SystemUsage(
            cpu_percent=self._cpu_percent(),
            memory_bytes=_memory_bytes(self._root),
            gpu_percent=float(max(busy)) if busy else None,
            vram_bytes=sum(taken) if taken else None,
        )

    def _cpu_percent(self) -> float | None:
        try:
            words = (self._root / "proc/stat").read_text().split("\n", 1)[0].split()
            # user nice system idle iowait irq softirq steal; guest time is in user already
            times = [int(word) for word in words[1:9]]
        except (OSError, ValueError):
            return None
        if len(times) < 5:
            return None
        now = (sum(times), times[3] + times[4])
        last, self._last = self._last, now
        if last is not None and now[0] > last[0]:  # else nothing was counted since the last look
            self._percent = round(100 * (1 - (now[1] - last[1]) / (now[0] - last[0])), 1)
        return self._percent


def usage(root: Path = Path("/")) -> SystemUsage:
    """How busy the machine is now, compared with the last time anybody asked."""
    return _meter(root).look()


@cache
def _meter(root: Path) -> UsageMeter:
    return UsageMeter(root)


def _has(folder: Path, name: str) -> bool:
    return (folder / name).is_file()


def _memory_bytes(root: Path) -> int:
    try:
        values = meminfo(root)
    except (OSError, ValueError):
        import psutil  # as in `detect`: not on Linux

        return psutil.virtual_memory().used
    limits = [(limit, group) for group, limit in memory_limits(root)]
    if limits:
        limit, group = min(limits)
        if limit < values["MemTotal"]:
            return number(group / "memory.current") - _droppable(group)
    return values["MemTotal"] - values.get("MemAvailable", values.get("MemFree", 0))


def _droppable(group: Path) -> int:
    """Pages of files in the group that have not been touched for a while."""
    try:
        lines = (group / "memory.stat").read_text().splitlines()
    except OSError:
        return 0
    return next((int(x.split()[1]) for x in lines if x.startswith("inactive_file ")), 0)
