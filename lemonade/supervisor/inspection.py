"""A look at the ledger that changes nothing: which children are served, left behind, or gone.

What is done about what is found is the reaper's business. This tells in advance, by the same
proofs, and neither removes a record nor signals a process.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Literal

from lemonade.core.records import dataclass
from lemonade.supervisor.fitness import unfit
from lemonade.supervisor.kept import SUFFIX, Kept, NewerRecord
from lemonade.supervisor.ledger import Ledger, Owner, Record
from lemonade.supervisor.processes import executable_of, read_process
from lemonade.supervisor.proof import Stranger, look_for

EntryState = Literal[
    "served", "kept", "left-behind", "gone", "elsewhere", "newer", "unreadable", "damaged"
]
"""Its server lives; that one is dead, and the next server is to take the child over; it is dead,
and processes of the child are alive all the same; nothing is left of it; it belongs to a world or
a user we cannot look into; only a later version of this program knows what it says; it cannot be
read; it is no record."""

_LEFT_TO_OTHERS: Final = ("served", "elsewhere", "newer")


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
        name: the model; empty if the file cannot be read as a record.
        owner: pid of the server that started it; 0 if that is not known.
        processes: what is alive of it, proven by pid, start time and program.
        strangers: what only looks like it.
        reason: why it is in that state, as the end of a sentence; empty if the state says it.
        leader: pid of the process that was started, and with it the session; 0 if not known.
        record: as it was read; `None` if it cannot be.
        kept: whether it is marked as to be taken over; only state `kept` says that it can be.
        started_at: when, in seconds of the epoch, if it is in state `kept`; else 0.
    """

    file: Path
    state: EntryState
    name: str = ""
    owner: int = 0
    port: int = 0
    program: str = ""
    processes: tuple[LivingProcess, ...] = ()
    strangers: tuple[Stranger, ...] = ()
    reason: str = ""
    leader: int = 0
    record: Record | None = None
    kept: bool = False
    started_at: float = 0.0


def inspect_ledger(directory: Path) -> tuple[LedgerEntry, ...]:
    """Every entry of the ledger in a directory, which need not exist. Blocks.

    Raises:
        OSError: the directory cannot be listed, or we may open nothing more.
    """
    us = Owner.ourselves()
    entries = read_entries(directory, us)
    protected = sessions_of_others(entries)
    return tuple(look_closer(entry, us, protected) for entry in entries)


def read_entries(directory: Path, us: Owner) -> tuple[LedgerEntry, ...]:
    """The same without a look at what may be left of a dead server's children. Blocks.

    Raises:
        OSError: the directory cannot be listed.
    """
    if not directory.is_dir():
        return ()
    files = [path for path in sorted(directory.iterdir()) if path.suffix == ".json"]
    return tuple(entry for path in files if (entry := _read(path, us)) is not None)


def sessions_of_others(entries: Sequence[LedgerEntry]) -> frozenset[int]:
    """Sessions of children that are somebody else's business."""
    return frozenset(entry.leader for entry in entries if entry.state in _LEFT_TO_OTHERS)


def look_closer(entry: LedgerEntry, us: Owner, protected: frozenset[int]) -> LedgerEntry:
    """Whether anything is left of what is `gone`. Blocks.

    Raises:
        OSError: we may open nothing to look at.
    """
    record = entry.record
    if entry.state != "gone" or record is None or record.owner.boot != us.boot:
        return entry
    found = look_for(record, protected)
    processes = tuple(LivingProcess(f.pid, executable_of(f.pid) or "") for f in found.own)
    kept = Ledger(entry.file.parent).kept(record.child) if entry.kept else None
    # No server but its own has the pipe of a child that writes to no file.
    waits = kept is not None and kept.spool and not unfit(record, kept, found)
    return replace(
        entry,
        state="kept" if waits else "left-behind" if processes else "gone",
        started_at=kept.started_at if waits and kept is not None else 0.0,
        processes=processes,
        strangers=found.strangers,
    )


def _read(path: Path, us: Owner) -> LedgerEntry | None:
    """The entry of a file; `None` if its child has just ended."""
    value: Any = None
    try:
        value = json.loads(path.read_bytes())
        if not isinstance(value, dict):
            return LedgerEntry(path, "damaged", reason="it does not hold a JSON object")
        return _entry(path, Record.from_json(value), us, kept=_is_kept(path))
    except FileNotFoundError:
        return None
    except OSError as error:
        return LedgerEntry(path, "unreadable", reason=error.strerror or str(error))
    except NewerRecord as error:
        name, pid = value.get("name"), value.get("pid")
        return LedgerEntry(
            path,
            "newer",
            name=name if isinstance(name, str) else "",
            reason=str(error),
            leader=pid if isinstance(pid, int) else 0,
        )
    except (ValueError, RecursionError) as error:
        return LedgerEntry(path, "damaged", reason=str(error))


def _is_kept(path: Path) -> bool:
    """Whether there is something beside a record that says so.

    Raises:
        NewerRecord: only a later version of this program knows what.
    """
    try:
        Kept.from_json(json.loads(path.with_suffix(SUFFIX).read_bytes()))
    except NewerRecord:
        raise
    except (OSError, ValueError, RecursionError):
        return False
    return True


def _entry(path: Path, record: Record, us: Owner, *, kept: bool) -> LedgerEntry:
    state, reason = _state_of_owner(record.owner, us)
    return LedgerEntry(
        file=path,
        state=state,
        name=record.name,
        owner=record.owner.identity.pid,
        port=record.port,
        program=record.argv0,
        reason=reason,
        leader=record.leader.pid,
        record=record,
        kept=kept,
    )


def _state_of_owner(owner: Owner, us: Owner) -> tuple[EntryState, str]:
    """`gone` until something of it is found alive."""
    if owner.boot != us.boot:
        return "gone", "the machine was started anew since"
    if owner.namespace != us.namespace:
        return "elsewhere", "its server is in another container, and may be alive there"
    server = read_process(owner.identity.pid)
    if server is not None and server.identity == owner.identity and not server.ending:
        return "served", f"its server lives (pid {owner.identity.pid})"
    if owner.user != us.user:
        return "elsewhere", f"it is another user's (uid {owner.user})"
    return "gone", ""
