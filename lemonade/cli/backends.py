"""`backends`: the engines, what this machine can do with them, and getting and removing them."""

from __future__ import annotations

from typing import TypedDict, Unpack

import click

from lemonade.cli.command import Command, Group, refuse_usage
from lemonade.cli.render import Column, out, write_json, write_table
from lemonade.cli.session import Session, pass_session
from lemonade.cli.versions import prune, read_backend, read_bundle, rollback, show, use
from lemonade.core.ids import BackendId
from lemonade.core.inference import JsonObject
from lemonade.storage import expanded


@click.group(cls=Group, invoke_without_command=True)
@click.option("--all", "everything", is_flag=True, help="Also what this machine cannot run.")
@click.option("--json", "as_json", is_flag=True, help="Print the server's own report.")
@click.pass_context
def backends(context: click.Context, everything: bool, as_json: bool) -> None:  # noqa: FBT001 - click calls it
    """List and install engines.

    Without a command: what each recipe can be run by here, and what is installed.
    """
    if context.invoked_subcommand is not None:
        return
    info = context.ensure_object(Session).client().system_info()
    recipes: JsonObject = info.get("recipes") or {}
    if as_json:
        write_json(recipes)
        return
    hidden = () if everything else info.get("unavailable_recipes") or ()
    rows: list[tuple[str, ...]] = []
    for name, recipe in sorted(recipes.items(), key=lambda item: item[1].get("order", 0)):
        if name not in hidden:
            rows += _rows(name, recipe, everything=everything)
    if not rows:
        out("No backends can run here. `lemonade backends --all` tells why.")
        return
    columns = [
        Column("Recipe", 20),
        Column("Backend", 12),
        Column("Status", 16),
        Column("Message/Version", 46),
        Column("Action"),
    ]
    write_table(columns, rows, rule=148)
    for line in _evidence(recipes) if everything else ():
        out(line)


def _rows(name: str, recipe: JsonObject, *, everything: bool) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for variant, backend in (recipe.get("backends") or {}).items():
        state = str(backend.get("state") or "-")
        if state == "unsupported" and not everything:
            continue
        version = backend.get("version") if state == "installed" else ""
        said = str(version or backend.get("message") or "-")
        first = name if not rows else ""
        rows.append((first, variant, state, said, str(backend.get("action") or "-")))
    return rows


def _evidence(recipes: JsonObject) -> list[str]:
    """What was read on this machine where a backend was refused, under the table."""
    lines: list[str] = []
    for name, recipe in sorted(recipes.items(), key=lambda item: item[1].get("order", 0)):
        for variant, backend in (recipe.get("backends") or {}).items():
            seen = [f"  {one['path']}: {one['value']}" for one in backend.get("evidence") or ()]
            lines += [f"{name}:{variant} was refused because of", *seen] if seen else []
    return ["", *lines] if lines else []


class _Wish(TypedDict):
    """The options of `backends install`, as click hands them over."""

    force: bool
    source: str | None
    sha256: str
    dry_run: bool
    arch: str
    as_json: bool
    detach: bool


@backends.command(cls=Command)
@click.argument("bundle", type=read_bundle, metavar="SPEC[@VERSION]")
@click.option("--force", is_flag=True, help="Even if it is there, or not meant for this machine.")
@click.option("--from", "source", metavar="PLACE", help="From a file, a folder or a URL instead.")
@click.option("--sha256", metavar="HEX", default="", help="What the file of --from must be.")
@click.option("--dry-run", is_flag=True, help="Show what would be done, and do nothing.")
@click.option("--arch", metavar="GPU", default="", help="With --dry-run: for that GPU (sm_86).")
@click.option("--json", "as_json", is_flag=True, help="With --dry-run: for scripts.")
@click.option("--detach", is_flag=True, help="Let the server do it, and come back at once.")
@pass_session
def install(session: Session, bundle: tuple[BackendId, str], **wish: Unpack[_Wish]) -> None:
    """Install a backend.

    SPEC is RECIPE:BACKEND, as the list shows them. VERSION is the tag of a release; without it, it
    is the one that is wanted. Ctrl-C stops; the same command goes on.
    """
    from lemonade.cli.downloads import begun
    from lemonade.cli.plan_view import show_plan
    from lemonade.cli.progress import follow

    _check_words(wish)
    spec, version = bundle
    client, force, source = session.client(), wish["force"], wish["source"]
    if wish["dry_run"]:
        plan = client.plan_install(spec.recipe, spec.variant, arch=wish["arch"], version=version)
        write_json(plan) if wish["as_json"] else show_plan(plan)
        return
    if wish["detach"]:
        out(begun(client.begin_install(spec.recipe, spec.variant, force=force, version=version)))
        return
    out(f"Installing backend: {spec}")
    if source:
        place = source if "://" in source else str(expanded(source).absolute())
        digest = wish["sha256"]
        steps = client.install_from(
            spec.recipe, spec.variant, place, sha256=digest, version=version, force=force
        )
    else:
        steps = client.install(spec.recipe, spec.variant, force=force, version=version)
    said = follow(steps)
    out(said or f"Backend installed successfully: {spec}")


def _check_words(wish: _Wish) -> None:
    """Refuse options that do not go together."""
    if wish["source"] == "":
        raise refuse_usage("--from names nothing. Without it, the backend is fetched.")
    if wish["source"] and wish["dry_run"]:
        raise refuse_usage("--dry-run shows what is fetched; with --from nothing is.")
    if (wish["arch"] or wish["as_json"]) and not wish["dry_run"]:
        raise refuse_usage("--arch and --json belong to --dry-run.")
    if wish["sha256"] and not wish["source"]:
        raise refuse_usage("--sha256 belongs to --from.")
    if wish["detach"] and wish["source"]:
        raise refuse_usage("What --from names is installed while somebody waits.")


@backends.command(cls=Command)
@click.argument("spec", type=read_backend, metavar="SPEC")
@pass_session
def uninstall(session: Session, spec: BackendId) -> None:
    """Remove a backend.

    Models that run on it are unloaded first.
    """
    out(f"Uninstalling backend: {spec}")
    session.client().uninstall(spec.recipe, spec.variant)
    out(f"Backend uninstalled successfully: {spec}")


for command in (show, use, rollback, prune):
    backends.add_command(command)
