"""`reap` and `ps --orphans`: what servers that died left on this machine. Needs no server."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from lemonade.cli.command import StandaloneCommand
from lemonade.cli.render import Column, note, out, write_json, write_table
from lemonade.core.errors import BadConfigFile

if TYPE_CHECKING:
    from lemonade.orphans import Account

_SCHEMA = 1
_KEPT_REMEDY = "If none is to come, `lemonade reap --kept` ends what is kept."


@click.command(cls=StandaloneCommand)
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@click.option("--kept", is_flag=True, help="Also end engines that wait for the next server.")
@click.option("--json", "as_json", is_flag=True, help="Print what was done for programs.")
def reap(dry_run: bool, kept: bool, as_json: bool) -> int:  # noqa: FBT001 - click calls it
    """End what dead servers left behind.

    Only processes that the ledger proves to be an engine of a server that is dead: by number,
    start time and program. It says what it ended, and what it left alone and why. No server is
    needed. The exit code is 1 if something does not end.

    Engines that a server has kept on purpose (`on_exit` is `keep`) are left alone and named: the
    next server takes them over. If none is to come, --kept ends them, too.
    """
    accounts = _look(kept=kept) if dry_run else _end(kept=kept)
    if as_json:
        write_json(_as_json(accounts, dry_run=dry_run))
    else:
        _write(accounts, dry_run=dry_run)
    return 1 if any(account.outcome == "still-alive" for account in accounts) else 0


def list_orphans(*, as_json: bool) -> None:
    """The table of `ps --orphans`."""
    accounts = _look()
    if as_json:
        write_json(_as_json(accounts, dry_run=True))
        return
    rows = [
        (account.name, str(account.owner), str(process.pid), process.program or "-")
        for account in accounts
        if account.outcome == "ended"
        for process in account.processes
    ]
    if rows:
        write_table(
            [Column("Model", 30), Column("Server", 9), Column("PID", 9), Column("Program")], rows
        )
        note("Their servers are dead. `lemonade reap` ends them.")
    else:
        out("No engine was left behind by a server that died.")
    _write_kept(accounts)
    for account in accounts:
        if account.outcome == "left-alone":
            note(account.sentence())
    _write_strangers(accounts)


def _write_kept(accounts: Sequence[Account]) -> None:
    """What is no orphan, though its server is gone as well."""
    rows = [
        (
            account.name,
            str(account.owner),
            _time(account.started_at),
            str(process.pid),
            process.program or "-",
        )
        for account in accounts
        if account.outcome == "kept"
        for process in account.processes
    ]
    if rows:
        out()
        columns = [
            Column("Kept", 30),
            Column("By server", 11),
            Column("Runs since", 21),
            Column("PID", 9),
            Column("Program"),
        ]
        write_table(columns, rows)
        note(f"They wait for the next server to take them over. {_KEPT_REMEDY}")


def _time(seconds: float) -> str:
    """For people, as their clock has it."""
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _look(*, kept: bool = False) -> tuple[Account, ...]:
    from lemonade.orphans import would_end
    from lemonade.storage import directories

    try:
        return would_end(directories(os.environ), kept=kept)
    except OSError as error:
        raise _not_readable(error) from error


def _end(*, kept: bool) -> tuple[Account, ...]:
    from lemonade.orphans import end_orphans
    from lemonade.storage import directories

    # What a server logs of it is what we print.
    logging.getLogger("lemonade").addHandler(logging.NullHandler())
    try:
        return end_orphans(directories(os.environ), kept=kept)
    except OSError as error:
        raise _not_readable(error) from error


def _not_readable(error: OSError) -> BadConfigFile:
    return BadConfigFile(
        f"What servers left behind cannot be looked at: {error.strerror or error}.",
        remedy="Check the owner of the state directory, and how many files you may open.",
    )


def _write(accounts: Sequence[Account], *, dry_run: bool) -> None:
    if not accounts:
        out("Nothing is recorded: no server has left anything behind.")
    for account in accounts:
        out(f"Would be done: {_future(account)}" if dry_run else account.sentence())
    _write_strangers(accounts)
    if any(account.outcome == "kept" for account in accounts):
        note(_KEPT_REMEDY)


def _future(account: Account) -> str:
    """What would be done about it, for people."""
    pids = ", ".join(str(process.pid) for process in account.processes)
    name = account.name or account.file.name
    match account.outcome:
        case "ended" if account.started_at:
            return f"end {name}, kept for the next server by one (pid {account.owner}): {pids}."
        case "kept":
            return f"nothing about {name}, kept for the next server: {pids}."
        case "ended":
            return f"end {name}, left behind by a server that died (pid {account.owner}): {pids}."
        case "forgotten":
            return f"remove the record of {name}, of which nothing is left: {account.reason}."
        case "dropped":
            return f"remove {account.file.name}, which says nothing: {account.reason}."
        case _:
            return f"nothing about {name}: {account.reason}."


def _write_strangers(accounts: Sequence[Account]) -> None:
    for account in accounts:
        for stranger in account.strangers:
            program = stranger.program or "program unknown"
            note(
                f"Process {stranger.pid} ({program}) is not the one recorded for "
                f"{account.name} and is left alone: {stranger.reason}."
            )


def _as_json(accounts: Sequence[Account], *, dry_run: bool) -> dict[str, Any]:
    return {
        "schema": _SCHEMA,
        "dry_run": dry_run,
        "records": [
            {
                "file": str(account.file),
                "model": account.name,
                "server": account.owner,
                "outcome": account.outcome,
                "reason": account.reason,
                "started_at": account.started_at or None,
                "processes": [
                    {"pid": process.pid, "program": process.program}
                    for process in account.processes
                ],
                "left_alone": [
                    {
                        "pid": stranger.pid,
                        "program": stranger.program,
                        "reason": stranger.reason,
                    }
                    for stranger in account.strangers
                ],
            }
            for account in accounts
        ],
    }
