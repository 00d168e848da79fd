"""`list`: the models there are, and those there could be."""

from __future__ import annotations

import re
from typing import Final

import click

from lemonade.cli.command import Command
from lemonade.cli.render import Column, out, write_json, write_table
from lemonade.cli.session import Session, pass_session
from lemonade.core.inference import JsonObject

_PREFIX: Final = re.compile(r"(user|extra|builtin)\.")
_RANKS: Final = {"": 0, "user": 1, "extra": 2, "builtin": 3}

_COLUMNS: Final = (
    Column("Model Name", 40),
    Column("Downloaded", 15),
    Column("Size (GB)", 15, right=8),
    Column("Details"),
)


@click.command("list", cls=Command)
@click.argument("name_filter", required=False)
@click.option("--downloaded", is_flag=True, help="Only the models on this machine.")
@click.option("--json", "as_json", is_flag=True, help="Print the server's own entries.")
@pass_session
def list_models(
    session: Session,
    name_filter: str | None,
    downloaded: bool,  # noqa: FBT001 - click calls it
    as_json: bool,  # noqa: FBT001 - click calls it
) -> None:
    """List models.

    NAME_FILTER is a part of the name, in any case; `*` stands for anything.
    """
    models = select(session.client().models(show_all=not downloaded), name_filter)
    if as_json:
        write_json(models)
        return
    if downloaded:
        write_models(models, empty=_nothing(name_filter, "No local models downloaded."))
        return
    if not models:
        out(_nothing(name_filter, "No models available"))
        return
    out("Local")
    local = [model for model in models if model.get("downloaded")]
    write_models(local, empty=_nothing(name_filter, "No local models downloaded."))
    out()
    out("Available for Download")
    absent = [model for model in models if not model.get("downloaded")]
    write_models(absent, empty=_nothing(name_filter, "Nothing else to download."))


def select(models: list[JsonObject], name_filter: str | None) -> list[JsonObject]:
    """The models whose name matches, by bare name."""
    chosen = models
    if name_filter:
        pattern = re.compile(re.escape(name_filter).replace(r"\*", ".*"), re.IGNORECASE)
        chosen = [
            model
            for model in models
            if pattern.search(_id(model)) or pattern.search(_PREFIX.sub("", _id(model), count=1))
        ]
    return sorted(chosen, key=_order)


def write_models(models: list[JsonObject], *, empty: str) -> None:
    """Their table, or the line that says there are none."""
    if not models:
        out(empty)
        return
    sizes = {_id(model): model.get("size") for model in models}
    rows = [
        (
            _id(model),
            "Yes" if model.get("downloaded") else "No",
            _size(model, sizes),
            str(model.get("recipe") or "-"),
        )
        for model in models
    ]
    write_table(_COLUMNS, rows, closed=True)


def _id(model: JsonObject) -> str:
    return str(model.get("id", ""))


def _order(model: JsonObject) -> tuple[str, int, str]:
    name = _id(model)
    prefix = _PREFIX.match(name)
    bare = name[prefix.end() :] if prefix else name
    return bare, _RANKS[prefix[1] if prefix else ""], name


def _size(model: JsonObject, sizes: dict[str, object]) -> str:
    """Gigabytes; of a collection the sum of its parts, with `>` when one is unknown."""
    if parts := model.get("components"):
        known = [s for part in parts if isinstance(s := sizes.get(part), (int, float)) and s > 0]
        return ("" if len(known) == len(parts) else "> ") + f"{sum(known):.2f}"
    size = model.get("size")
    if not isinstance(size, (int, float)) or size <= 0:
        return "N/A"
    return f"{size:.2f}" if size >= 0.005 else "<0.01"


def _nothing(name_filter: str | None, otherwise: str) -> str:
    return f"No models match '{name_filter}'." if name_filter else otherwise
