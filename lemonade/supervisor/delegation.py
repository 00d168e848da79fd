"""Whether cgroups may be made here for our children, and where.

They may be made below the cgroup that we are in, if its folder and its `cgroup.procs` can be
written: systemd gives that to a service with `Delegate=yes`, and a user has it below their own
manager. No other place is ever used. Where the tree is given to us in so many words, by the mark
that systemd leaves, we step aside into a cgroup of our own, since the kernel counts memory only
below a cgroup that holds no process itself. Processes that are not ours are never moved.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
from pathlib import Path
from typing import Final

from lemonade.core.cgroups import cgroup_folder
from lemonade.core.records import dataclass

log = logging.getLogger(__name__)

MAIN: Final = "lemonade.main"
"""The cgroup that the server itself is in, where it has stepped aside."""

_CONTROLLERS: Final = ("memory",)
_MARKS: Final = ("user.delegate", "trusted.delegate")
"""Extended attributes that systemd sets on what it has delegated."""


@dataclass(frozen=True, slots=True)
class Delegation:
    """What was found.

    Attributes:
        base: the cgroup that others may be made in; `None` if there is no such.
        reason: why there is none, as the end of a sentence; else empty.
        marked: whether the tree below it is given to us in so many words.
    """

    base: Path | None
    reason: str = ""
    marked: bool = False


def find_delegation(proc: Path = Path("/proc"), *, trial: bool = True) -> Delegation:
    """Look, and try: nothing of the trial stays. Blocks.

    Args:
        proc: where the kernel tells of processes.
        trial: make a cgroup and remove it again; else only permissions are looked at.
    """
    try:
        mounts = (proc / "self/mountinfo").read_text()
        folder = cgroup_folder(mounts, (proc / "self/cgroup").read_text())
    except OSError:
        return Delegation(None, "this system has no cgroups")
    if folder is None:
        return Delegation(None, "the hierarchy of cgroups (version 2) cannot be seen from here")
    own = Path(folder)
    base = own
    if own.name == MAIN or (not _is_marked(own) and _is_marked(own.parent)):
        base = own.parent  # `DelegateSubgroup=`, or we have been here before
    if reason := _tried(base) if trial else _permitted(base):
        return Delegation(None, f"in {base} none can be made ({reason})")
    if not os.access(base / "cgroup.procs", os.W_OK):
        return Delegation(None, f"processes cannot be moved within {base}")
    return Delegation(base, marked=_is_marked(base))


def _tried(base: Path) -> str:
    """Why none can be made; empty if one could."""
    one = base / f"lemonade.trial-{secrets.token_hex(4)}"
    try:
        one.mkdir()
    except OSError as error:
        return error.strerror or str(error)
    try:
        return "" if os.access(one / "cgroup.procs", os.W_OK) else "what is made there is none"
    finally:
        with contextlib.suppress(OSError):
            one.rmdir()


def _permitted(base: Path) -> str:
    return "" if os.access(base, os.W_OK | os.X_OK) else "it may not be written"


def claim(delegation: Delegation, controllers: tuple[str, ...] = _CONTROLLERS) -> None:
    """Have the kernel count and limit memory in what is made there, if that tree is ours alone.

    May move this process, and no other.
    """
    base = delegation.base
    if base is None or not delegation.marked:
        return
    try:
        offered = set((base / "cgroup.controllers").read_text().split())
        given = set((base / "cgroup.subtree_control").read_text().split())
        wanted = [one for one in controllers if one in offered - given]
        if not wanted:
            return
        inside = {int(word) for word in (base / "cgroup.procs").read_text().split()}
        if inside - {os.getpid()}:
            log.debug("Others are in %s: %s is not asked for.", base, ", ".join(wanted))
            return
        if inside:
            (base / MAIN).mkdir(exist_ok=True)
            (base / MAIN / "cgroup.procs").write_text(str(os.getpid()))
        (base / "cgroup.subtree_control").write_text(" ".join(f"+{one}" for one in wanted))
    except (OSError, ValueError) as error:
        log.debug("Memory is not counted in %s: %s", base, error)


def _is_marked(folder: Path) -> bool:
    for name in _MARKS:
        with contextlib.suppress(OSError):
            if os.getxattr(folder, name) == b"1":
                return True
    return False
