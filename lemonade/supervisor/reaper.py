"""End what servers that died have left behind, and nothing else; say what was done about each.

`inspection` tells which records are a dead server's, `proof` which processes are truly a record's.
A server does this at its start, the guardian when its server is killed, and people by a command.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final, Literal

from lemonade.core.bus import Bus
from lemonade.core.errors import LemonadeError
from lemonade.core.events import OrphanReaped
from lemonade.core.records import dataclass
from lemonade.supervisor.beside import Beside
from lemonade.supervisor.delegation import find_delegation
from lemonade.supervisor.grove import Grove, recorded_leaf
from lemonade.supervisor.inheritance import renounce
from lemonade.supervisor.inspection import (
    LedgerEntry,
    LivingProcess,
    inspect_ledger,
    look_closer,
    read_entries,
    sessions_of_others,
)
from lemonade.supervisor.kin import Descendant
from lemonade.supervisor.ledger import Ledger, Owner, Record
from lemonade.supervisor.processes import Identity, ProcessFacts, executable_of
from lemonade.supervisor.proof import Stranger, left_behind
from lemonade.supervisor.stopping import sweep

log = logging.getLogger(__name__)

_KILL_WITHIN: Final = 5.0

Outcome = Literal["ended", "still-alive", "forgotten", "kept", "left-alone", "dropped"]
"""Its processes are gone; in spite of SIGKILL they are not; nothing was left of it and its record
is removed; it waits for the next server, and nothing was done about it; nothing was done about it
for another reason; the file was no record and is removed."""

Spared = Literal["nobody", "kept", "marked"]
"""What dead servers have kept and a reaper leaves alone: nothing; what the next server can take
over; whatever is marked so, without a look whether it can."""

_LEVELS: Final[Mapping[Outcome, int]] = {
    "ended": logging.WARNING,
    "still-alive": logging.ERROR,
    "forgotten": logging.INFO,
    "kept": logging.INFO,
    "left-alone": logging.INFO,
    "dropped": logging.WARNING,
}


@dataclass(frozen=True, slots=True)
class Account:
    """What was done about one file of the ledger, or would be.

    Attributes:
        file: of the ledger.
        name: the model; empty if that is not known.
        owner: pid of the server that started it; 0 if that is not known.
        outcome: in one word.
        reason: why, as the end of a sentence.
        processes: what was ended, or does not end.
        strangers: what the record seems to name and does not; left alone.
        started_at: when what is kept was started, in seconds of the epoch; else 0.
    """

    file: Path
    name: str
    owner: int
    outcome: Outcome
    reason: str
    processes: tuple[LivingProcess, ...] = ()
    strangers: tuple[Stranger, ...] = ()
    started_at: float = 0.0

    def sentence(self) -> str:
        """For people and logs."""
        pids = ", ".join(str(one.pid) for one in self.processes)
        name = self.name or self.file.name
        match self.outcome:
            case "ended" if self.started_at:
                return (
                    f"{name} was kept for the next server by one that has ended (pid "
                    f"{self.owner}); ended: {pids}."
                )
            case "ended":
                return (
                    f"{name} was left behind by a server that died (pid {self.owner}); "
                    f"ended: {pids}."
                )
            case "still-alive":
                return f"{name} was left behind by a server that died and does not end: {pids}."
            case "forgotten":
                return f"Nothing is left of {name}: its record is removed ({self.reason})."
            case "kept":
                return (
                    f"{name} is kept for the next server and left alone: {pids} "
                    f"(kept by the server with pid {self.owner}, which has ended)."
                )
            case "left-alone":
                return f"{name} is left alone: {self.reason}."
            case "dropped":
                return f"{self.file.name} says nothing and is removed: {self.reason}."


def foretell(directory: Path, *, spare: Spared = "nobody") -> tuple[Account, ...]:
    """What a reaper would do now, without doing it. Blocks.

    Raises:
        OSError: the ledger cannot be listed, or we may open nothing to look at.
    """
    return tuple(_account(entry, spare) for entry in inspect_ledger(directory))


async def reap_ledger(
    directory: Path, *, grace: float, only: Identity | None = None, spare: Spared = "nobody"
) -> tuple[Account, ...]:
    """End orphans without being a server.

    Args:
        directory: of the ledger; it need not exist.
        grace: seconds between SIGTERM and SIGKILL.
        only: the one server whose records are looked at; `None` is every server.
        spare: what is left alone. Of what is only `marked` there is no account.
    """
    beside = Beside()
    try:
        grove = await beside.proc(_grove_over, directory)
        reaper = Reaper(Ledger(directory), beside, Bus(), grace=grace, grove=grove)
        return await reaper.reap(only, spare=spare)
    finally:
        beside.close()


class Reaper:
    """Reads the ledger once.

    Its `grace` is how long an orphan may take to end by itself, in seconds.
    """

    def __init__(
        self,
        ledger: Ledger,
        beside: Beside,
        bus: Bus,
        *,
        grace: float,
        grove: Grove | None = None,
    ) -> None:
        self._ledger = ledger
        self._beside = beside
        self._bus = bus
        self._grace = grace
        self._grove = grove

    async def reap(
        self, only: Identity | None = None, *, spare: Spared = "nobody"
    ) -> tuple[Account, ...]:
        """End the orphans of dead servers, all records side by side.

        Args:
            only: the one server whose records are looked at; `None` is every server.
            spare: what is left alone. Of what is only `marked` there is no account.
        """
        us = await self._beside.proc(Owner.ourselves)
        try:
            entries = await self._beside.disk(read_entries, self._ledger.directory, us)
        except OSError as error:
            log.warning("The ledger of engines cannot be read: %s", error)
            return ()
        protected = sessions_of_others(entries)
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self._deal_with(entry, us, protected, spare))
                for entry in entries
                if (only is None or (entry.record and entry.record.owner.identity == only))
                and not (spare == "marked" and entry.kept)
            ]
        if self._grove is not None:
            recorded = {entry.file.stem for entry in entries}
            await self._beside.proc(_clear_leftovers, self._grove, recorded, only)
        return tuple(task.result() for task in tasks)

    async def decline(self, record: Record) -> Account:
        """End what is proven to be of a record, whoever its owner is, and remove the record."""
        us = await self._beside.proc(Owner.ourselves)
        entry = LedgerEntry(
            self._ledger.directory / f"{record.child}.json",
            "gone",
            name=record.name,
            owner=record.owner.identity.pid,
            leader=record.leader.pid,
            record=record,
        )
        return await self._deal_with(entry, us, frozenset())

    async def _deal_with(
        self,
        entry: LedgerEntry,
        us: Owner,
        protected: frozenset[int],
        spare: Spared = "nobody",
    ) -> Account:
        if entry.state == "gone" and entry.record is not None:
            account = await self._end(entry, entry.record, us, protected, spare)
        else:
            account = _account(entry)
        if account.outcome in ("ended", "forgotten", "dropped"):
            try:
                await self._beside.disk(self._ledger.drop, entry.file.name)
            except OSError as error:
                log.warning("The record %s cannot be removed: %s", entry.file.name, error)
        if entry.record is None or entry.record.owner != us:  # ours need no reaper, nor a word
            _tell(account)
        return account

    async def _end(
        self,
        entry: LedgerEntry,
        record: Record,
        us: Owner,
        protected: frozenset[int],
        spare: Spared,
    ) -> Account:
        try:
            entry = await self._beside.proc(look_closer, entry, us, protected)
        except OSError as error:  # no descriptors, most likely; a sweep asks again until it may
            log.warning("What is left of %s cannot be seen: %s", record.name, error)
        if record.owner.boot != us.boot:
            return _account(entry)
        if entry.state == "kept" and spare == "kept":
            return _account(entry, spare)
        if entry.kept and (why := await self._claim(record)):
            return replace(_account(entry), outcome="left-alone", reason=why, processes=())
        leaf = await self._beside.proc(recorded_leaf, record)
        swept = await sweep(
            _Look(record, protected),
            self._beside,
            grace=self._grace,
            kill_within=_KILL_WITHIN,
            hurry=asyncio.Event(),
            end_all=leaf.kill if leaf is not None else lambda: None,
        )
        if leaf is not None and not swept.survivors:
            await self._beside.proc(leaf.remove)
        programs = {one.pid: one.program for one in entry.processes}
        pids = swept.survivors or swept.ended
        if swept.ended:
            self._bus.publish(OrphanReaped(record.child, record.name, swept.ended))
        outcome: Outcome = (
            "still-alive" if swept.survivors else "ended" if swept.ended else "forgotten"
        )
        return Account(
            file=entry.file,
            name=entry.name,
            owner=entry.owner,
            outcome=outcome,
            reason=_account(entry).reason if entry.state == "kept" else "its server is dead",
            processes=tuple(LivingProcess(pid, programs.get(pid, "")) for pid in pids),
            strangers=entry.strangers,
            started_at=entry.started_at,
        )

    async def _claim(self, record: Record) -> str:
        """Why a child that was kept may not be ended, as the end of a sentence; empty if it may.

        A server may begin in this very moment, and take it over.
        """
        try:
            ours = await self._beside.disk(renounce, self._ledger, record)
        except LemonadeError as error:
            return error.message.rstrip(".")
        except OSError as error:
            return f"its record cannot be changed: {error.strerror or error}"
        return "" if ours else "another server has just taken it over"


def _grove_over(ledger: Path) -> Grove | None:
    """Where a server of this ledger that was started here would have made its leaves. Blocks."""
    base = find_delegation().base
    return Grove(base, ledger, Owner.ourselves()) if base is not None else None


def _clear_leftovers(grove: Grove, recorded: Collection[str], only: Identity | None) -> None:
    """Of dead servers that had no time to record a child, or to remove its cgroup. Blocks."""
    for leaf in grove.leftovers(recorded, only):
        if pids := leaf.pids():
            ended = ", ".join(map(str, sorted(pids)))
            log.warning("A server that died left processes in %s; ended: %s.", leaf.path, ended)
            leaf.kill()
        leaf.remove()


class _Look:
    """Finds what is left of a record; what was found once is found again without its parent."""

    def __init__(self, record: Record, protected: frozenset[int]) -> None:
        self._record = record
        self._protected = protected

    def __call__(self) -> tuple[ProcessFacts, ...]:
        found = left_behind(self._record, self._protected)
        known = {one.identity: one for one in self._record.descendants}
        for facts in found:
            known.setdefault(facts.identity, Descendant(facts.identity, executable_of(facts.pid)))
        self._record = replace(self._record, descendants=tuple(known.values()))
        return found


def _account(entry: LedgerEntry, spare: Spared = "nobody") -> Account:
    """What is, or is to be, done about an entry."""
    outcome: Outcome
    reason = entry.reason
    match entry.state:
        case "left-behind":
            outcome, reason = "ended", "its server is dead"
        case "kept":
            outcome = "ended" if spare == "nobody" else "kept"
            reason = "its server has ended, and has kept it for the next one to take over"
        case "gone":
            outcome, reason = "forgotten", reason or "its server is dead"
        case "damaged":
            outcome = "dropped"
        case "served" | "elsewhere" | "newer" | "unreadable":
            outcome = "left-alone"
    return Account(
        file=entry.file,
        name=entry.name,
        owner=entry.owner,
        outcome=outcome,
        reason=reason,
        processes=entry.processes,
        strangers=entry.strangers,
        started_at=entry.started_at,
    )


def _tell(account: Account) -> None:
    log.log(_LEVELS[account.outcome], "%s", account.sentence())
    for stranger in account.strangers:
        log.warning(
            "Process %d is not the one recorded for %s, and is left alone: %s (%s).",
            stranger.pid,
            account.name,
            stranger.reason,
            stranger.program or "program unknown",
        )
