"""`status`, `ps`, `stop`: is there a server, what has it loaded, and its end."""

from __future__ import annotations

import time
from typing import Self
from urllib.parse import urlsplit

import click

from lemonade.cli.command import Command
from lemonade.cli.holders import write_quarantined
from lemonade.cli.render import Column, harmless, note, out, write_json, write_table
from lemonade.cli.session import Session, pass_session
from lemonade.core.errors import ServerUnreachable
from lemonade.core.inference import JsonObject
from lemonade.core.records import dataclass

_LOOK_WITHIN = 2.0


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A loaded model as the server reports it, ready to be printed.

    Attributes:
        name: public.
        type: `llm`, `embedding`, ...
        device: `cpu`, `gpu`, ...
        recipe: how it is run.
        backend: `recipe:variant` if the server says the variant.
        checkpoint: what it was made from.
        pid: of the engine.
        port: the engine's, on the loopback of the server's machine.
        state: `ready`, `in_use`, ...
        pinned: protected from eviction.
        last_use: milliseconds of the server's monotonic clock.
    """

    name: str
    type: str
    device: str
    recipe: str
    backend: str
    checkpoint: str
    pid: int | None
    port: int | None
    state: str
    pinned: bool
    last_use: float | None

    @classmethod
    def read(cls, entry: JsonObject) -> Self:
        """From an entry of `all_models_loaded`."""

        def text(key: str) -> str:
            return str(entry.get(key) or "-")

        recipe = text("recipe")
        options = entry.get("recipe_options") or {}
        variants = [v for key, v in options.items() if key.endswith("_backend") and v]
        variant = entry.get("backend") or (variants[0] if variants else "")
        pid, used = entry.get("pid"), entry.get("last_use")
        return cls(
            name=text("model_name"),
            type=text("type"),
            device=text("device"),
            recipe=recipe,
            backend=str(variant)
            if ":" in str(variant)
            else f"{recipe}:{variant}".removesuffix(":"),
            checkpoint=text("checkpoint"),
            pid=pid if isinstance(pid, int) else None,
            port=urlsplit(str(entry.get("backend_url") or "")).port,
            state=text("status"),
            pinned=bool(entry.get("pinned")),
            last_use=used if isinstance(used, (int, float)) else None,
        )


def loaded_models(health: JsonObject) -> list[LoadedModel]:
    """Those that a health report lists."""
    return [LoadedModel.read(entry) for entry in health.get("all_models_loaded") or ()]


def loading_models(health: JsonObject) -> list[LoadedModel]:
    """Those that are on their way, as far as anything is known of them."""
    return [
        LoadedModel.read({**entry, "status": "loading"})
        for entry in health.get("models_loading") or ()
    ]


def write_workers(health: JsonObject) -> None:
    """How many processes relay beside the server; nothing if there shall be none."""
    said = health.get("workers") or {}
    if said.get("wanted"):
        note(f"{said.get('ready')} of {said.get('wanted')} workers relay beside the server.")


def write_failing(health: JsonObject) -> None:
    """What is not started for a while, or failed lately; nothing if all is well."""
    for one in health.get("models_failing") or ():
        rest = one.get("retry_after")
        when = f"not started for {rest} s" if rest else "may be started"
        cause = harmless(str(one.get("cause") or "").partition("\n")[0])
        note(
            f"{harmless(str(one.get('model_name')))} failed {one.get('failures')} times lately, "
            f"{when}: {cause} See `lemonade incidents {one.get('incident')}`."
        )


def write_loaded(models: list[LoadedModel], *, same_machine: bool) -> None:
    """The table of `ps`.

    Args:
        models: to list.
        same_machine: whether the server's clock is ours, so that "last use" can be told.
    """
    if not models:
        out("No models loaded.")
        return
    columns = [
        Column("Model", 30),
        Column("Type", 10),
        Column("Backend", 20),
        Column("PID", 9),
        Column("Port", 7),
        Column("State", 10),
        Column("Pinned", 8),
        Column("Last Use"),
    ]
    rows = [
        (
            model.name,
            model.type,
            model.backend,
            str(model.pid or "-"),
            str(model.port or "-"),
            model.state,
            "yes" if model.pinned else "no",
            _ago(model.last_use) if same_machine else "-",
        )
        for model in models
    ]
    write_table(columns, rows)


@click.command(cls=Command)
@click.option("--json", "as_json", is_flag=True, help='Print {"port":PORT} if it runs.')
@pass_session
def status(session: Session, as_json: bool) -> int:  # noqa: FBT001 - click calls it
    """Show whether the server runs.

    With its version, its limits and the loaded models. The exit code is 1 if nothing answers.
    """
    address, client = session.address(), session.client()
    try:
        health = None if as_json else client.health(_LOOK_WITHIN)
    except ServerUnreachable:
        note(f"Server is not running: nothing answers at {address.url}.")
        note("Start one with `lemonade serve`, or name another with --host and --port.")
        return 1
    if health is None:
        # Scripts look often and want the port: no key, no work for the server.
        if not client.live(_LOOK_WITHIN):
            note("Server is not running")
            return 1
        write_json({"port": address.port}, compact=True)
        return 0
    out(f"Server is running on port {address.port}")
    out()
    properties = {
        "Version": health.get("version"),
        "WebSocket Port": health.get("websocket_port"),
        "Max Models/Type": (health.get("max_models") or {}).get("llm"),
    }
    out(f"{'Property':<20}Value")
    out("-" * 50)
    for name, value in properties.items():
        if value is not None:
            out(f"{name:<20}{value}")
    out()
    _write_status_models(loaded_models(health))
    write_failing(health)
    write_quarantined(health)
    write_workers(health)
    return 0


def _write_status_models(models: list[LoadedModel]) -> None:
    if not models:
        out("No models loaded.")
        return
    write_table(
        [
            Column("Model", 30),
            Column("Type", 10),
            Column("Device", 10),
            Column("Recipe", 14),
            Column("Checkpoint"),
        ],
        [
            (m.name + " (pinned)" * m.pinned, m.type, m.device, m.recipe, m.checkpoint)
            for m in models
        ],
    )


@click.command(cls=Command)
@click.option("--json", "as_json", is_flag=True, help="Print the server's own report of each.")
@click.option("--orphans", is_flag=True, help="Engines that servers which died left here instead.")
@pass_session
def ps(session: Session, as_json: bool, orphans: bool) -> None:  # noqa: FBT001 - click calls it
    """List the loaded models and their engines.

    The port is the engine's private one, on the server's own machine.

    With --orphans no server is asked: it lists what dead servers left on this machine, and what
    `lemonade reap` would do about it. Engines that were kept for the next server are listed apart.
    """
    if orphans:
        from lemonade.cli.orphans import list_orphans

        list_orphans(as_json=as_json)
        return
    health = session.client().health()
    if as_json:
        write_json(health.get("all_models_loaded") or [])
        return
    models = loaded_models(health) + loading_models(health)
    write_loaded(models, same_machine=session.address().is_this_machine)
    write_failing(health)
    write_quarantined(health)
    write_workers(health)


@click.command(cls=Command)
@pass_session
def stop(session: Session) -> int:
    """Stop the server and all it started.

    Returns when nothing answers there any more.
    """
    from lemonade.cli.background import wait_until_gone

    address, client = session.address(), session.client()
    kept = client.shutdown().get("kept") or []
    if not wait_until_gone(client):
        note(f"The server at {address.url} said that it stops, but still answers.")
        return 1
    out("Server stopped.")
    if kept:
        note(f"Left to the next server, loaded as they are: {', '.join(map(str, kept))}.")
    return 0


@click.command(cls=Command)
@pass_session
def restart(session: Session) -> int:
    """Restart the server; models stay loaded.

    The server begins again in the same process, as installed and configured now. Engines that
    serve go on; answers under way get the time that the setting restart_drain_s says. Loads under
    way are given up.
    """
    from lemonade.cli.background import wait_until_new

    address, client = session.address(), session.client()
    told = client.restart()
    before = told.get("server") or {}
    within = float(told.get("drain_s") or 0)
    if not wait_until_new(client, before, within):
        note(f"The server at {address.url} said that it restarts, and does not answer anew.")
        return 1
    out("Server restarted.")
    for word, names in (("Still loaded", told.get("kept")), ("Ended", told.get("ended"))):
        if names:
            note(f"{word}: {', '.join(map(str, names))}.")
    return 0


def _ago(last_use: float | None) -> str:
    """How long ago a reading of this machine's monotonic clock was."""
    if last_use is None:
        return "-"
    seconds = time.monotonic() - last_use / 1000
    if seconds < 0:
        return "-"
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{int(seconds // length)} {unit} ago"
    return f"{int(seconds)} s ago"
