"""`serve`: the server in the foreground, until a signal ends it.

Everything that makes a server is behind one function of `lemonade.app`; here are its flags.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click

from lemonade.cli.command import StandaloneCommand, read_listening_port
from lemonade.cli.session import Session, pass_session

LOG_LEVELS = ("trace", "debug", "info", "warning", "error", "fatal", "none")


@click.command(cls=StandaloneCommand)
@click.option("--host", metavar="HOST", help="Address to listen on. [default: the setting `host`]")
@click.option(
    "--port",
    type=read_listening_port,
    metavar="PORT",
    help="Port; 0 takes a free one. [env LEMONADE_PORT; default: the setting `port`, 13305]",
)
@click.option(
    "--workers",
    type=click.IntRange(0, 64),
    metavar="N",
    envvar="LEMONADE_WORKERS",
    help="Processes beside the server that relay on the same port. "
    "[env LEMONADE_WORKERS; default: the setting `workers`, 0]",
)
@click.option("--log-level", type=click.Choice(LOG_LEVELS), help="How much is logged.")
@click.option(
    "--on-exit",
    type=click.Choice(("end", "keep")),
    help="What becomes of loaded models when the server ends. [env LEMONADE_ON_EXIT]",
)
@click.option(
    "-m", "--model", "models", multiple=True, metavar="MODEL", help="Load at start. Repeatable."
)
@pass_session
def serve(
    session: Session,
    host: str | None,
    port: int | None,
    workers: int | None,
    log_level: str | None,
    on_exit: str | None,
    models: tuple[str, ...],
) -> int:
    """Run the server in the foreground.

    Flags count for this run only; `lemonade config set` changes settings for good. Ctrl-C stops
    the server and every engine it started, or leaves loaded models to the next server with
    --on-exit keep. SIGHUP has it begin again, as `lemonade restart` does.
    """
    if port is None:
        port = session.port
    if port is None and os.environ.get("LEMONADE_PORT"):
        # The commands will look there, so the server had better be there.
        port = session.address().port
    return run_foreground(
        host=host or session.host,
        port=port,
        workers=workers,
        log_level=log_level,
        on_exit=on_exit,
        models=models,
    )


def run_foreground(
    *,
    cache: Path | None = None,
    config: Path | None = None,
    host: str | None,
    port: int | None,
    workers: int | None = None,
    log_level: str | None,
    models: Sequence[str] = (),
    on_exit: str | None = None,
) -> int:
    """Serve until a signal; the exit code. What is None is left to the settings."""
    run_server = _server()
    from lemonade.storage import directories

    return run_server(
        directories(os.environ, cache=cache, config=config),
        host=host,
        port=port,
        workers=workers,
        log_level=log_level,
        models=models,
        on_exit=on_exit,
        command=(sys.executable, *sys.orig_argv[1:]) if sys.executable else (),
        announce=lambda url: click.echo(f"Lemonade serves {url} - Ctrl-C stops it."),
    )


def _server() -> Callable[..., int]:
    """The function that serves, imported without what its import need not do."""
    # Nearly everything that is made from here on stays, and looking for garbage among it again and
    # again was a twentieth of a start's instructions. The server looks again once it listens.
    gc.disable()
    # aiohttp reads the certificates of all authorities when it is imported: a fifth of a start's
    # instructions and 2 MiB, for HTTPS requests without a context of their own. Ours have one.
    with _variable("SSL_CERT_FILE", os.devnull):
        from lemonade.app import run_server
    return run_server


@contextmanager
def _variable(name: str, value: str) -> Iterator[None]:
    """A variable of the environment for a while."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
