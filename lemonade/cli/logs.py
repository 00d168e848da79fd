"""`logs`: what an engine printed, or the server that was started in the background."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Final, cast

import click

from lemonade.cli.command import Command, refuse_usage
from lemonade.cli.render import harmless, is_terminal, out
from lemonade.cli.session import Session, pass_session
from lemonade.core.errors import NotLoaded

LOG_NAME: Final = "server.log"
_LOOK_EVERY: Final = 0.2


@click.command(cls=Command)
@click.argument("model", required=False, default="")
@click.option(
    "-n", "--lines", type=click.IntRange(0), default=100, help="Last lines to begin with."
)
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes, until Ctrl-C.")
@click.option(
    "--level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    help="Only lines as grave as that, or graver.",
)
@click.option("--json", "as_json", is_flag=True, help="Each line with its time, level and pid.")
@click.option("--server", is_flag=True, help="The server that `run` started in the background.")
@pass_session
def logs(
    session: Session,
    model: str,
    lines: int,
    follow: bool,  # noqa: FBT001 - click calls it
    level: str | None,
    as_json: bool,  # noqa: FBT001 - click calls it
    server: bool,  # noqa: FBT001 - click calls it
) -> None:
    """Print what an engine or the server said.

    The engine that runs MODEL, or without it the one used last. A server in the foreground prints
    its own log where it was started. Of a model that is not loaded, what its last engine left.
    Following goes on when the model is unloaded and loaded again.
    """
    if server:
        if model:
            raise refuse_usage("--server and a model exclude each other.")
        if level or as_json:
            raise refuse_usage("--level and --json are for the logs of engines.")
        stream = _lines_of(background_log(), lines, follow=follow)
    else:
        stream = session.client().logs(
            model, lines=lines, follow=follow, level=level or "", as_json=as_json
        )
    person = is_terminal()
    with closing(cast("Generator[str, None, None]", stream)) as text:
        for line in text:
            out(harmless(line) if person else line)
            if follow:
                sys.stdout.flush()


def background_log() -> Path:
    """The file that a server in the background prints to.

    Raises:
        BadSetting: there is no home directory to look in.
    """
    from lemonade.storage import directories

    return directories(os.environ).runtime / LOG_NAME


def _lines_of(path: Path, lines: int, *, follow: bool) -> Iterator[str]:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            last = file.read().splitlines()
            yield from last[len(last) - lines :] if lines < len(last) else last
            while follow:
                line = file.readline()
                if line:
                    yield line.rstrip("\n")
                else:
                    time.sleep(_LOOK_EVERY)
    except FileNotFoundError as error:
        raise NotLoaded(
            "No server was started in the background on this machine.",
            remedy="`lemonade serve` prints its log where it runs.",
        ) from error
