"""Children that are marked as to be taken over and are alive, whoever looks after them now.

What a server holds for its children goes with it: while one that was kept has no server, and in
the moment in which one process becomes the next server. Who would change what they run from asks
here.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lemonade.core.inference import JsonObject
from lemonade.core.records import dataclass
from lemonade.supervisor.inspection import (
    LedgerEntry,
    look_closer,
    read_entries,
    sessions_of_others,
)
from lemonade.supervisor.ledger import Ledger, Owner
from lemonade.supervisor.processes import read_process


@dataclass(frozen=True, slots=True)
class Marked:
    """One of them.

    Attributes:
        name: the model.
        pids: what is alive of it, proven to be what was recorded.
        facts: what those who use it wrote down.
    """

    name: str
    pids: tuple[int, ...]
    facts: JsonObject


def marked_children(directory: Path) -> tuple[Marked, ...]:
    """All of a ledger, which need not exist. What cannot be proven from here is none. Blocks.

    Raises:
        OSError: the directory cannot be listed, or we may open nothing to look at.
    """
    return tuple(_marked(directory, Owner.ourselves()))


def _marked(directory: Path, us: Owner) -> Iterator[Marked]:
    entries = read_entries(directory, us)
    protected = sessions_of_others(entries)
    for entry in entries:
        if entry.record is None or not entry.kept:
            continue
        kept = Ledger(directory).kept(entry.record.child)
        pids = _alive(entry, us, protected)
        if kept is not None and pids:
            yield Marked(entry.name, pids, kept.facts)


def _alive(entry: LedgerEntry, us: Owner, protected: frozenset[int]) -> tuple[int, ...]:
    if entry.state != "served":
        return tuple(one.pid for one in look_closer(entry, us, protected).processes)
    assert entry.record is not None
    leader = read_process(entry.leader)  # its server lives, and knows what else is of it
    same = leader is not None and leader.identity == entry.record.leader and not leader.dead
    return (entry.leader,) if same else ()
