"""What an earlier server has kept for us: found, proven, and made ours before anybody reaps.

A child is taken over only if its server is dead, or was this very process before it became what it
is now; if number, start time, user, session and program are the recorded ones; and if it is the
child that listens on its port. Whether it is well and of use is asked later, by those who use it.
One server at a time takes over, and from then on the record names it.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from lemonade.core.ids import ChildId
from lemonade.core.inference import JsonObject
from lemonade.core.records import dataclass
from lemonade.storage import FileLock
from lemonade.supervisor.adopted import Adopted, open_process
from lemonade.supervisor.fitness import unfit
from lemonade.supervisor.grove import recorded_leaf
from lemonade.supervisor.inspection import LedgerEntry, read_entries, sessions_of_others
from lemonade.supervisor.kept import Kept
from lemonade.supervisor.ledger import Ledger, Owner, Record
from lemonade.supervisor.proof import look_for
from lemonade.supervisor.spool import Spool

log = logging.getLogger(__name__)

LOCK: Final = "taking-over.lock"
"""Held by whoever takes over: what one server looks at, another must not."""


@dataclass(frozen=True, slots=True)
class Heir:
    """A child of an earlier server that is ours now, and that nobody looks after yet.

    Attributes:
        record: as the ledger has it, with us as owner.
        started_at: when, in seconds of the epoch.
        process: to be watched.
        recalled: what it printed last.
        facts: what those who use it wrote down.
    """

    record: Record
    started_at: float
    process: Adopted
    recalled: bytes
    facts: JsonObject


@dataclass(frozen=True, slots=True)
class Refused:
    """A child that is not taken over. It is ended if it is proven to be what was recorded."""

    record: Record
    reason: str


def take_over(
    ledger: Ledger, us: Owner, pipes: Mapping[ChildId, int] | None
) -> tuple[list[Heir], list[Refused]]:
    """Make ours what was kept for us. Blocks.

    Args:
        ledger: where it is recorded.
        us: this server.
        pipes: reading ends of pipes that this process had before it became what it is now; `None`
            if it was nothing else.

    Raises:
        LemonadeError: the ledger cannot be locked.
        OSError: it cannot be listed, or we may open nothing to look at.
    """
    heirs: list[Heir] = []
    refused: list[Refused] = []
    if not ledger.directory.is_dir():
        return heirs, refused
    with FileLock(ledger.directory / LOCK):
        entries = read_entries(ledger.directory, us)
        before = [e for e in entries if pipes is not None and _is_ours(e, us)]
        protected = sessions_of_others([e for e in entries if e not in before])
        for entry in entries:
            record = entry.record
            if record is None or not (entry.state == "gone" or entry in before):
                continue
            kept = ledger.kept(record.child)
            if kept is None and entry not in before:
                continue
            heir = _prove(record, kept, us, pipes or {}, protected)
            if isinstance(heir, str):
                ledger.forget(record.child)
                refused.append(Refused(record, heir))
            else:
                ledger.write(heir.record)
                heirs.append(heir)
    for child, pipe in (pipes or {}).items():
        if child not in {heir.record.child for heir in heirs}:
            os.close(pipe)
    return heirs, refused


def renounce(ledger: Ledger, record: Record) -> bool:
    """Have nobody take a child over any more; `False` if somebody just has. Blocks.

    Raises:
        LemonadeError: the ledger cannot be locked.
        OSError: it cannot be read or changed.
    """
    with FileLock(ledger.directory / LOCK):
        if ledger.owner(record.child) != record.owner:
            return False
        ledger.forget(record.child)
        return True


def _is_ours(entry: LedgerEntry, us: Owner) -> bool:
    """Whether it is of this process: of its former life, if it had one."""
    return entry.state == "served" and entry.record is not None and entry.record.owner == us


def _prove(
    record: Record,
    kept: Kept | None,
    us: Owner,
    pipes: Mapping[ChildId, int],
    protected: frozenset[int],
) -> Heir | str:
    """The child, or why it is not taken over."""
    if kept is None:
        return "it did not serve"
    if record.owner.boot != us.boot:
        return "the machine was started anew since"
    if reason := unfit(record, kept, look_for(record, protected)):
        return reason
    pipe = pipes.get(record.child)
    if not kept.spool and (pipe is None or not _is_pipe(pipe, kept.mark)):
        return "its output went to the server that has ended"
    try:
        descriptor = open_process(record.leader)
    except OSError:
        return "it has just ended"
    spool, recalled = None, "".join(f"{line}\n" for line in kept.tail).encode()
    if kept.spool:
        spool = Spool(Path(kept.spool))
        try:
            recalled = spool.recall()
        except OSError as error:
            if descriptor is not None:
                os.close(descriptor)
            return f"its output cannot be read: {error.strerror or error}"
    maker = record.cgroup_of or record.owner.identity
    process = Adopted(
        record.leader,
        descriptor,
        mark=kept.mark,
        spool=spool,
        pipe=pipe,
        leaf=recorded_leaf(record),
        leaf_of=maker,
    )
    return Heir(
        replace(record, owner=us, cgroup_of=maker), kept.started_at, process, recalled, kept.facts
    )


def _is_pipe(descriptor: int, mark: str) -> bool:
    try:
        found = os.fstat(descriptor)
    except OSError:
        return False
    return stat.S_ISFIFO(found.st_mode) and mark == f"pipe:[{found.st_ino}]"
