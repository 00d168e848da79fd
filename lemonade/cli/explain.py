"""`explain`: what a load would do, and who decided each part of it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import click

from lemonade.cli.recipe_flags import LoadingCommand, typed_options
from lemonade.cli.render import out, write_json
from lemonade.cli.session import Session
from lemonade.core.inference import JsonObject
from lemonade.core.units import render_size

_ORIGINS: Final[Mapping[str, str]] = {
    "server": "the server's environment",
    "lemonade": "Lemonade",
    "backend": "the backend",
    "recipe": "the recipe",
    "default": "the backend's default",
}
_FACTS: Final[Mapping[str, str]] = {
    "kv_heads": "kept heads",
    "head_size": "size of a head",
    "longest": "longest context",
    "size_bytes": "size",
}
_WIDTH: Final = 44


@click.command(cls=LoadingCommand)
@click.argument("model")
@click.option("--json", "as_json", is_flag=True, help="Print the server's answer.")
@click.pass_context
def explain(context: click.Context, model: str, as_json: bool) -> None:  # noqa: FBT001 - click calls it
    """Show what a load would do.

    The command line, the environment and the place, each part with the layer it comes from.
    Nothing is started, fetched or unloaded. Of a model that is not downloaded the hub is asked
    for what the load would be planned with.
    """
    client = context.ensure_object(Session).client()
    answer = client.explain(model, typed_options(context))
    if as_json:
        write_json(answer)
    else:
        show(answer)


def show(answer: JsonObject) -> None:
    """Print the server's answer for people."""
    version = f" {answer['version']}" if answer.get("version") else ""
    out(f"Loading {answer.get('model_name')} would start {answer.get('backend')}{version}:")
    for heading, lines in (
        ("", _command(answer)),
        ("Environment", _environment(answer.get("environment") or ())),
        ("Adapter", _adapter(answer.get("adapter") or {})),
        ("Backends", _backends(answer.get("candidates") or ())),
        ("Checkpoint", _checkpoint(answer.get("checkpoint") or {})),
        ("Context", _context(answer.get("context") or {})),
        ("Place", _place(answer.get("placement") or {})),
        ("If it hangs or fails", _watched(answer.get("hang") or {}, answer.get("crash") or {})),
        ("Missing", answer.get("missing") or ()),
        ("Notices", answer.get("notices") or ()),
    ):
        lines = list(lines)  # noqa: PLW2901 - some are made while they are read
        if lines:
            out()
            if heading:
                out(heading)
            for line in lines:
                out(f"  {line}")
    out()
    out("Nothing was done.")


def _command(answer: JsonObject) -> Iterator[str]:
    yield shlex.join(answer.get("program") or ())
    for argument in answer.get("arguments") or ():
        yield _row(shlex.join(argument["words"]), _said_by(argument))


def _said_by(argument: Mapping[str, Any]) -> str:
    text = str(argument.get("layer") or argument.get("origin"))
    if argument.get("because"):
        text = f"{text}: {argument['because']}"
    for below in argument.get("overrode") or ():
        text += f"; instead of {shlex.join(below['words'])} ({_said_by(below)})"
    return text


def _environment(variables: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for variable in variables:
        origin = str(variable["origin"])
        text = f"{variable['name']}={variable['value']}"
        yield _row(text, _ORIGINS.get(origin, origin))


def _backends(candidates: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for one in candidates:
        mark = "*" if one["chosen"] else " "
        state = "installed" if one["installed"] else ""
        yield f"{mark} {one['backend']:<20}{state:<11}{one['because']}"


def _adapter(adapter: Mapping[str, Any]) -> Iterator[str]:
    """The one that was named; the command line is that of its model."""
    if adapter:
        of = f" (of {adapter['checkpoint']})" if adapter.get("checkpoint") else ""
        yield f"{adapter['id']} is {adapter['path']}{of}, applied by {adapter['scale']:g}."
        yield "The running engine has it." if adapter.get("loaded") else "No engine has it now."
        if adapter.get("problem"):
            yield str(adapter["problem"])


def _checkpoint(checkpoint: Mapping[str, Any]) -> Iterator[str]:
    for fact in checkpoint.get("facts") or ():
        name = _FACTS.get(str(fact["name"]), str(fact["name"]))
        sized = fact["name"] == "size_bytes"
        value = render_size(fact["value"]) if sized else fact["value"]
        yield _row(f"{name}: {value}", str(fact["from"]))
    if note := str(checkpoint.get("note") or ""):
        yield note[:1].upper() + note[1:]


def _context(context: Mapping[str, Any]) -> Iterator[str]:
    tokens = context.get("tokens")
    said = f"{tokens} tokens. " if tokens else ""
    yield f"{said}{context.get('because') or ''}"
    if context.get("cache_bytes"):
        budget = context.get("budget_bytes")
        of = f" of {render_size(budget)}" if budget else ""
        each = f", {context['bytes_per_token']} bytes a token"
        yield f"Its cache takes {render_size(context['cache_bytes'])}{of}{each}."


def _place(place: Mapping[str, Any]) -> Iterator[str]:
    leaves = place.get("leaves") or ()
    if leaves:
        yield f"{', '.join(leaves)} would have to leave: {place.get('because')}"
    elif place.get("because"):
        yield str(place["because"])


def _watched(hang: Mapping[str, Any], crash: Mapping[str, Any]) -> Iterator[str]:
    limits = (hang.get("failing_probes_s"), hang.get("passing_probes_s"), hang.get("idle_s"))
    if any(limits):
        busy, still, idle = (f"{limit:g} s" if limit else "for ever" for limit in limits)
        yield (
            f"With requests it may do nothing for {busy} while its probes fail, and for {still} "
            f"while they pass; without, its probes may fail for {idle}."
        )
    elif hang:
        yield "It is never ended for doing nothing."
    if crash.get("failures"):
        yield (
            f"After {crash['failures']} failures within {crash['window_s']:g} s it is not started "
            f"for {crash['open_s']:g} s."
        )
    elif crash:
        yield "However often it fails, it is started again."


def _row(left: str, right: str) -> str:
    """Two columns; what is too long for its own goes on in the next line."""
    if len(left) < _WIDTH:
        return f"{left:<{_WIDTH}}{right}"
    return f"{left}\n  {'':<{_WIDTH}}{right}"
