"""`backends show`, `use`, `rollback` and `prune`: the versions of an engine on the disk."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import click

from lemonade.cli.command import Command
from lemonade.cli.render import Column, out, write_json, write_table
from lemonade.cli.session import Session, pass_session
from lemonade.core.errors import MalformedRequest
from lemonade.core.ids import BackendId, parse_bundle
from lemonade.core.inference import JsonObject

_UNITS: Final = ("B", "kB", "MB", "GB")


def read_backend(text: str) -> BackendId:
    """`recipe:variant`, for click to convert with.

    Raises:
        BadParameter: it is none.
    """
    try:
        return BackendId.parse(text)
    except MalformedRequest as error:
        raise click.BadParameter(str(error)) from error


def read_bundle(text: str) -> tuple[BackendId, str]:
    """`recipe:variant@version`, for click to convert with; the version may be left out.

    Raises:
        BadParameter: it is none.
    """
    try:
        return parse_bundle(text)
    except MalformedRequest as error:
        raise click.BadParameter(str(error)) from error


@click.command(cls=Command)
@click.argument("spec", type=read_backend, metavar="SPEC")
@click.option("--json", "as_json", is_flag=True, help="Print the server's own report.")
@pass_session
def show(session: Session, spec: BackendId, as_json: bool) -> None:  # noqa: FBT001 - click calls it
    """Show a backend and its versions.

    Which version is used and why, which others are there, and which models run on them.
    """
    found = session.client().backend(spec.recipe, spec.variant)
    if as_json:
        write_json(found)
        return
    for line in _about(spec, found):
        out(line)
    versions = found.get("versions") or []
    if not versions:
        return
    out()
    columns = [
        Column("Version", 28),
        Column("Size", 12, right=10),
        Column("Installed", 27),
        Column("Digest", 17),
        Column("State"),
    ]
    write_table(columns, [_row(one) for one in versions])


@click.command(cls=Command)
@click.argument("bundle", type=read_bundle, metavar="SPEC@VERSION")
@pass_session
def use(session: Session, bundle: tuple[BackendId, str]) -> None:
    """Use another installed version.

    VERSION is as `backends show` lists it; the ending that names a GPU may be left out. Running
    engines go on with theirs; the next load takes this one.
    """
    spec, version = bundle
    if not version:
        raise click.UsageError(f"'{spec}' names no version: write {spec}@VERSION.")
    out(str(session.client().use_version(spec.recipe, spec.variant, version).get("message")))


@click.command(cls=Command)
@click.argument("spec", type=read_backend, metavar="SPEC")
@pass_session
def rollback(session: Session, spec: BackendId) -> None:
    """Go back to the version that was used before.

    Running engines go on with theirs; the next load takes that one.
    """
    out(str(session.client().roll_back(spec.recipe, spec.variant).get("message")))


@click.command(cls=Command)
@click.argument("spec", type=read_backend, required=False, metavar="[SPEC]")
@click.option("--dry-run", is_flag=True, help="Only show what would be removed.")
@click.option("--json", "as_json", is_flag=True, help="Print the server's own report.")
@pass_session
def prune(session: Session, spec: BackendId | None, dry_run: bool, as_json: bool) -> None:  # noqa: FBT001 - click calls it
    """Remove versions nobody needs.

    Of one backend, or of all. What is used, what `rollback` would go back to, what a setting names
    and what a running engine uses stays; leftovers and unfinished downloads go, too.
    """
    recipe, variant = (spec.recipe, spec.variant) if spec is not None else ("", "")
    found = session.client().prune(recipe, variant, dry_run=dry_run)
    if as_json:
        write_json(found)
        return
    verb = "Would remove" if dry_run else "Removed"
    for one in found.get("removed") or []:
        name = f"{one['kind']} {one['name']}"
        out(f"{verb} {one['backend']}: {name}, {shown_size(one['size_bytes'])}")
    for one in found.get("kept") or []:
        if "running" in one["why"] or "just now" in one["why"]:
            out(f"Kept {one['backend']} {one['version']}: {one['why']}")
    end = "would be freed" if dry_run else "freed"
    out(f"{shown_size(found.get('freed_bytes') or 0)} {end}.")


def shown_size(size: int) -> str:
    """Bytes for people."""
    value = float(size)
    for unit in _UNITS:
        if value < 1000 or unit == _UNITS[-1]:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    raise AssertionError("there is a last unit")


def _about(spec: BackendId, found: JsonObject) -> Iterator[str]:
    yield f"{spec}: {found.get('title')}"
    yield f"State: {found.get('state')}"
    if found.get("message"):
        yield f"  {found['message']}"
    if found.get("action"):
        yield f"  {found['action']}"
    if found.get("wanted"):
        yield f"Wanted: {found['wanted']} (by {found.get('wanted_by')})"
    if found.get("active"):
        how = "chosen" if found.get("chosen") else "as installed"
        since = f", since {found['since']}" if found.get("since") else ""
        yield f"Used: {found['active']} ({how}{since})"


def _row(one: JsonObject) -> tuple[str, ...]:
    digests = list((one.get("sha256") or {}).values())
    digest = f"{digests[0][:12]}{'...' if len(digests) == 1 else f'+{len(digests) - 1}'}"
    words = [
        "used" if one.get("active") else "",
        "way back" if one.get("last_known_good") else "",
        "" if one.get("usable") else "not usable here",
        f"runs {', '.join(one['models'])}" if one.get("models") else "",
        "runs elsewhere" if one.get("in_use") and not one.get("models") else "",
    ]
    return (
        str(one.get("version")),
        shown_size(one.get("size_bytes") or 0),
        str(one.get("installed_at") or "-"),
        digest if digests else "unverified",
        "; ".join(filter(None, words)) or "-",
    )
