"""Adapters (LoRA) of models: listed, loaded, scaled, unloaded; chosen as `model: base:adapter`."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from aiohttp import web
from msgspec import structs

from lemonade.catalog import Adapter, ModelSpec
from lemonade.core.errors import AdapterUnsupported, MalformedRequest, NotLoaded, WrongOperation
from lemonade.core.inference import Inference, JsonObject, Operation
from lemonade.dialects import render_error, status_of, with_field
from lemonade.gateway.bodies import field, read_object
from lemonade.gateway.errors import json_response
from lemonade.gateway.parts import Parts, parts_of
from lemonade.gateway.routing import Access, Route
from lemonade.planning import split_checkpoint
from lemonade.residency import Change, Effect, Resident

_ACTIONS: Final = ("load", "scale", "unload")
_REPOSITORY: Final = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*\Z", re.ASCII)


def adapter_routes() -> tuple[Route, ...]:
    """The routes of this file; they stand before `/models/{id}`, which takes everything."""
    path = "/models/{id:.+}/adapters"
    return (
        Route("GET", path, list_adapters, errors="object"),
        # Like settings it makes the server read files of its operator's choice.
        Route("POST", path, change_adapter, access=Access.ADMIN, errors="object"),
    )


async def list_adapters(request: web.Request) -> web.Response:
    """A model's adapters, and what changing them would come to."""
    parts = parts_of(request)
    spec = parts.registry.resolve(request.match_info["id"])
    known = parts.adapters.of(spec.canonical_name).values()
    return json_response(
        {
            "object": "list",
            "model": parts.registry.public_name(spec),
            "effects": {deed: parts.fitter.effect_of(spec, deed) for deed in _ACTIONS},
            "data": [describe_adapter(parts, spec, adapter) for adapter in known],
        }
    )


async def change_adapter(request: web.Request) -> web.Response:
    """Load, scale or unload an adapter: `hot`, `scale-only`, `reload` or `unsupported`.

    The body's `action` says which; without one the adapter is loaded.
    """
    parts = parts_of(request)
    body = await read_object(request)
    model = request.match_info["id"]
    action = field(body, "action", str, "load")
    name = field(body, "name", str)
    if name is None:
        raise MalformedRequest("The field 'name' is missing: which adapter?")
    try:
        change = await _change(parts, model, str(action), name, body)
    except AdapterUnsupported as error:
        status = status_of(error, "object")
        rendered = render_error(error, status, shape="object")
        return json_response({**rendered, "effect": Effect.UNSUPPORTED}, status=status)
    spec = parts.registry.resolve(model)
    adapter = change.adapter
    row = None if adapter is None else describe_adapter(parts, spec, adapter)
    return json_response(
        {
            "status": "success",
            "effect": change.effect,
            "loaded": change.loaded,
            "message": change.message,
            "model": parts.registry.public_name(spec),
            "name": name,
            "adapter": row,
        }
    )


async def _change(parts: Parts, model: str, action: str, name: str, body: JsonObject) -> Change:
    if action == "unload":
        return await parts.fitter.unload(model, name)
    if action == "scale":
        scale = _scale(body)
        if scale is None:
            raise MalformedRequest("The field 'scale' is missing: by how much?")
        return await parts.fitter.scale(model, name, scale)
    if action != "load":
        raise MalformedRequest(
            f"There is no action {action[:40]!a}.",
            remedy=f"Send one of {', '.join(_ACTIONS)}.",
        )
    scale = _scale(body)
    adapter = Adapter(name, Path("/"), 1.0 if scale is None else scale)
    path, checkpoint = field(body, "path", str), field(body, "checkpoint", str)
    if checkpoint is not None:
        if path is not None:
            raise MalformedRequest("An adapter has a 'path' or a 'checkpoint', not both.")
        repository, variant = split_checkpoint(checkpoint)
        if not _REPOSITORY.match(repository) or not checkpoint.isprintable():
            raise MalformedRequest(
                f"{checkpoint[:60]!a} does not name a repository.",
                remedy="Write owner/repo, or owner/repo:FILE for one file or folder of it.",
                facts={"field": "checkpoint"},
            )
        whole = f"{repository}:{variant}" if variant else repository
        return await parts.fitter.load(model, replace(adapter, checkpoint=whole))
    if path is None or not Path(path).is_absolute() or not path.isprintable():
        raise MalformedRequest(
            "The field 'path' must be an absolute path on the server's machine.",
            remedy="It names a GGUF file or a folder with adapter_config.json; 'checkpoint' names "
            "a repository of the hub.",
            facts={"field": "path"},
        )
    return await parts.fitter.load(model, replace(adapter, path=Path(path)))


def _scale(body: JsonObject) -> float | None:
    value = body.get("scale")
    if value is None:
        return None
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value):
        raise MalformedRequest("The field 'scale' must be a number.", facts={"field": "scale"})
    return float(value)


def describe_adapter(parts: Parts, spec: ModelSpec, adapter: Adapter) -> dict[str, Any]:
    """An adapter as clients know it."""
    row: dict[str, Any] = {
        "id": f"{parts.registry.public_name(spec)}:{adapter.name}",
        "name": adapter.name,
        "path": str(adapter.path),
        "scale": adapter.scale,
        "loaded": parts.fitter.fitted(spec, adapter.name) is not None,
    }
    if adapter.checkpoint:
        row["checkpoint"] = adapter.checkpoint
    resident = parts.pool.find(spec.canonical_name)
    there = None if resident is None else resident.adapters.get(adapter.name)
    if there is not None and there.problem:
        row["problem"] = there.problem
    return row


async def forget_adapter(
    parts: Parts, name: str, base: str, adapter: Adapter, *, files: bool = False
) -> JsonObject:
    """Take the adapter `base:adapter` away, which leaves the model; the answer to that."""
    deed = parts.fitter.delete if files else parts.fitter.unload
    change = await deed(base, adapter.name)
    return {
        "status": "success",
        "message": change.message,
        "model_name": name,
        "effect": change.effect,
    }


def adapter_rows(parts: Parts, spec: ModelSpec, base: JsonObject) -> list[dict[str, Any]]:
    """The model once more with each of its adapters, for the list of models."""
    return [
        adapter_row(parts, spec, adapter, base)
        for adapter in parts.adapters.of(spec.canonical_name).values()
    ]


def adapter_row(
    parts: Parts, spec: ModelSpec, adapter: Adapter, base: JsonObject
) -> dict[str, Any]:
    """A model with one of its adapters: what it is itself, with a name of its own."""
    row = {key: value for key, value in base.items() if key != "size"}
    described = describe_adapter(parts, spec, adapter)
    return {
        **row,
        "id": described["id"],
        "parent": base["id"],
        "suggested": False,
        "adapter": described,
    }


def check_operation(parts: Parts, spec: ModelSpec, wanted: Inference) -> None:
    """Refuse before anything is loaded what is not asked of a model with an adapter.

    Raises:
        WrongOperation: its engine applies adapters to other operations only.
    """
    recipe = parts.catalog.recipes.get(spec.recipe)
    how = None if recipe is None else recipe.adapters
    served: tuple[Operation, ...] = () if how is None else how.operations
    if wanted.operation not in served:
        raise WrongOperation(
            f"{wanted.operation} is not done with an adapter.",
            remedy="Name the model without one.",
        )


def choose_adapter(wanted: Inference, resident: Resident, adapter: Adapter | None) -> Inference:
    """The request as the resident's engine has to get it, so that this adapter answers, or none.

    Raises:
        NotLoaded: the engine does not have it.
    """
    how = resident.recipe.adapters
    if adapter is None:
        plain = how is None or not how.scales or wanted.operation not in how.operations
        return wanted if plain else _without(wanted, resident)
    there = resident.adapters.get(adapter.name)
    if how is None or there is None or there.problem:
        why = there.problem if there is not None else f"nothing could be read at {adapter.path}."
        raise NotLoaded(
            f"{resident.served_name} runs without its adapter {adapter.name}: {why}",
            remedy="Load the adapter again, or ask the model without it.",
            facts={"model": resident.served_name, "adapter": adapter.name},
        )
    if how.scales:
        chosen = [{"id": there.handle, "scale": adapter.scale}]
        body = with_field(wanted.body, how.field, chosen)
    else:
        body = with_field(wanted.body, "model", there.handle)
    return structs.replace(wanted, model=resident.served_name, body=body, adapter=adapter.name)


def _without(wanted: Inference, resident: Resident) -> Inference:
    """Where requests choose by scales, none has to be chosen too. Who has chosen is left alone."""
    how = resident.recipe.adapters
    if how is None or not resident.adapters:
        return wanted
    none = [{"id": one.handle, "scale": 0.0} for one in resident.adapters.values()]
    return structs.replace(wanted, body=with_field(wanted.body, how.field, none, keep=True))
