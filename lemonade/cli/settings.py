"""`config` and `config set`: the server's settings, shown and changed."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, Final

import click

from lemonade.cli.command import Group, StandaloneCommand, refuse_usage
from lemonade.cli.render import note, out, write_json
from lemonade.cli.session import Session, pass_session
from lemonade.core.errors import ServerRefused
from lemonade.core.inference import JsonObject

_HIDDEN: Final = frozenset({"config_version", "_generated"})
_WHOLE: Final = re.compile(r"[+-]?\d+\Z", re.ASCII)
_DECIMAL: Final = re.compile(r"[+-]?(\d+\.\d*|\.\d+)\Z", re.ASCII)


@click.group(cls=Group, invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print the settings as one document.")
@click.pass_context
def config(context: click.Context, as_json: bool) -> None:  # noqa: FBT001 - click calls it
    """Show and change settings.

    Without a command: every setting with its present value.
    """
    if context.invoked_subcommand is not None:
        return
    document = context.ensure_object(Session).client().config()
    if as_json:
        write_json(document)
        return
    out("Server Configuration")
    out("-" * 34)
    for section, rows in _sections(document).items():
        out(f"  [{section}]")
        for name, value in rows.items():
            out(f"  {name:<24} {_shown(value)}")


@config.command(
    "set",
    cls=StandaloneCommand,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.argument("items", nargs=-1, required=True, metavar="KEY=VALUE...")
@pass_session
def set_settings(session: Session, items: tuple[str, ...]) -> int:
    """Change settings for good.

    KEY is a name as `lemonade config` shows it, with dots between section and field. VALUE is
    read as JSON if it starts with [ or {, else as a number, true, false or a text. Every word is
    a setting: options that say which server stand before `config`.
    """
    changes = read_assignments(items)
    try:
        reply = session.client().set_config(changes)
    except ServerRefused as error:
        note(f"Error: {error.message}")
        note("Nothing was changed.")
        return 1
    if message := reply.get("message"):
        out(str(message))
    write_json(reply.get("updated") or {})
    return 0


def read_assignments(items: Sequence[str]) -> dict[str, Any]:
    """The nested document that `section.field=value` words describe.

    Raises:
        UsageError: a word has no `=` or no key, or two words contradict each other.
    """
    changes: dict[str, Any] = {}
    for item in items:
        key, equals, text = item.partition("=")
        if key.startswith("-"):
            raise refuse_usage(f"'{item}' is not KEY=VALUE: options stand before `config`.")
        parts = [part.replace("-", "_") for part in key.split(".")]
        if not equals or not all(parts):
            raise refuse_usage(f"'{item}' is not KEY=VALUE.")
        place = changes
        for part in parts[:-1]:
            place = place.setdefault(part, {})
            if not isinstance(place, dict):
                raise refuse_usage(f"'{item}' contradicts an earlier word: {part} has a value.")
        if isinstance(place.get(parts[-1]), dict):
            raise refuse_usage(f"'{item}' contradicts an earlier word: {key} is a section.")
        place[parts[-1]] = read_value(text)
    return changes


def read_value(text: str) -> Any:  # noqa: ANN401 - any JSON value
    """The value a word means: JSON array or object, number, boolean, else the text itself."""
    if text.startswith(("[", "{")):
        try:
            return json.loads(text)
        except ValueError:
            return text
    if _WHOLE.match(text):
        return int(text)
    if _DECIMAL.match(text):
        return float(text)
    return {"true": True, "false": False}.get(text, text)


def _sections(document: JsonObject) -> dict[str, dict[str, Any]]:
    sections: dict[str, dict[str, Any]] = {"General": {}}
    for key in sorted(document):
        value = document[key]
        if key in _HIDDEN:
            continue
        if isinstance(value, dict):
            sections[key] = {f"{key}.{field}": value[field] for field in sorted(value)}
        else:
            sections["General"][key] = value
    return sections


def _shown(value: Any) -> str:  # noqa: ANN401 - any JSON value
    if value == "":
        return "(empty)"
    if isinstance(value, str):
        return value
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
