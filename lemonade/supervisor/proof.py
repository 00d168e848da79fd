"""Which processes a record of the ledger proves to be its own, and which only look like it.

A record names suspects. A process belongs to it only if it is the recorded user's, *and* it is the
recorded process or descendant (pid and start time), in the recorded session or has the child's
random id in its environment, *and* it runs a program recorded for it or one under the recorded
directory. Whatever is in the cgroup that was made for the record was put there. Descendants of
such a process belong to it. Whatever does not match is a stranger: its number has come to mean
somebody else.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Final

from lemonade.core.records import dataclass
from lemonade.supervisor.grove import recorded_leaf
from lemonade.supervisor.ledger import Record
from lemonade.supervisor.processes import (
    ProcessFacts,
    carries,
    executable_of,
    read_process,
    scan,
    user_of,
)

_SHARED: Final = frozenset(
    ("/bin", "/sbin", "/usr", "/usr/bin", "/usr/sbin", "/usr/local", "/usr/local/bin", "/opt")
)
"""Directories that hold everybody's programs: lying there proves nothing."""


@dataclass(frozen=True, slots=True)
class Stranger:
    """A process that a record seems to name and does not; it is left alone.

    Attributes:
        pid: its number.
        program: what it runs; empty if that is not known.
        reason: what does not match, as the end of a sentence: `it runs another program`.
    """

    pid: int
    program: str
    reason: str


@dataclass(frozen=True, slots=True)
class Found:
    """What is alive of a record, and what only looks like it."""

    own: tuple[ProcessFacts, ...] = ()
    strangers: tuple[Stranger, ...] = ()


def look_for(record: Record, protected: frozenset[int]) -> Found:
    """Tell the living processes of a record from strangers. Blocks.

    Args:
        record: of a server that is dead.
        protected: sessions of children whose server lives.
    """
    table = scan()
    us = os.getpid()
    roots = []
    strangers = _reused(record, table)
    for facts in table.values():
        if facts.dead or facts.pid == us or not _is_suspected(facts, record, protected, table):
            continue
        mismatch = _mismatch(facts, record)
        if mismatch:
            strangers.append(Stranger(facts.pid, executable_of(facts.pid) or "", mismatch))
        else:
            roots.append(facts)
    roots += _inside(record, table)
    found = _tree_below(roots, table) - {us}
    own = tuple(
        table[pid]
        for pid in sorted(found)
        if not table[pid].dead and user_of(pid) == record.owner.user
    )
    return Found(own, tuple(stranger for stranger in strangers if stranger.pid not in found))


def left_behind(record: Record, protected: frozenset[int]) -> tuple[ProcessFacts, ...]:
    """The living processes that the record proves to be its own. Blocks.

    Args:
        record: of a server that is dead.
        protected: sessions of children whose server lives.
    """
    return look_for(record, protected).own


def _inside(record: Record, table: dict[int, ProcessFacts]) -> list[ProcessFacts]:
    """Who is in its cgroup; `table` is completed by those that were born since it was made."""
    leaf = recorded_leaf(record)
    if leaf is None:
        return []
    for pid in leaf.pids() - table.keys():
        if (facts := read_process(pid)) is not None:
            table[pid] = facts
    return [table[pid] for pid in leaf.pids() if pid in table]


def _reused(record: Record, table: Mapping[int, ProcessFacts]) -> list[Stranger]:
    """Those who have come by a recorded number since."""
    noted = {record.leader, *(known.identity for known in record.descendants)}
    return [
        Stranger(facts.pid, executable_of(facts.pid) or "", "it started at another time")
        for facts in (table.get(identity.pid) for identity in noted)
        if facts is not None and not facts.dead and facts.identity not in noted
    ]


def _is_suspected(
    facts: ProcessFacts,
    record: Record,
    protected: frozenset[int],
    table: Mapping[int, ProcessFacts],
) -> bool:
    noted = {known.identity for known in record.descendants} | {record.leader}
    if facts.identity in noted:
        return True
    if facts.start_ticks >= record.leader.start_ticks and carries(facts.pid, record.child):
        return True
    if facts.session != record.leader.pid or facts.session in protected:
        return False
    leader = table.get(record.leader.pid)
    if leader is not None and leader.identity != record.leader:
        return False  # the number, and with it the session, has come to mean somebody else
    return facts.start_ticks >= record.leader.start_ticks


def _mismatch(facts: ProcessFacts, record: Record) -> str:
    """Why a suspect is not the record's; empty if it is."""
    if user_of(facts.pid) != record.owner.user:
        return "it runs as another user"
    executable = executable_of(facts.pid)
    if executable is None:
        return "what it runs cannot be seen"
    recorded = {known.executable for known in record.descendants} | set(record.executables)
    if executable in recorded or _lies_under(executable, record.executable_root):
        return ""
    return "it runs another program"


def _lies_under(path: str, directory: str) -> bool:
    bare = directory.rstrip("/")
    return bool(bare) and bare not in _SHARED and path.startswith(bare + "/")


def _tree_below(roots: Iterable[ProcessFacts], table: Mapping[int, ProcessFacts]) -> set[int]:
    """The pids of `roots` and of everything that descends from them by parent."""
    found = {facts.pid for facts in roots}
    while True:
        children = {
            facts.pid
            for facts in table.values()
            if facts.parent in found and facts.pid not in found
        }
        if not children:
            return found
        found |= children
