"""The kinds of commands: what click's lack for this command line.

Options are shown under headings, the global options may follow any command, and a group may know
its commands by name and summary alone, so that help imports none of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any, Final

import click

from lemonade.cli.session import Session
from lemonade.core.near import did_you_mean, near_names
from lemonade.core.records import dataclass

CONTEXT_SETTINGS: Final[dict[str, Any]] = {
    "help_option_names": ["-h", "--help"],
    "max_content_width": 100,
}


def read_port(text: str) -> int:
    """The port of a server, for click to convert with.

    Raises:
        BadParameter: it is none.
    """
    return _port(text, lowest=1)


def read_listening_port(text: str) -> int:
    """The port to listen on; 0 takes a free one.

    Raises:
        BadParameter: it is none.
    """
    return _port(text, lowest=0)


def _port(text: str, *, lowest: int) -> int:
    if text.isascii() and text.isdigit() and lowest <= int(text) < 65536:
        return int(text)
    raise click.BadParameter(f"'{text}' is not a port: a number from {lowest} to 65535.")


class HeadedOption(click.Option):
    """An option with the heading it is shown under in `--help`."""

    def __init__(self, *args: Any, heading: str = "Options", **kwargs: Any) -> None:  # noqa: ANN401 - click's own signature
        super().__init__(*args, **kwargs)
        self.heading = heading


def global_options() -> list[click.Parameter]:
    """The options that say which server, as the group and its commands take them.

    They store into the session; of an option given twice the later one counts.
    """

    def store(name: str) -> Callable[[click.Context, click.Parameter, Any], None]:
        def callback(context: click.Context, _parameter: click.Parameter, value: Any) -> None:  # noqa: ANN401 - click's own signature
            if value is not None:
                setattr(context.ensure_object(Session), name, value)

        return callback

    return [
        HeadedOption(
            ["--host"],
            metavar="HOST",
            expose_value=False,
            callback=store("host"),
            heading="Global Options",
            help="Server to talk to: a host or a URL. [env LEMONADE_HOST; default 127.0.0.1]",
        ),
        HeadedOption(
            ["--port"],
            type=read_port,
            metavar="PORT",
            expose_value=False,
            callback=store("port"),
            heading="Global Options",
            help="Its port. [env LEMONADE_PORT; default 13305]",
        ),
        HeadedOption(
            ["--api-key"],
            metavar="KEY",
            expose_value=False,
            callback=store("api_key"),
            heading="Global Options",
            help="Its key. [env LEMONADE_ADMIN_API_KEY, LEMONADE_API_KEY]",
        ),
        # Scripts written for a server that announces itself pass this; there is nothing to switch
        # off here, so it is accepted and not shown.
        HeadedOption(["--no-discovery"], is_flag=True, expose_value=False, hidden=True),
    ]


class Command(click.Command):
    """A command whose options have headings and which takes the global options as well.

    Attributes:
        takes_globals: whether it does.
    """

    takes_globals = True

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The command's own options, then the global ones it does not redefine."""
        own = super().get_params(ctx)
        if not self.takes_globals:
            return own
        taken = {word for parameter in own for word in parameter.opts}
        return own + [p for p in _GLOBALS if not taken & set(p.opts)]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """One section per heading, in the order of first mention; global options last."""
        sections: dict[str, list[tuple[str, str]]] = {"Options": []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if isinstance(parameter, click.Argument):
                continue  # the usage line shows them, the text explains them
            if record is not None:
                sections.setdefault(getattr(parameter, "heading", "Options"), []).append(record)
        last = sections.pop("Global Options", [])
        for heading, records in [*sections.items(), ("Global Options", last)]:
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)


class StandaloneCommand(Command):
    """A command that talks to no server, or takes every word for its own."""

    takes_globals = False


class Group(Command, click.Group):
    """A group of commands that are there already."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The options, then the commands."""
        super().format_options(ctx, formatter)
        self.format_commands(ctx, formatter)


@dataclass(frozen=True, slots=True)
class Entry:
    """A command that nobody has imported yet.

    Attributes:
        target: `module:attribute`.
        summary: what the list of commands says; a test holds it to the command's own first line.
        heading: in the list of commands; empty for a name that is not listed.
    """

    target: str
    summary: str = ""
    heading: str = ""


class LazyGroup(Group):
    """A group that imports a command when it is invoked, and not before."""

    def __init__(self, *args: Any, entries: Mapping[str, Entry], **kwargs: Any) -> None:  # noqa: ANN401 - click's own signature
        super().__init__(*args, **kwargs)
        self.entries = entries

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The listed names, in the order of the table."""
        del ctx
        return [name for name, entry in self.entries.items() if entry.heading]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command, if there is one of that name."""
        del ctx
        if (entry := self.entries.get(cmd_name)) is None:
            return None
        module, _, attribute = entry.target.partition(":")
        command = getattr(import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, with near names in the complaint."""
        word = args[0]
        if word not in self.entries and not word.startswith("-"):
            hint = did_you_mean(near_names(word, self.list_commands(ctx), at_most=2))
            raise click.UsageError(f"There is no command '{word}'. {hint}".strip(), ctx=ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The commands under their headings, without importing one."""
        for heading in dict.fromkeys(e.heading for e in self.entries.values() if e.heading):
            with formatter.section(heading):
                formatter.write_dl(
                    [(n, e.summary) for n, e in self.entries.items() if e.heading == heading]
                )


def refuse_usage(message: str, context: click.Context | None = None) -> click.UsageError:
    """The error of a command line that cannot be meant; to be raised."""
    return click.UsageError(message, ctx=context or click.get_current_context(silent=True))


def words_of(values: Sequence[str]) -> str:
    """The words of a variadic argument as the one text they were before the shell cut them."""
    return " ".join(values)


_GLOBALS: Final = tuple(global_options())
