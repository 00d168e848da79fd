"""`lemond`: the server alone, for programs that embed it.

Directories come as words, `lemond [CACHE_DIR] [CONFIG_DIR]`; a cache directory alone holds the
configuration too, which makes `lemond ./` portable.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from lemonade import __version__
from lemonade.cli.command import CONTEXT_SETTINGS, StandaloneCommand, read_listening_port
from lemonade.cli.main import conduct
from lemonade.cli.serve import LOG_LEVELS, run_foreground


def _print_version(context: click.Context, _parameter: click.Parameter, value: bool) -> None:  # noqa: FBT001 - click calls it
    if value:
        click.echo(f"lemond version {__version__}")
        context.exit()


@click.command("lemond", cls=StandaloneCommand, context_settings=CONTEXT_SETTINGS)
@click.argument("cache_dir", required=False, type=click.Path(file_okay=False, path_type=Path))
@click.argument("config_dir", required=False, type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--port",
    type=read_listening_port,
    metavar="PORT",
    help="Port, for this run only; 0 takes a free one.",
)
@click.option("--host", metavar="HOST", help="Address to listen on, for this run only.")
@click.option(
    "--broadcast/--no-broadcast",
    default=None,
    help="Announce the server on the network. This version never does.",
)
@click.option("--log-level", type=click.Choice(LOG_LEVELS), help="How much is logged.")
@click.option(
    "-v",
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_print_version,
    help="Print the version.",
)
def lemond(
    cache_dir: Path | None,
    config_dir: Path | None,
    port: int | None,
    host: str | None,
    broadcast: bool | None,  # noqa: FBT001 - click calls it
    log_level: str | None,
) -> int:
    """Serve from CACHE_DIR (downloads) and CONFIG_DIR (settings).

    Without words the directories are found as `lemonade serve` finds them. With CACHE_DIR alone
    the settings are kept there too.
    """
    if broadcast:
        click.echo("Warning: --broadcast: this version does not announce itself.", err=True)
    return run_foreground(
        cache=cache_dir, config=config_dir, host=host, port=port, log_level=log_level
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `lemond`, and end the process with its exit code."""
    sys.exit(conduct(lemond, "lemond", arguments))


if __name__ == "__main__":
    main()
