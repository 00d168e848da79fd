"""`demo`: from nothing to a streamed answer, and what happened on the way.

Starts a server of its own, which lives no longer than the command does, however that ends.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import click

from lemonade import __version__
from lemonade.cli.answer import Answer, show_answer
from lemonade.cli.background import (
    ServerProcess,
    ended_by_signals,
    start_server,
    wait_until_live,
)
from lemonade.cli.command import StandaloneCommand, read_port
from lemonade.cli.loading import ensure_engine, fetch, working
from lemonade.cli.render import note, out, style
from lemonade.cli.session import Session, pass_session
from lemonade.cli.status import LoadedModel, loaded_models
from lemonade.client import LemonadeClient
from lemonade.core.errors import BadSetting, LemonadeError, UnknownModel, WouldNotDie
from lemonade.core.inference import JsonObject
from lemonade.core.records import dataclass

QUESTION: Final = "Tell me a story about a fox"
_SHIPPED: Final = "shipped"
_LOG_NAME: Final = "demo.log"
_GONE_WITHIN: Final = 10.0
_LOOK_EVERY: Final = 0.05


@dataclass(frozen=True, slots=True)
class _Shown:
    """What the demonstration did."""

    model: str
    loaded: LoadedModel
    version: str
    answer: Answer


@click.command(cls=StandaloneCommand)
@click.option("--once", is_flag=True, help="End after the answer, with nothing left running.")
@click.option(
    "--port", type=read_port, metavar="PORT", help="Port. [default: 13305, or a free one]"
)
@pass_session
def demo(session: Session, once: bool, port: int | None) -> int:  # noqa: FBT001 - click calls it
    """Show the whole way to an answer.

    Starts a server, installs the embedded engine, loads the model that comes with Lemonade and
    asks it something; then serves until Ctrl-C.
    """
    from lemonade.storage import directories

    chosen = _free_port(port or session.port)
    log = directories(os.environ).runtime / _LOG_NAME
    out(style(f"Lemonade {__version__}: from nothing to an answer", bold=True))
    with ended_by_signals(), _server(chosen, log) as server:
        client = session.client_at(f"http://127.0.0.1:{chosen}")
        _step(1, f"Starting a server on port {chosen}")
        with working("Waiting for the server"):
            wait_until_live(server, client)
        shown = _show(client)
        _report(client.base_url, shown)
        if once:
            return _end(server, client, shown.loaded)
        out()
        out(f"Serving at {client.base_url} until Ctrl-C.")
        code = server.wait()
        note(f"Error: the server ended by itself with exit code {code}; see {server.log}.")
        return 1


def _show(client: LemonadeClient) -> _Shown:
    model = _demonstrator(client)
    name, recipe = str(model["id"]), str(model.get("recipe"))
    _step(2, "Installing the engine")
    options = _embedded(client, recipe)
    variant, fresh = ensure_engine(client, recipe, options, quiet=False)
    if not fresh:
        out(f"{recipe}:{variant} is installed already.")
    fetch(client, model, name, quiet=False)
    about = ", a demonstration of 1 MB: it shows that all works, and knows little"
    _step(3, f"Loading {name}{about if model.get('source') == _SHIPPED else ''}")
    with working("Waiting for the engine"):
        client.load(name, options=options)
    _step(4, f"Asking: {QUESTION}")
    out()
    messages = [{"role": "user", "content": QUESTION}]
    answer = show_answer(client.chat(name, messages, parameters={"temperature": 0}))
    rows = client.health().get("all_models_loaded") or ()
    row: JsonObject = next((r for r in rows if r.get("model_name") == name), {})
    loaded = next(iter(loaded_models({"all_models_loaded": [row]})))
    version = row.get("backend_version") or _version(client, recipe, variant)
    return _Shown(name, loaded, str(version), answer)


def _embedded(client: LemonadeClient, recipe: str) -> JsonObject:
    """The option that chooses the embedded engine, which needs no network but the package index.

    Empty where it does not run: then whatever the server would take is shown.
    """
    known: JsonObject = (client.system_info().get("recipes") or {}).get(recipe) or {}
    chooser = next((o["name"] for o in known.get("options") or () if _chooses(o)), None)
    for variant, row in (known.get("backends") or {}).items():
        if chooser and row.get("embedded") and row.get("state") != "unsupported":
            return {chooser: variant}
    return {}


def _chooses(option: JsonObject) -> bool:
    return option.get("type_name") == "backend"


def _demonstrator(client: LemonadeClient) -> JsonObject:
    """The model that came with Lemonade and is put forward; else any that is here to talk with."""
    models = client.models(show_all=True)

    def rank(model: JsonObject) -> tuple[bool, bool, bool]:
        labels = model.get("labels") or ()
        return model.get("source") == _SHIPPED, "hot" in labels, bool(model.get("downloaded"))

    chats = [m for m in models if "chat" in (m.get("labels") or ())]
    ready = [m for m in chats if m.get("source") == _SHIPPED or m.get("downloaded")]
    if not ready:
        raise UnknownModel(
            "No model that could be shown came with this Lemonade.",
            remedy="`lemonade run MODEL` downloads one.",
        )
    return max(ready, key=rank)


def _version(client: LemonadeClient, recipe: str, variant: str) -> object:
    known = (client.system_info().get("recipes") or {}).get(recipe) or {}
    return ((known.get("backends") or {}).get(variant) or {}).get("version") or ""


def _report(base_url: str, shown: _Shown) -> None:
    answer, loaded = shown.answer, shown.loaded
    rows = {
        "Engine": f"{loaded.backend} {shown.version}".rstrip(),
        "Engine process": f"pid {loaded.pid}, private port {loaded.port}",
        "Time to first token": _figure(answer.first_after, "{:.3f} s"),
        "Speed": _figure(answer.tokens_per_second, "{:.1f} tokens/s"),
        "Base URL": f"{base_url}/v1",
    }
    out()
    for name, value in rows.items():
        out(f"  {style(f'{name:<20}', dim=True)}{value}")
    out()
    out("Try it:")
    out()
    out(f"  {_curl(base_url, shown.model)}")


def _curl(base_url: str, model: str) -> str:
    body = {"model": model, "messages": [{"role": "user", "content": "Hello"}], "stream": True}
    words = [f"curl -N {base_url}/v1/chat/completions", "-H 'Content-Type: application/json'"]
    if os.environ.get("LEMONADE_API_KEY"):
        words.append('-H "Authorization: Bearer $LEMONADE_API_KEY"')
    # A quote inside a model's name would end the shell's word.
    text = json.dumps(body).replace("'", "'\\''")
    return " ".join([*words, f"-d '{text}'"])


def _figure(value: float | None, form: str) -> str:
    return "unknown" if value is None else form.format(value)


def _step(number: int, text: str) -> None:
    out(f"{style(f'[{number}/4]', bold=True)} {text}")


# ---- the server's life


@contextmanager
def _server(port: int, log: Path) -> Iterator[ServerProcess]:
    """A server that is gone when the block is, and its engine with it."""
    extra = ["--host", "127.0.0.1", "--on-exit", "end"]
    server = start_server(port, log, tethered=True, extra=extra)
    try:
        yield server
    except LemonadeError as error:
        if str(log) not in str(error):
            note(f"The server's log is {log}.")
        raise
    finally:
        # A second Ctrl-C of an impatient person must not leave half of it running.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            server.stop()
        finally:
            signal.signal(signal.SIGINT, before)


def _end(server: ServerProcess, client: LemonadeClient, loaded: LoadedModel) -> int:
    """End the server as any client may, and make sure that its engine went with it."""
    try:
        client.shutdown()
    except LemonadeError as error:
        note(f"Warning: the server did not confirm that it stops: {error}")
        server.stop()
    limit = time.monotonic() + _GONE_WITHIN
    while not server.ended or _lives(loaded.pid):
        if time.monotonic() > limit:
            raise WouldNotDie(
                f"After {_GONE_WITHIN:g} s there is still something running: server "
                f"{server.pid}, engine {loaded.pid}.",
                remedy=f"The server's log is {server.log}.",
            )
        time.sleep(_LOOK_EVERY)
    out()
    out("The server and its engine are gone.")
    return 0


def _lives(pid: int | None) -> bool:
    """Whether a process of that id does anything; a dead one nobody has waited for does not."""
    if pid is None:
        return False
    import psutil

    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _free_port(wanted: int | None) -> int:
    """The port asked for; without one the default if it is free, else any that is.

    Raises:
        BadSetting: somebody listens on the port that was asked for. It might be another server,
            and that is not ours to show or to stop.
    """
    from lemonade.client.address import DEFAULT_PORT

    for port in (wanted,) if wanted else (DEFAULT_PORT, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise BadSetting(f"Port {wanted} is taken.", remedy="Leave --port out to take a free one.")
