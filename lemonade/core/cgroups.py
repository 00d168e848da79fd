"""Where a control group (version 2) is to be found among the files: two texts of the kernel read.

The hierarchy is mounted where an administrator wants it, also below another directory or in part
only, as in a container. `/proc/PID/cgroup` says which group a process is in, and
`/proc/self/mountinfo` which part of the hierarchy we see where.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Final

_FILE_SYSTEM: Final = "cgroup2"
_VERSION_2: Final = "0::"
_DELETED: Final = " (deleted)"
_ESCAPED: Final = re.compile(r"\\([0-7]{3})")


def cgroup_mounts(mountinfo: str) -> tuple[tuple[str, PurePosixPath], ...]:
    """Which part of the hierarchy is seen where; the mount made last comes first.

    Args:
        mountinfo: content of `/proc/self/mountinfo`.
    """
    found = []
    for line in mountinfo.splitlines():
        place, dash, what = line.partition(" - ")
        fields = place.split(" ")
        if dash and what.split(" ")[0] == _FILE_SYSTEM and len(fields) > 4:
            found.append((_plain(fields[3]), PurePosixPath(_plain(fields[4]))))
    return tuple(reversed(found))


def cgroup_folder(mountinfo: str, membership: str) -> PurePosixPath | None:
    """The folder of the group a process is in; `None` if it cannot be seen from here.

    Args:
        mountinfo: content of `/proc/self/mountinfo`.
        membership: content of `/proc/PID/cgroup`.
    """
    for line in membership.splitlines():
        if not line.startswith(_VERSION_2):
            continue
        group = PurePosixPath(line.removeprefix(_VERSION_2).removesuffix(_DELETED))
        for part, point in cgroup_mounts(mountinfo):
            if ".." not in group.parts and group.is_relative_to(part):
                return point / group.relative_to(part)
    return None


def _plain(word: str) -> str:
    """A path with its spaces; the kernel writes these as numbers."""
    return _ESCAPED.sub(lambda match: chr(int(match[1], 8)), word)
