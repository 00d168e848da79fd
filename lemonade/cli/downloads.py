"""`downloads`: pulls and installations that the server carries on by itself."""

from __future__ import annotations

import click

from lemonade.cli.command import Command, Group
from lemonade.cli.render import Column, out, write_json, write_table
from lemonade.cli.session import Session, pass_session
from lemonade.core.inference import JsonObject
from lemonade.core.units import render_size


@click.group(cls=Group, invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print the server's own list.")
@click.pass_context
def downloads(context: click.Context, as_json: bool) -> None:  # noqa: FBT001 - click calls it
    """List what the server fetches by itself.

    That is what was begun with `pull --detach` and `backends install --detach`. What is done
    leaves the list after half a minute.
    """
    if context.invoked_subcommand is not None:
        return
    jobs = context.ensure_object(Session).client().downloads()
    if as_json:
        write_json(jobs)
        return
    if not jobs:
        out("No downloads.")
        return
    columns = [Column("Id", 40), Column("Status", 13), Column("Done", 22), Column("Step")]
    write_table(columns, [_row(job) for job in jobs])


def _row(job: JsonObject) -> tuple[str, ...]:
    done = int(job.get("overall_bytes_downloaded") or 0)
    whole = int(job.get("total_download_size") or 0)
    amount = f"{render_size(done)} of {render_size(whole)}" if whole else "-"
    step = job.get("error") or ("" if job.get("complete") else job.get("file"))
    return (str(job.get("id")), str(job.get("status")), amount, str(step or "-"))


@downloads.command(cls=Command)
@click.argument("id")
@pass_session
def pause(session: Session, id: str) -> None:  # noqa: A002 - it is one
    """Stop one for now.

    The same `pull` or `backends install` goes on with it.
    """
    _control(session, id, "pause")


@downloads.command(cls=Command)
@click.argument("id")
@pass_session
def cancel(session: Session, id: str) -> None:  # noqa: A002 - it is one
    """Stop one for good.

    It stays in the list until it is removed.
    """
    _control(session, id, "cancel")


@downloads.command(cls=Command)
@click.argument("id")
@pass_session
def remove(session: Session, id: str) -> None:  # noqa: A002 - it is one
    """Take one out of the list.

    One that runs is cancelled instead.
    """
    _control(session, id, "remove")


def begun(job: JsonObject) -> str:
    """What is said of a job that goes on without us."""
    return f"The server goes on with {job.get('id')}; `lemonade downloads` shows how far it is."


def _control(session: Session, name: str, action: str) -> None:
    reply = session.client().control_download(name, action)
    if reply.get("missing"):
        out(f"There is no download {name}.")
    elif "status" in reply and "id" in reply:
        out(f"{name}: {reply['status']}")
    else:
        out(f"Removed: {name}")
