"""`adapters`: LoRA adapters put upon a model, listed, scaled and taken away."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import click

from lemonade.cli.command import Command, Group
from lemonade.cli.render import Column, out, write_json, write_table
from lemonade.cli.session import Session, pass_session
from lemonade.core.inference import JsonObject

_REPOSITORY: Final = re.compile(r"(https?://\S+|[\w-][\w.-]*/[\w-][\w.-]*(:[^:]+)?)\Z", re.ASCII)


@click.group(cls=Group)
def adapters() -> None:
    """Put LoRA adapters upon models.

    A model with an adapter is asked for as MODEL:NAME. MODEL itself answers as ever.
    """


@adapters.command("list", cls=Command)
@click.argument("model")
@click.option("--json", "as_json", is_flag=True, help="Print the server's reply.")
@pass_session
def list_adapters(session: Session, model: str, as_json: bool) -> None:  # noqa: FBT001 - click calls it
    """List a model's adapters.

    Below them stands what a change would come to: `hot` (the running engine is told),
    `scale-only` (just requests change), `reload` (at the model's next start) or `unsupported`.
    """
    reply = session.client().adapters(model)
    if as_json:
        write_json(reply)
        return
    rows = [_row(one) for one in reply.get("data") or ()]
    if rows:
        columns = [Column("Model", 40), Column("Scale", 8), Column("Loaded", 9), Column("Path")]
        write_table(columns, rows)
    else:
        out("No adapters.")
    effects = reply.get("effects") or {}
    out(", ".join(f"{action}: {effect}" for action, effect in effects.items()))


def _row(adapter: JsonObject) -> tuple[str, ...]:
    loaded = "yes" if adapter.get("loaded") else "no"
    scale = adapter.get("scale")
    shown = f"{scale:g}" if isinstance(scale, int | float) else "-"
    return (str(adapter.get("id")), shown, loaded, str(adapter.get("path")))


@adapters.command("load", cls=Command)
@click.argument("model")
@click.argument("name")
@click.argument("path")
@click.option("--scale", type=float, help="By how much it is applied; 1 unless given.")
@pass_session
def load_adapter(session: Session, model: str, name: str, path: str, scale: float | None) -> None:
    """Put an adapter upon a model.

    PATH is on the server's machine: a GGUF file for llama.cpp, a folder with adapter_config.json
    for vLLM. What is no path and reads like owner/repo, owner/repo:FILE or owner/repo:FOLDER is
    fetched from the hub, and nothing else of that repository. The server keeps it in mind for all
    later loads of the model.
    """
    body: dict[str, object] = {"action": "load", "name": name, **_where(path)}
    if scale is not None:
        body["scale"] = scale
    _change(session, model, body)


def _where(text: str) -> dict[str, str]:
    path = Path(text).expanduser()
    if _REPOSITORY.match(text) and not path.exists():
        return {"checkpoint": text}
    return {"path": str(path.absolute())}


@adapters.command("scale", cls=Command)
@click.argument("model")
@click.argument("name")
@click.argument("scale", type=float)
@pass_session
def scale_adapter(session: Session, model: str, name: str, scale: float) -> None:
    """Apply an adapter by more or less.

    From the next request on; the engine runs on.
    """
    _change(session, model, {"action": "scale", "name": name, "scale": scale})


@adapters.command("unload", cls=Command)
@click.argument("model")
@click.argument("name")
@pass_session
def unload_adapter(session: Session, model: str, name: str) -> None:
    """Take an adapter away.

    Its files stay, and so does the model.
    """
    _change(session, model, {"action": "unload", "name": name})


def _change(session: Session, model: str, body: JsonObject) -> None:
    reply = session.client().change_adapter(model, body)
    out(f"{reply.get('effect')}: {reply.get('message')}")
