"""The commands as a page of the documentation shows them: made from the commands themselves.

Only what ships with Lemonade is described, so that the text does not depend on the machine.
"""

from __future__ import annotations

from collections.abc import Iterator

import click

from lemonade.catalog import shipped
from lemonade.cli.command import CONTEXT_SETTINGS
from lemonade.cli.lemond import lemond
from lemonade.cli.main import ENTRIES, root
from lemonade.cli.recipe_flags import LoadingCommand


def render_reference() -> str:
    """Every command's own help, as Markdown."""
    LoadingCommand.roots = (shipped(),)
    try:
        return "\n" + "\n".join(_sections()) + "\n"
    finally:
        LoadingCommand.roots = None


def _sections() -> Iterator[str]:
    context = _context(root, None, "lemonade")
    yield _section("lemonade", root, context)
    for name in root.list_commands(context):
        command = root.get_command(context, name)
        assert command is not None
        inner = _context(command, context, name)
        yield _section(f"lemonade {name}", command, inner)
        if isinstance(command, click.Group):
            for word in command.list_commands(inner):
                leaf = command.commands[word]
                yield _section(f"lemonade {name} {word}", leaf, _context(leaf, inner, word))
    aliases = [name for name, entry in ENTRIES.items() if not entry.heading]
    yield f"Another name: {', '.join(f'`lemonade {name}`' for name in aliases)} for `backends`.\n"
    yield _section("lemond", lemond, _context(lemond, None, "lemond"))


def _context(command: click.Command, parent: click.Context | None, name: str) -> click.Context:
    # The width of the terminal must not show in the text.
    return click.Context(command, parent, name, terminal_width=96, **CONTEXT_SETTINGS)


def _section(title: str, command: click.Command, context: click.Context) -> str:
    return f"### `{title}`\n\n```text\n{command.get_help(context)}\n```\n"
