"""The limits of one child, put in force between fork and exec.

What this machine cannot do is found out before the fork, where it can still be explained. After
it nothing is imported and nothing is waited for.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Callable

from lemonade.core.errors import SpawnFailed
from lemonade.core.process import Limits


def ready_limits(limits: Limits, name: str) -> Callable[[], None]:
    """What the forked process has to call, after everything has been checked.

    Args:
        limits: of the child.
        name: of the child, for messages.

    Raises:
        SpawnFailed: this machine cannot do that.
    """
    rlimits = []
    if limits.open_files is not None:
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        if hard != resource.RLIM_INFINITY and limits.open_files > hard:
            raise _impossible(
                name,
                f"{limits.open_files} open files are more than the {hard} allowed here",
                "Lower max_open_files, or raise the limit (`ulimit -Hn`) that the server has.",
            )
        # The engine may not raise it again by itself, as it could a soft limit.
        rlimits.append((resource.RLIMIT_NOFILE, limits.open_files))
    if limits.memory_bytes is not None:
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        most = limits.memory_bytes if hard < 0 else min(hard, limits.memory_bytes)
        rlimits.append((resource.RLIMIT_DATA, most))
    if limits.cpus:
        missing = set(limits.cpus) - os.sched_getaffinity(0)
        if missing:
            raise _impossible(
                name,
                f"the server may not run on CPU {', '.join(map(str, sorted(missing)))}",
                "Choose others with the option cpus; `taskset -p PID` shows those of the server.",
            )

    def apply() -> None:
        for which, most in rlimits:
            resource.setrlimit(which, (most, most))
        if limits.nice:
            os.nice(limits.nice)
        if limits.cpus:
            os.sched_setaffinity(0, limits.cpus)

    return apply


def _impossible(name: str, why: str, remedy: str) -> SpawnFailed:
    return SpawnFailed(f"{name}: {why}.", remedy=remedy, facts={"last_lines": []})
