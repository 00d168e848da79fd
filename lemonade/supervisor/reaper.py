"""At start: end what servers that died have left behind, and nothing else.

A record of the ledger names suspects. A process is ended only if it is our user's, *and* it is the
recorded process or descendant (pid and start time) or in the recorded session, *and* it runs a
program recorded for it or one under the recorded directory. Descendants of such a process belong
to it. Whatever does not match is left alone: its number has come to mean somebody else.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterable, Mapping
from typing import Final

from lemonade.core.bus import Bus
from lemonade.core.events import OrphanReaped
from lemonade.supervisor.beside import Beside
from lemonade.supervisor.ledger import Ledger, Owner, Record
from lemonade.supervisor.processes import (
    Identity,
    ProcessFacts,
    executable_of,
    read_process,
    scan,
    user_of,
)
from lemonade.supervisor.stopping import sweep

log = logging.getLogger(__name__)

_KILL_WITHIN: Final = 5.0

_SHARED: Final = frozenset(
    ("/bin", "/sbin", "/usr", "/usr/bin", "/usr/sbin", "/usr/local", "/usr/local/bin", "/opt")
)
"""Directories that hold everybody's programs: lying there proves nothing."""


class Reaper:
    """Reads the ledger once, at the start of a server.

    Its `grace` is how long an orphan may take to end by itself, in seconds.
    """

    def __init__(self, ledger: Ledger, beside: Beside, bus: Bus, *, grace: float) -> None:
        self._ledger = ledger
        self._beside = beside
        self._bus = bus
        self._grace = grace

    async def reap(self, only: Identity | None = None) -> None:
        """End the orphans of dead servers, all records side by side.

        Args:
            only: the one server whose records are looked at; `None` is every server.
        """
        us = await self._beside.proc(Owner.ourselves)
        records = await self._beside.disk(self._ledger.records)
        theirs = []
        protected = set()
        for record in records:
            if await self._beside.proc(_is_somebody_elses, record.owner, us):
                protected.add(record.leader.pid)
            elif only is None or record.owner.identity == only:
                theirs.append(record)
        async with asyncio.TaskGroup() as group:
            for record in theirs:
                group.create_task(self._end(record, us, frozenset(protected)))

    async def _end(self, record: Record, us: Owner, protected: frozenset[int]) -> None:
        survivors: tuple[int, ...] = ()
        if record.owner.boot == us.boot and record.owner.user == us.user:
            swept = await sweep(
                lambda: left_behind(record, protected),
                self._beside,
                grace=self._grace,
                kill_within=_KILL_WITHIN,
                hurry=asyncio.Event(),
            )
            survivors = swept.survivors
            if swept.ended:
                log.warning(
                    "%s was left behind by a server that died (pid %d); ended: %s",
                    record.name,
                    record.owner.identity.pid,
                    ", ".join(map(str, swept.ended)),
                )
                self._bus.publish(OrphanReaped(record.child, record.name, swept.ended))
        if survivors:
            log.error(
                "%s was left behind by a server that died and does not end: %s",
                record.name,
                ", ".join(map(str, survivors)),
            )
            return
        try:
            await self._beside.disk(self._ledger.remove, record.child)
        except OSError as error:
            log.warning("The record of %s cannot be removed: %s", record.child, error)


def _is_somebody_elses(owner: Owner, us: Owner) -> bool:
    """Whether the record is to be left to a server that lives, or may live where we cannot see."""
    if owner.boot != us.boot:
        return False
    if owner.namespace != us.namespace:
        return True
    server = read_process(owner.identity.pid)
    return server is not None and server.identity == owner.identity and not server.ending


def left_behind(record: Record, protected: frozenset[int]) -> tuple[ProcessFacts, ...]:
    """The living processes that the record proves to be its own. Blocks.

    Args:
        record: of a server that is dead.
        protected: sessions of children whose server lives.
    """
    table = scan()
    roots = [
        facts
        for facts in table.values()
        if _is_suspected(facts, record, protected, table) and _is_proven(facts, record)
    ]
    own = os.getpid()
    found = _tree_below(roots, table) - {own}
    return tuple(
        table[pid]
        for pid in sorted(found)
        if not table[pid].dead and user_of(pid) == record.owner.user
    )


def _is_suspected(
    facts: ProcessFacts,
    record: Record,
    protected: frozenset[int],
    table: Mapping[int, ProcessFacts],
) -> bool:
    noted = {known.identity for known in record.descendants} | {record.leader}
    if facts.identity in noted:
        return True
    if facts.session != record.leader.pid or facts.session in protected:
        return False
    leader = table.get(record.leader.pid)
    if leader is not None and leader.identity != record.leader:
        return False  # the number, and with it the session, has come to mean somebody else
    return facts.start_ticks >= record.leader.start_ticks


def _is_proven(facts: ProcessFacts, record: Record) -> bool:
    if facts.dead:
        return False
    executable = executable_of(facts.pid)
    recorded = {known.executable for known in record.descendants} | set(record.executables)
    proven = user_of(facts.pid) == record.owner.user and executable is not None
    proven = proven and (
        executable in recorded or _lies_under(executable or "", record.executable_root)
    )
    if not proven:
        log.warning(
            "Process %d is not the one recorded for %s, and is left alone (it runs %s).",
            facts.pid,
            record.name,
            executable,
        )
    return proven


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
