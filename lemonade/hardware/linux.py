"""Processor, memory and system of a Linux machine, out of `/proc`, `/sys/fs/cgroup` and `/etc`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final

from lemonade.core.cgroups import cgroup_folder, cgroup_mounts
from lemonade.hardware.facts import Cpu

_USUAL_MOUNT: Final = "1 1 0:1 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw"


def os_version(root: Path) -> str:
    """The distribution's name for people, from os-release(5)."""
    for place in ("etc/os-release", "usr/lib/os-release"):
        for line in _lines(root / place):
            key, _, value = line.partition("=")
            if key == "PRETTY_NAME":
                return value.strip("\"'")
    return "Linux"


def kernel(root: Path) -> str:
    """The release of the running kernel."""
    return (root / "proc/sys/kernel/osrelease").read_text().strip()


def cpu(root: Path) -> Cpu:
    """The processor, from /proc/cpuinfo (proc_cpuinfo(5)).

    Raises:
        OSError: the file cannot be read.
        ValueError: no processor is in it.
    """
    processors = list(_processors((root / "proc/cpuinfo").read_text(errors="replace")))
    if not processors:
        raise ValueError("/proc/cpuinfo lists no processor")
    first = processors[0]
    cores = {
        (each["physical id"], each["core id"])
        for each in processors
        if "physical id" in each and "core id" in each
    }
    threads = len(processors)
    if root == Path("/"):
        threads = len(os.sched_getaffinity(0))
    features = frozenset((first.get("flags") or first.get("Features") or "").split())
    return Cpu(
        name=_cpu_name(root, first),
        family=_family(first, features),
        cores=len(cores) or len(processors),
        threads=threads,
        features=features,
    )


def memory_bytes(root: Path) -> int:
    """Physical memory, or the limit of our control group if that is less.

    Raises:
        OSError, ValueError: the kernel does not say.
    """
    return min([meminfo(root)["MemTotal"], *(limit for _, limit in memory_limits(root))])


def meminfo(root: Path) -> dict[str, int]:
    """/proc/meminfo in bytes."""
    values = {}
    for line in (root / "proc/meminfo").read_text().splitlines():
        key, _, rest = line.partition(":")
        words = rest.split()
        if words and words[0].isdigit():
            values[key] = int(words[0]) * (1024 if words[1:] == ["kB"] else 1)
    if "MemTotal" not in values:
        raise ValueError("/proc/meminfo has no MemTotal")
    return values


def memory_limits(root: Path) -> Iterator[tuple[Path, int]]:
    """The control groups (version 2) above us that limit memory, and their limits in bytes."""
    mountinfo = "\n".join(_lines(root / "proc/self/mountinfo"))
    tops = [point for _, point in cgroup_mounts(mountinfo)]
    if not tops:  # a recording that has none, or a kernel that tells nobody
        mountinfo, tops = _USUAL_MOUNT, [PurePosixPath("/sys/fs/cgroup")]
    group = cgroup_folder(mountinfo, "\n".join(_lines(root / "proc/self/cgroup")))
    if group is None:
        return
    for folder in (group, *group.parents):
        here = root / folder.relative_to("/")
        text = next(iter(_lines(here / "memory.max")), "max")
        if text.isdigit():
            yield here, int(text)
        if folder in tops:
            break


def _processors(text: str) -> Iterator[dict[str, str]]:
    for block in text.split("\n\n"):
        entry = {
            key.strip(): value.strip()
            for key, colon, value in (line.partition(":") for line in block.splitlines())
            if colon
        }
        if "processor" in entry:
            yield entry


def _cpu_name(root: Path, entry: dict[str, str]) -> str:
    if name := entry.get("model name"):
        return name
    if not _is_arm(entry):
        return "unknown"
    # Arm's cpuinfo has numbers only; the device tree names the board.
    board = next(iter(_lines(root / "proc/device-tree/model")), "").rstrip("\0")
    numbers = f"{entry['CPU implementer']}:{entry.get('CPU part', '?')}"
    return board or f"Arm processor {numbers}"


def _family(entry: dict[str, str], features: frozenset[str]) -> str:
    if "lm" in features and "flags" in entry:  # long mode: 64 bits
        return "x86_64"
    if _is_arm(entry) and "asimd" in features:
        return "arm64"
    return "unknown"


def _is_arm(entry: dict[str, str]) -> bool:
    return "CPU implementer" in entry


def _lines(path: Path) -> list[str]:
    """The file's lines; none if it cannot be read."""
    try:
        return path.read_text(errors="replace").splitlines()
    except OSError:
        return []
