"""May this user open a device, and if not, what would let them: a group, or a container's option.

The answer is the kernel's (`access(2)`), since it knows of access lists too; mode and group are
read only to say what is wrong. Nothing is opened: opening a device may wake it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

from lemonade.hardware.facts import Evidence, Problem

MayOpen = Callable[[Path], bool]


def may_open(path: Path) -> bool:
    """Whether this process may read and write the device."""
    return os.access(path, os.R_OK | os.W_OK)


def access_problem(root: Path, node: str, allowed: MayOpen, driver: str) -> Problem | None:
    """Why the device cannot be opened; `None` if it can.

    Args:
        root: of the machine's files.
        node: `/dev/kfd`.
        allowed: decides; `may_open` outside tests.
        driver: the module that makes the node.
    """
    path = root / node.lstrip("/")
    try:
        status = path.stat()
    except OSError as error:
        return Problem(
            "device-missing",
            f"{node} is missing.",
            Evidence(node, error.strerror or "it cannot be looked at"),
            f"In a container: start it with `--device {_container_device(node)}`. "
            f"On the machine itself: `sudo modprobe {driver}`, then look into `sudo dmesg`.",
        )
    if allowed(path):
        return None
    group = _group_name(root, status.st_gid)
    mode = f"mode {stat.S_IMODE(status.st_mode):04o}, group {group or status.st_gid}"
    return Problem(
        "no-permission",
        f"{node} may not be opened by this user.",
        Evidence(node, mode),
        _way_in(node, status, group),
    )


def _way_in(node: str, status: os.stat_result, group: str) -> str:
    if (
        status.st_gid == 0
        or not status.st_mode & stat.S_IRGRP
        or not status.st_mode & stat.S_IWGRP
    ):
        # Nobody should join root's group for it; distributions have a rule for udev that sets it.
        return (
            f"No group may open it: `sudo chgrp render {node} && sudo chmod 0660 {node}`, "
            "and a udev rule that does so at every start; then join the group render."
        )
    if not group:
        return (
            f"Its group has no name here; start the container with `--group-add {status.st_gid}`."
        )
    return (
        f"Join the group {group}: `sudo usermod -aG {group} $USER`, then log in again "
        f"(in a container: `--group-add {status.st_gid}`)."
    )


def _container_device(node: str) -> str:
    """GPUs are given to containers by folder, since their numbers change."""
    return "/dev/kfd --device /dev/dri" if node.startswith(("/dev/kfd", "/dev/dri")) else node


def _group_name(root: Path, gid: int) -> str:
    try:
        lines = (root / "etc/group").read_text(errors="replace").splitlines()
    except OSError:
        return ""
    fields = (line.split(":") for line in lines)
    return next((words[0] for words in fields if words[2:3] == [str(gid)]), "")
