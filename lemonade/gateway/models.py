"""Models: list, describe, pull, delete, look into a repository."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any, Final

from aiohttp import web

from lemonade.catalog import ModelSpec, is_definition
from lemonade.core.errors import (
    CheckpointError,
    DefinitionDiffers,
    Incomplete,
    LemonadeError,
    MalformedRequest,
    NotLoaded,
    Offline,
    UnknownModel,
    UnsupportedHere,
)
from lemonade.core.events import ModelDeleted
from lemonade.core.inference import JsonObject
from lemonade.core.progress import ProgressListener
from lemonade.dialects import status_of
from lemonade.gateway.adapters import adapter_row, adapter_rows, forget_adapter
from lemonade.gateway.bodies import flag, model_name, read_object
from lemonade.gateway.errors import REQUESTED_MODEL, json_response
from lemonade.gateway.parts import Parts, parts_of
from lemonade.gateway.progress import ignore, stream_operation
from lemonade.gateway.routing import Route
from lemonade.planning import check_options, known_options
from lemonade.residency import Availability, as_model

CREATED: Final = 1234567890
"""What Lemonade has always answered as a model's `created`; clients compare it with nothing."""


_REGISTRIES: Final = ("huggingface", "modelscope")


def model_routes() -> tuple[Route, ...]:
    """The routes of this file."""
    return (
        Route("GET", "/models", list_models),
        Route("GET", "/models/{id:.+}", show_model, errors="model"),
        Route("POST", "/pull", pull),
        Route("GET", "/pull/variants", variants),
        Route("POST", "/delete", delete, statuses={UnknownModel: 422}),
    )


async def list_models(request: web.Request) -> web.Response:
    """`?show_all=true` adds what could be downloaded; `?show_unavailable=true` what could not."""
    parts = parts_of(request)
    everything = request.query.get("show_all") == "true"
    hidden = request.query.get("show_unavailable") == "true"
    # Whoever looks has perhaps just put a file into the folder of extra models.
    await asyncio.to_thread(parts.rescan)
    data = await asyncio.to_thread(_listing, parts, everything=everything, hidden=hidden)
    return json_response({"object": "list", "data": data})


def _listing(parts: Parts, *, everything: bool, hidden: bool) -> list[JsonObject]:
    reasons = _availability(parts)
    rows: list[JsonObject] = []
    for spec in parts.registry.all():
        reason = reasons.of(spec)
        if reason is not None and not hidden:
            continue
        row = describe(parts, spec)
        if reason is not None:
            row["unavailable_reason"] = reason
        if row["downloaded"] or everything or (hidden and reason is not None):
            rows.append(row)
        if row["downloaded"] and reason is None:
            rows += adapter_rows(parts, spec, row)
    return rows


async def show_model(request: web.Request) -> web.Response:
    """One model, by any of its names."""
    parts = parts_of(request)
    name = request[REQUESTED_MODEL] = request.match_info["id"]
    base, adapter = parts.adapters.split(name)
    spec = parts.registry.resolve(base)
    _availability(parts).check(spec, name)
    row = await asyncio.to_thread(describe, parts, spec)
    return json_response(row if adapter is None else adapter_row(parts, spec, adapter, row))


def _availability(parts: Parts) -> Availability:
    return Availability(parts.catalog, parts.configuration, parts.machine)


def describe(parts: Parts, spec: ModelSpec) -> dict[str, Any]:
    """The model object clients know."""
    recipe = parts.catalog.recipes.get(spec.recipe)
    downloaded = recipe is not None and parts.store.files(spec, recipe) is not None
    saved = parts.saved_options.get(spec.canonical_name)
    options = {**spec.recipe_options, **saved}
    remote = spec.source if spec.source in _REGISTRIES else ""
    row: dict[str, Any] = {
        "id": parts.registry.public_name(spec),
        "object": "model",
        "created": CREATED,
        "owned_by": "lemonade",
        "checkpoint": spec.checkpoints.get("main", ""),
        "checkpoints": dict(spec.checkpoints),
        "recipe": spec.recipe,
        "downloaded": downloaded,
        "update_available": False,
        "suggested": spec.suggested,
        "source": spec.source,
        "registry_source": remote,
        "labels": list(spec.labels),
        "components": list(spec.components),
        "recipe_options": options,
    }
    size = spec.size_gb or (parts.store.size_on_disk(spec, recipe) / 1e9 if downloaded else 0)
    if size > 0:
        row["size"] = size
    if spec.image_defaults:
        row["image_defaults"] = dict(spec.image_defaults)
    longest = parts.store.context_length(spec, recipe) if recipe is not None else None
    if longest:
        row["max_context_window"] = longest
    context = _context(parts, spec, options, longest)
    if context:
        row["context_length"] = context
    return row


def _context(
    parts: Parts, spec: ModelSpec, options: JsonObject, longest: int | None
) -> int | None:
    """Tokens a request may use: as loaded, else as configured, else the model's own."""
    for resident in parts.pool.residents():
        if resident.key == spec.canonical_name and resident.options is not None:
            options = {**options, **resident.options.values}
    for chosen in (options.get("ctx_size"), parts.configuration.settings.ctx_size):
        if isinstance(chosen, int) and chosen > 0:
            return min(chosen, longest) if longest else chosen
    return longest


async def pull(request: web.Request) -> web.StreamResponse:
    """Register if the body defines a model, then download."""
    parts = parts_of(request)
    body = await read_object(request)
    name = model_name(body, "model", "model_name")
    streaming = flag(body, "stream", default=False)
    subscribed = flag(body, "subscribe", default=True)
    known_only = flag(body, "do_not_upgrade", default=False)
    try:
        spec, new = await asyncio.to_thread(_defined, parts, body, name)
        try:
            _availability(parts).check(spec, name)
        except UnsupportedHere:
            if new:
                await _forget(parts, spec)
            raise
    except LemonadeError as error:
        return json_response(_pull_error(error), status=_pull_status(error))

    async def operate(listen: ProgressListener) -> JsonObject:
        await _download(parts, spec, listen, new=new, known_only=known_only)
        return {"status": "success", "model_name": name}

    if streaming and not subscribed:
        recipe = parts.catalog.recipe(spec.recipe)
        return json_response(parts.downloads.detach(spec, recipe, do_not_upgrade=known_only))
    if streaming:
        return await stream_operation(request, operate, _pull_error)
    try:
        return json_response(await operate(ignore))
    except LemonadeError as error:
        return json_response(_pull_error(error), status=_pull_status(error))


def _defined(parts: Parts, body: JsonObject, name: str) -> tuple[ModelSpec, bool]:
    if is_definition(body):
        _check_recipe_options(parts, body)
        definition = {k: v for k, v in body.items() if k not in ("model", "stream", "subscribe")}
        definition["model_name"] = name
        source = parts.configuration.settings.default_model_source
        return parts.registry.register(definition, default_source=source)
    return parts.registry.resolve(name), False


def _check_recipe_options(parts: Parts, body: JsonObject) -> None:
    """Refuse options now that would make every load fail later."""
    name, options = body.get("recipe"), body.get("recipe_options")
    recipe = parts.catalog.recipes.get(name) if isinstance(name, str) else None
    if recipe is not None and isinstance(options, dict):
        known = known_options(parts.catalog.recipes.values())
        check_options(recipe, options, ignorable=known)


async def _download(
    parts: Parts, spec: ModelSpec, listen: ProgressListener, *, new: bool, known_only: bool
) -> None:
    recipe = parts.catalog.recipe(spec.recipe)
    try:
        await parts.downloads.download(spec, recipe, listen, do_not_upgrade=known_only)
    except CheckpointError as error:
        # A definition that led to nothing is not kept; one whose download was interrupted is.
        interrupted = isinstance(error, Incomplete) and spec.source in _REGISTRIES
        if new and not interrupted:
            await _forget(parts, spec)
        raise
    size = await asyncio.to_thread(parts.store.size_on_disk, spec, recipe)
    if size:
        with suppress(UnknownModel):  # deleted meanwhile
            await asyncio.to_thread(parts.registry.set_size, spec.canonical_name, size / 1e9)


async def _forget(parts: Parts, spec: ModelSpec) -> None:
    with suppress(UnknownModel):  # somebody else was quicker, e.g. the pull that this ended
        await asyncio.to_thread(parts.registry.remove, spec.canonical_name)


def _pull_error(error: LemonadeError) -> JsonObject:
    body: dict[str, object] = {"error": str(error)}
    if isinstance(error, UnknownModel):
        body["code"] = "unknown_model"
    elif isinstance(error, Offline):
        body["code"] = "lemond_offline"
    return body


def _pull_status(error: LemonadeError) -> int:
    if isinstance(error, UnknownModel | UnsupportedHere):
        return 400
    return status_of(error, "string", {DefinitionDiffers: 409})


async def variants(request: web.Request) -> web.Response:
    """What a repository offers: quantisations, projectors, drafts."""
    checkpoint = request.query.get("checkpoint", "")
    if not checkpoint:
        raise MalformedRequest(
            "The query parameter 'checkpoint' is missing.", remedy="Write ?checkpoint=owner/name."
        )
    parts = parts_of(request)
    found = await parts.downloads.variants(checkpoint, request.query.get("source", ""))
    return json_response(found)


async def delete(request: web.Request) -> web.Response:
    """Unload it if need be, then remove the files nobody else uses, and a user's registration."""
    parts = parts_of(request)
    body = await read_object(request)
    name = model_name(body, "model", "model_name")
    base, adapter = parts.adapters.split(name)
    if adapter is not None:
        return json_response(await forget_adapter(parts, name, base, adapter, files=True))
    spec = parts.registry.resolve(base)
    parts.store.check_deletable(spec)
    with suppress(NotLoaded):
        await parts.pool.unload(spec.canonical_name)
    # A server that shares the folder may know models that we have not heard of, with our files.
    await asyncio.to_thread(parts.registry.refresh)
    others = tuple(other for other in parts.registry.all() if other != spec)
    fetched = [as_model(*one) for one in parts.adapters.all() if one[1].checkpoint]
    adapters = tuple(parts.adapters.of(spec.canonical_name).values())
    await parts.downloads.delete(spec, (*others, *fetched))
    await asyncio.to_thread(parts.adapters.erase, spec.canonical_name)
    if spec.origin == "user":
        await _forget(parts, spec)
    for one in adapters:
        await parts.fitter.drop(spec, one)
    await asyncio.to_thread(parts.saved_options.erase, spec.canonical_name)
    parts.bus.publish(ModelDeleted(name))
    return json_response({"status": "success", "message": f"Deleted model: {name}"})
