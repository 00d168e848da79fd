"""What a load would do, and who decided it: `/models/{id}/explain`."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from lemonade.catalog import OptionSpec
from lemonade.core.errors import MalformedRequest
from lemonade.core.inference import JsonObject
from lemonade.core.process import REDACTED
from lemonade.gateway.adapters import describe_adapter
from lemonade.gateway.bodies import read_object
from lemonade.gateway.errors import REQUESTED_MODEL, json_response
from lemonade.gateway.parts import Parts, parts_of
from lemonade.gateway.routing import Route
from lemonade.planning import Argument, layer_phrase
from lemonade.planning.checkpoint_facts import CheckpointFacts, facts_of
from lemonade.residency import Explanation, LoadRequest, explain, shown, words_of

_NOT_OPTIONS = ("model_name", "model", "save_options", "pinned", "stream")


def explain_routes() -> tuple[Route, ...]:
    """The routes of this file. They come before those of the models, whose names may hold `/`."""
    return (
        Route("GET", "/models/{id:.+}/explain", explain_query, errors="model"),
        Route("POST", "/models/{id:.+}/explain", explain_body, errors="model"),
    )


async def explain_query(request: web.Request) -> web.Response:
    """What loading it would do; options as a query: `?ctx_size=4096`. Nothing is done."""
    parts = parts_of(request)
    base, _ = parts.adapters.split(_name(request))
    spec = parts.registry.resolve(base)
    known = {option.name: option for option in parts.catalog.recipe(spec.recipe).option}
    options = {key: _typed(text, known.get(key)) for key, text in request.query.items()}
    return await _answer(request, parts, options)


async def explain_body(request: web.Request) -> web.Response:
    """The same with the body of a load. Nothing is done."""
    body = await read_object(request, empty_ok=True)
    options = {key: value for key, value in body.items() if key not in _NOT_OPTIONS}
    return await _answer(request, parts_of(request), options)


def _name(request: web.Request) -> str:
    name = request[REQUESTED_MODEL] = request.match_info["id"]
    return name


async def _answer(request: web.Request, parts: Parts, options: JsonObject) -> web.Response:
    base, adapter = parts.adapters.split(_name(request))
    settings = parts.configuration.settings
    found = await explain(parts.loader, parts.pool, base, LoadRequest(options), settings)
    chosen = {} if adapter is None else describe_adapter(parts, found.plan.spec, adapter)
    return json_response({**_described(found), **({"adapter": chosen} if chosen else {})})


def _typed(text: str, option: OptionSpec | None) -> object:
    """A word of a query as the option's type; `null` is null, as in a body."""
    if text == "null":
        return None
    kind = option.type if option is not None else "string"
    try:
        if kind == "int":
            return int(text)
        if kind == "float":
            return float(text)
    except ValueError as error:
        raise MalformedRequest(f"'{text}' is not a number.") from error
    if kind == "bool" or text in ("true", "false"):
        return text == "true"
    return text


def _described(found: Explanation) -> JsonObject:
    plan, command = found.plan, found.command
    arguments = command.arguments.arguments
    context = command.context
    return {
        "model_name": plan.served_name,
        "recipe": plan.recipe.id,
        "backend": plan.backend.id,
        "version": found.version,
        "candidates": [
            {
                "backend": choice.backend,
                "title": choice.title,
                "chosen": choice.chosen,
                "supported": choice.supported,
                "installed": choice.installed,
                "because": choice.because,
            }
            for choice in found.choices
        ],
        "program": list(command.program),
        "arguments": [
            *({"words": [word], "origin": "recipe"} for word in command.leading),
            *map(_argument, arguments),
        ],
        "command_line": [*command.program, *command.leading, *words_of(arguments)],
        "environment": [
            {
                "name": variable.name,
                "value": REDACTED if variable.secret else variable.value,
                "origin": variable.origin,
            }
            for variable in sorted(command.environment, key=lambda one: one.name)
        ],
        "options": {
            name: {"value": value, "origin": plan.options.origins.get(name, "default")}
            for name, value in plan.options.values.items()
        },
        "checkpoint": _checkpoint(found.checkpoint),
        "context": {
            "tokens": context.tokens,
            "because": context.because,
            "longest": context.longest,
            "cache_bytes": context.cache_bytes,
            "budget_bytes": context.budget_bytes,
            "bytes_per_token": context.token_bytes,
            "from": found.checkpoint.config_from if found.checkpoint.config else "",
        },
        "placement": {
            "devices": list(plan.backend.devices),
            "leaves": list(found.leaves),
            "because": found.room,
        },
        "crash": {
            "failures": found.crash.failures,
            "window_s": found.crash.window,
            "backoff_first_s": found.crash.first_backoff,
            "backoff_max_s": found.crash.longest_backoff,
            "open_s": found.crash.first_pause,
            "open_max_s": found.crash.longest_pause,
        },
        "hang": {
            "idle_s": found.hang.idle,
            "failing_probes_s": found.hang.busy,
            "passing_probes_s": found.hang.still,
        },
        "missing": list(found.missing),
        "notices": list(found.notices),
    }


def _checkpoint(known: CheckpointFacts) -> JsonObject:
    rows = [
        {"name": fact.name, "value": fact.value, "from": fact.origin} for fact in facts_of(known)
    ]
    return {"facts": rows, "note": known.note}


def _argument(argument: Argument) -> dict[str, Any]:
    row: dict[str, Any] = {
        "words": list(shown(argument)),
        "origin": argument.origin,
        "layer": layer_phrase(argument.origin),
    }
    if argument.because:
        row["because"] = argument.because
    if argument.overrode:
        row["overrode"] = [_argument(one) for one in argument.overrode]
    return row
