"""`lemonade`: the table of commands, and how a run of one ends.

Exit codes: 0 done, 1 it did not work, 2 the command line is wrong, 130 interrupted. Every failure
is one message on the standard error output; a traceback is a bug.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Final

import click

from lemonade import __version__
from lemonade.cli.command import CONTEXT_SETTINGS, Entry, LazyGroup
from lemonade.cli.session import Session
from lemonade.core.errors import LemonadeError

_START: Final = "Quick Start"
_SERVER: Final = "Server"
_MODELS: Final = "Models"

ENTRIES: Final = {
    "demo": Entry("lemonade.cli.demo:demo", "Show the whole way to an answer.", _START),
    "run": Entry("lemonade.cli.run:run", "Ask a model, starting a server if needed.", _START),
    "chat": Entry("lemonade.cli.chat:chat", "Talk with a model in the terminal.", _START),
    "serve": Entry("lemonade.cli.serve:serve", "Run the server in the foreground.", _SERVER),
    "status": Entry("lemonade.cli.status:status", "Show whether the server runs.", _SERVER),
    "ps": Entry("lemonade.cli.status:ps", "List the loaded models and their engines.", _SERVER),
    "reap": Entry("lemonade.cli.orphans:reap", "End what dead servers left behind.", _SERVER),
    "backends": Entry("lemonade.cli.backends:backends", "List and install engines.", _SERVER),
    "recipes": Entry("lemonade.cli.backends:backends"),
    "doctor": Entry("lemonade.cli.doctor:doctor", "Find what is wrong on this machine.", _SERVER),
    "selftest": Entry(
        "lemonade.cli.selftest:selftest", "Try whether everything works on this machine.", _SERVER
    ),
    "config": Entry("lemonade.cli.settings:config", "Show and change settings.", _SERVER),
    "logs": Entry("lemonade.cli.logs:logs", "Print what an engine or the server said.", _SERVER),
    "incidents": Entry("lemonade.cli.incidents:incidents", "Show what failed, and why.", _SERVER),
    "stop": Entry("lemonade.cli.status:stop", "Stop the server and all it started.", _SERVER),
    "restart": Entry(
        "lemonade.cli.status:restart", "Restart the server; models stay loaded.", _SERVER
    ),
    "list": Entry("lemonade.cli.listing:list_models", "List models.", _MODELS),
    "pull": Entry("lemonade.cli.pull:pull", "Download a model.", _MODELS),
    "downloads": Entry(
        "lemonade.cli.downloads:downloads", "List what the server fetches by itself.", _MODELS
    ),
    "delete": Entry("lemonade.cli.models:delete", "Delete a model from this machine.", _MODELS),
    "load": Entry("lemonade.cli.models:load", "Load a model.", _MODELS),
    "explain": Entry("lemonade.cli.explain:explain", "Show what a load would do.", _MODELS),
    "unload": Entry("lemonade.cli.models:unload", "Unload a model, or all.", _MODELS),
    "adapters": Entry("lemonade.cli.adapters:adapters", "Put LoRA adapters upon models.", _MODELS),
}


def _print_version(context: click.Context, _parameter: click.Parameter, value: bool) -> None:  # noqa: FBT001 - click calls it
    if value:
        click.echo(f"lemonade version {__version__}")
        context.exit()


def _print_all_help(context: click.Context, _parameter: click.Parameter, value: bool) -> None:  # noqa: FBT001 - click calls it
    if not value:
        return
    click.echo(context.get_help())
    group = context.command
    assert isinstance(group, click.Group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        click.echo(f"\n\n{command.get_help(click.Context(command, context, name))}")
    context.exit()


@click.pass_context
def _root(context: click.Context) -> None:
    """A private AI endpoint out of this machine."""
    context.ensure_object(Session)


root: Final = LazyGroup(
    name="lemonade",
    callback=_root,
    help="A private AI endpoint out of this machine. Start with `lemonade demo`.",
    entries=ENTRIES,
    no_args_is_help=False,
    context_settings=CONTEXT_SETTINGS,
    params=[
        click.Option(
            ["-v", "--version"],
            is_flag=True,
            expose_value=False,
            is_eager=True,
            callback=_print_version,
            help="Print the version.",
        ),
        click.Option(
            ["--help-all"],
            is_flag=True,
            expose_value=False,
            is_eager=True,
            callback=_print_all_help,
            help="Print the help of every command.",
        ),
    ],
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command line, and end the process with its exit code."""
    sys.exit(conduct(root, "lemonade", arguments))


def conduct(command: click.Command, name: str, arguments: Sequence[str] | None) -> int:
    """Run `command` and turn however it ends into an exit code and at most one message."""
    try:
        result = command.main(
            None if arguments is None else list(arguments), name, standalone_mode=False
        )
    except click.UsageError as error:
        _explain_usage(error)
        return 2
    except click.ClickException as error:
        _complain(error.format_message())
        return 1
    except LemonadeError as error:
        _complain(str(error))
        return 1
    except (KeyboardInterrupt, click.Abort) as error:
        if isinstance(error.__cause__, EOFError):
            _complain("The input ended before there was an answer.")
            return 1
        _say("Interrupted.")
        return 130
    except BrokenPipeError:
        # The reader went away, as `head` does. Python would complain again while it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return result if isinstance(result, int) else 0


def _explain_usage(error: click.UsageError) -> None:
    path, message = "lemonade", error.format_message()
    if error.ctx is not None:
        path, command = error.ctx.command_path, error.ctx.command
        nothing_asked = isinstance(command, click.Group) and error.ctx.invoked_subcommand is None
        unknown = message.startswith(("There is no", "No such"))
        _say(error.ctx.get_help() if nothing_asked and not unknown else error.ctx.get_usage())
    _complain(message)
    _say(f"Run with --help for more: {path} --help")


def _complain(message: str) -> None:
    _say(f"Error: {message}")


def _say(message: str) -> None:
    click.echo(message, err=True)
