"""From a model's name to a model that answers: its files, its engine, then itself.

What `load`, `run` and `chat` have in common. Each step says what it does, and each may be
interrupted: the server keeps what is complete, and the next run goes on from there.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from lemonade.cli.progress import follow
from lemonade.cli.render import is_terminal, note, out
from lemonade.client import LemonadeClient
from lemonade.core.inference import JsonObject
from lemonade.core.progress import Progress


def make_ready(
    client: LemonadeClient,
    name: str,
    *,
    options: JsonObject | None = None,
    save_options: bool = False,
    pinned: bool | None = None,
    force: bool = False,
    quiet: bool = False,
) -> JsonObject:
    """Download what is missing, then load.

    Args:
        client: the server.
        name: of the model.
        options: of its recipe.
        save_options: keep them.
        pinned: protect it from eviction.
        force: try even what has failed again and again.
        quiet: leave the standard output to somebody else.

    Returns:
        The server's reply to the load.

    Raises:
        LemonadeError: one of the steps failed.
    """
    model = client.model(name)
    fetch(client, model, name, quiet=quiet)
    ensure_engine(client, str(model.get("recipe") or ""), options or {}, quiet=quiet)
    with working(f"Loading model: {name}", quiet=quiet) as tell:
        return client.load(
            name,
            options=options,
            save_options=save_options,
            pinned=pinned,
            force=force,
            listen=lambda progress: tell(_phase(progress)),
        )


def make_available(client: LemonadeClient, name: str) -> None:
    """Make a model ready, unless it is loaded: to load it anew would undo others' options.

    Says what it does on the standard error output: the other one is for answers.

    Raises:
        LemonadeError: one of the steps failed.
    """
    rows = client.health().get("all_models_loaded") or ()
    if not any(row.get("model_name") == name for row in rows):
        make_ready(client, name, quiet=True)


def fetch(client: LemonadeClient, model: JsonObject, name: str, *, quiet: bool) -> None:
    """Download a model that is not there; one that is there is not looked at again."""
    if model.get("downloaded") is not False:
        return
    (note if quiet else out)(f"Pulling model: {name}")
    follow(client.pull({"model_name": name, "do_not_upgrade": True}), err=quiet)


def ensure_engine(
    client: LemonadeClient, recipe: str, options: JsonObject, *, quiet: bool
) -> tuple[str, bool]:
    """Install the engine a load is going to take, where it is not installed.

    The server would do that itself; asked for on its own it can be watched.

    Returns:
        The variant, empty if it is not known, and whether it had to be installed.
    """
    known: JsonObject = (client.system_info().get("recipes") or {}).get(recipe) or {}
    wanted = [v for key, v in options.items() if key.endswith("_backend") and v and v != "auto"]
    variant = str(wanted[0] if wanted else known.get("default_backend") or "")
    backend: JsonObject = (known.get("backends") or {}).get(variant) or {}
    if backend.get("state") != "installable":
        return variant, False
    (note if quiet else out)(f"Installing backend: {recipe}:{variant}")
    follow(client.install(recipe, variant), err=quiet)
    return variant, True


def _phase(progress: Progress) -> str:
    """Where the start of an engine is; or what is still being fetched for it."""
    if not progress.phase:
        return f"fetching {progress.file}"
    known = progress.phase_percent is not None
    return f"{progress.phase} {progress.phase_percent} %" if known else progress.phase


@contextmanager
def working(what: str, *, quiet: bool = False) -> Iterator[Callable[[str], None]]:
    """Say what is being done while it is: a spinner on a terminal, a line elsewhere.

    What is yielded takes a few words on how far it is: beside the spinner they are replaced, as
    lines they are printed when the first of them changes.
    """
    if not is_terminal_for(quiet=quiet):
        say = note if quiet else out
        say(what)
        last = ""

        def print_change(words: str) -> None:
            nonlocal last
            if words.split()[:1] != last.split()[:1]:
                say(f"  {words}")
            last = words

        yield print_change
        return
    from rich.console import Console
    from rich.markup import escape

    with Console(stderr=quiet).status(escape(what)) as status:
        yield lambda words: status.update(escape(f"{what} ({words})"))


def is_terminal_for(*, quiet: bool) -> bool:
    """Whether a person looks at the stream that notes go to."""
    return is_terminal(sys.stderr if quiet else sys.stdout)
