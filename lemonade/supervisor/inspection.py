"""A look at the ledger that changes nothing: which children are served, left behind, or gone.

What a server does at its start with what it finds is the reaper's business. This tells in advance,
by the same proofs, and neither removes a record nor signals a process.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lemonade.supervisor.ledger import Owner, Record
from lemonade.supervisor.processes import ProcessFacts, executable_of, read_process
from lemonade.supervisor.reaper import left_behind

EntryState = Literal["served", "left-behind", "gone", "elsewhere", "unreadable"]
"""Its server lives; that one is dead and processes of it are alive; nothing is left of it; it
belongs to a world or a user we cannot look into; it is no record."""


@dataclass(frozen=True, slots=True)
class LivingProcess:
    """One process of a child that nobody looks after; `program` is empty if it is not known."""

    pid: int
    program: str


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """One file of the ledger, and what is true of it now.

    Attributes:
        file: of the ledger.
        name: the model; empty if the file is no record.
        owner: pid of the server that started it; 0 if that is not known.
        processes: what is alive of it, proven by pid, start time and program.
        reason: why the file is no record; else empty.
    """

    file: Path
    state: EntryState
    name: str = ""
    owner: int = 0
    port: int = 0
    program: str = ""
    processes: tuple[LivingProcess, ...] = ()
    reason: str = ""


def inspect_ledger(directory: Path) -> tuple[LedgerEntry, ...]:
    """Every entry of the ledger in a directory, which need not exist. Blocks.

    Raises:
        OSError: the directory cannot be listed, or we may open nothing more.
    """
    if not directory.is_dir():
        return ()
    us = Owner.ourselves()
    read = [_read(path) for path in sorted(directory.iterdir()) if path.suffix == ".json"]
    records = [record for _, record, _ in read if record is not None]
    protected = frozenset(
        record.leader.pid for record in records if _state_of_owner(record.owner, us) == "served"
    )
    return tuple(
        LedgerEntry(path, "unreadable", reason=reason)
        if record is None
        else _entry(path, record, us, protected)
        for path, record, reason in read
    )


def _read(path: Path) -> tuple[Path, Record | None, str]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(value, dict):
            return path, None, "it does not hold a JSON object"
        return path, Record.from_json(value), ""
    except OSError as error:
        return path, None, error.strerror or str(error)
    except (ValueError, RecursionError) as error:
        return path, None, str(error)


def _entry(path: Path, record: Record, us: Owner, protected: frozenset[int]) -> LedgerEntry:
    state = _state_of_owner(record.owner, us)
    alive: tuple[ProcessFacts, ...] = ()
    if state == "gone" and record.owner.boot == us.boot:
        alive = left_behind(record, protected)
    return LedgerEntry(
        file=path,
        state="left-behind" if alive else state,
        name=record.name,
        owner=record.owner.identity.pid,
        port=record.port,
        program=record.argv0,
        processes=tuple(LivingProcess(f.pid, executable_of(f.pid) or "") for f in alive),
    )


def _state_of_owner(owner: Owner, us: Owner) -> EntryState:
    """`gone` until something of it is found alive."""
    if owner.boot != us.boot:
        return "gone"
    if owner.namespace != us.namespace or owner.user != us.user:
        return "elsewhere"
    server = read_process(owner.identity.pid)
    lives = server is not None and server.identity == owner.identity and not server.ending
    return "served" if lives else "gone"
