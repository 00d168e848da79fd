"""`incidents`: what failed on the server, and all that is known of one failure."""

from __future__ import annotations

import click

from lemonade.cli.command import Command
from lemonade.cli.render import Column, harmless, out, write_json, write_table
from lemonade.cli.session import Session, pass_session
from lemonade.core.inference import JsonObject
from lemonade.core.units import render_size

_SHOWN_LINES = 30

_FACTS = (
    ("Time", "time"),
    ("What", "kind"),
    ("How", "how"),
    ("Model", "model"),
    ("Backend", "backend"),
    ("Version", "bundle_version"),
    ("While", "phase"),
    ("Ended", "ended"),
    ("Requests", "requests"),
    ("Cause", "cause"),
    ("Help", "fix"),
)


@click.command(cls=Command)
@click.argument("incident", required=False, metavar="[ID]")
@click.option("--model", default="", help="Of one model only.")
@click.option("-n", "--limit", type=click.IntRange(1, 1000), default=20, help="At most so many.")
@click.option("--json", "as_json", is_flag=True, help="Print the server's own records.")
@pass_session
def incidents(
    session: Session,
    incident: str | None,
    model: str,
    limit: int,
    as_json: bool,  # noqa: FBT001 - click calls it
) -> None:
    """Show what failed, and why.

    Without an id the last failures of engines, the newest first; with one, all that is known of
    it. Errors of loads and requests name the id.
    """
    client = session.client()
    if incident is not None:
        record = client.incident(incident)
        if as_json:
            write_json(record)
        else:
            _write_one(record)
        return
    found = client.incidents(model=model, limit=limit)
    if as_json:
        write_json(found)
        return
    if not found:
        out("No incidents.")
        return
    columns = [Column("Id", 20), Column("What", 15), Column("Model", 30), Column("Why")]
    write_table(columns, [_row(one) for one in found])


def _row(one: JsonObject) -> tuple[str, ...]:
    why = one.get("cause") or one.get("ended") or one.get("message") or "-"
    return (_word(one, "id"), _word(one, "kind"), _word(one, "model"), _first_line(str(why)))


def _write_one(record: JsonObject) -> None:
    out(f"Incident {_word(record, 'id')}")
    out()
    for title, key in _FACTS:
        value = record.get(key)
        if value not in (None, ""):
            out(f"{title:<10}{harmless(str(value))}")
    memory = record.get("memory") or {}
    held = {"main memory": memory.get("resident_bytes"), "devices": memory.get("device_bytes")}
    shown = [f"{render_size(size)} of {where}" for where, size in held.items() if size]
    if shown:
        out(f"{'Memory':<10}{', '.join(shown)}, when last seen")
    argv = record.get("argv") or []
    if argv:
        out(f"{'Command':<10}{harmless(' '.join(map(str, argv)))}")
    for title, lines in (
        ("The kernel said", record.get("kernel") or _unread(record)),
        ("It said of itself", (record.get("metrics") or {}).get("samples") or []),
        ("Its last lines", (record.get("last_lines") or [])[-_SHOWN_LINES:]),
    ):
        if lines:
            out()
            out(f"{title}:")
            for line in lines:
                out(f"  {harmless(str(line))}")


def _unread(record: JsonObject) -> list[str]:
    why = record.get("kernel_unread")
    return [f"Nothing that is known: {why}."] if why else []


def _word(one: JsonObject, key: str) -> str:
    return harmless(str(one.get(key) or "-"))


def _first_line(text: str) -> str:
    return harmless(text.partition("\n")[0])
