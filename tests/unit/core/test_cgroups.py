"""Where a cgroup is among the files, on machines that mount the hierarchy in their own way."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest

from lemonade.core.cgroups import cgroup_folder

UNIFIED = "25 30 0:23 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate"
HYBRID = (
    "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n"
    "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw"
)
PART = "99 30 0:23 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup rw"
SPACES = r"25 30 0:23 / /mnt/control\040groups rw - cgroup2 cgroup2 rw"


@pytest.mark.parametrize(
    ("mounts", "membership", "folder"),
    [
        (UNIFIED, "0::/", "/sys/fs/cgroup"),
        (UNIFIED, "0::/user.slice/x", "/sys/fs/cgroup/user.slice/x"),
        (UNIFIED, "0::/gone (deleted)", "/sys/fs/cgroup/gone"),
        (HYBRID, "4:memory:/y\n1:name=systemd:/z\n0::/x", "/sys/fs/cgroup/unified/x"),
        (PART, "0::/docker/abc/d", "/sys/fs/cgroup/d"),
        (PART, "0::/docker/abcd", None),
        (UNIFIED, "0::/../elsewhere", None),
        (UNIFIED, "4:memory:/y", None),
        (SPACES, "0::/x", "/mnt/control groups/x"),
        (f"{UNIFIED}\n{SPACES}", "0::/x", "/mnt/control groups/x"),
        ("25 30 0:23 / /sys/fs/cgroup rw - cgroup cgroup rw", "0::/x", None),
        ("not a mount", "0::/x", None),
        ("", "", None),
    ],
)
def test_the_folder_of_a_group(mounts: str, membership: str, folder: str | None) -> None:
    expected = PurePosixPath(folder) if folder is not None else None
    assert cgroup_folder(mounts, membership) == expected
