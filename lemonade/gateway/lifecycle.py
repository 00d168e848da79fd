"""Load, unload, pin, health, restart and shutdown."""

from __future__ import annotations

import asyncio
import math
import os
import time
from typing import Any, Final

from aiohttp import web

from lemonade.core.errors import CannotRestart, LemonadeError, MalformedRequest, NotLoaded
from lemonade.core.inference import JsonObject, ModelType
from lemonade.core.progress import ProgressListener
from lemonade.dialects import render_error, status_of
from lemonade.gateway.adapters import forget_adapter
from lemonade.gateway.bodies import field, flag, model_name, read_object
from lemonade.gateway.errors import REQUESTED_MODEL, json_response
from lemonade.gateway.given_back import given_back
from lemonade.gateway.parts import Parts, parts_of
from lemonade.gateway.progress import ignore, stream_operation
from lemonade.gateway.routing import Access, Route
from lemonade.residency import Failing, LoadRequest, Phase, Resident, describe_quarantined

_NOT_OPTIONS: Final = ("model_name", "model", "save_options", "pinned", "stream", "force")

_COUNTED: Final = (
    ModelType.LLM,
    ModelType.EMBEDDING,
    ModelType.RERANKING,
    ModelType.TRANSCRIPTION,
    ModelType.IMAGE,
    ModelType.TTS,
    ModelType.CLASSIFICATION,
)
"""The types whose limits clients find in `max_models`."""


def lifecycle_routes() -> tuple[Route, ...]:
    """The routes of this file."""
    return (
        Route("GET", "/live", live, access=Access.PUBLIC, prefixed=False),
        Route("GET", "/health", health),
        Route("POST", "/load", load, errors="model"),
        Route("POST", "/unload", unload),
        Route(
            "POST",
            "/internal/pin",
            pin,
            access=Access.ADMIN,
            prefixed=False,
            errors="object",
            statuses={NotLoaded: 400},
        ),
        Route("POST", "/internal/shutdown", shutdown, access=Access.ADMIN, prefixed=False),
        Route("POST", "/internal/restart", restart, access=Access.ADMIN, prefixed=False),
    )


async def live(_request: web.Request) -> web.Response:
    """The server answers. Nothing else is looked at."""
    return json_response({"status": "ok"})


async def health(request: web.Request) -> web.Response:
    """Version and loaded models; a snapshot that waits for nothing."""
    parts = parts_of(request)
    recent = parts.pool.most_recent
    residents = parts.pool.residents()
    limit = parts.configuration.settings.max_loaded_models
    pinned = dict.fromkeys(_COUNTED, 0)
    for resident in residents:
        if resident.pinned and resident.phase is Phase.SERVING and resident.spec.type in pinned:
            pinned[resident.spec.type] += 1
    return json_response(
        {
            "status": "ok",
            "version": parts.version,
            "server": {"pid": os.getpid(), "since": parts.began},
            "telemetry": {"enabled": False},
            "model_loaded": recent.served_name if recent else None,
            "all_models_loaded": [
                describe_resident(r) for r in residents if r.phase is not Phase.LOADING
            ],
            "models_loading": [
                {"model_name": r.served_name, "step": r.step, "recipe": r.recipe.id}
                for r in residents
                if r.phase is Phase.LOADING
            ],
            "models_failing": [describe_failing(one) for one in parts.pool.failing()],
            "devices_quarantined": [describe_quarantined(one) for one in parts.quarantine.devices],
            "workers": {"wanted": parts.crew.wanted, "ready": parts.crew.ready},
            "max_models": dict.fromkeys(_COUNTED, limit),
            "pinned_models": pinned,
            "pinned_helper_models": dict.fromkeys(_COUNTED, 0),
            "update_check_done": True,
        }
    )


def describe_failing(failing: Failing) -> dict[str, Any]:
    """A model whose engine failed lately; `open_until` is null while it may be started."""
    rests = failing.retry_after > 0
    return {
        "model_name": failing.model,
        "failures": failing.failures,
        "open_until": int(time.time() + failing.retry_after) if rests else None,
        "retry_after": math.ceil(failing.retry_after),
        "cause": failing.cause,
        "incident": failing.incident,
    }


def describe_resident(resident: Resident) -> dict[str, Any]:
    """A loaded model as clients know it."""
    instance = resident.instance
    busy = resident.leases > 0
    healthy = instance is not None and instance.healthy
    usable = "in_use" if busy else "ready"
    status = "evicting" if resident.phase is Phase.DRAINING else usable
    row: dict[str, Any] = {
        "model_name": resident.served_name,
        "checkpoint": resident.spec.checkpoints.get("main", ""),
        "type": resident.spec.type,
        "residency_class": "standard",
        "slot_pool": f"standard/{resident.spec.type}",
        "device": "|".join(resident.devices) or "none",
        "backend": resident.backend.id if resident.backend else "",
        "status": status,
        "backend_alive": instance is not None and instance.pid is not None,
        "backend_health": "busy" if busy else "ready" if healthy else "stopped",
        "loaded": True,
        "watchdog_reset": False,
        "pinned": resident.pinned,
        "recipe": resident.recipe.id,
        "recipe_options": dict(resident.shown_options),
        "is_busy": busy,
        "is_streaming": resident.streams > 0,
        "active_requests": resident.leases,
        "last_use": int(resident.last_use * 1000),
        "since": round(resident.since, 3),
        "adopted": resident.adopted,
    }
    if resident.adapters:
        row["adapters"] = [name for name, one in resident.adapters.items() if not one.problem]
    if instance is not None:
        row["backend_url"] = f"{instance.spec.endpoint.url}/v1"
        row["pid"] = instance.pid
        row["launch_command"] = list(instance.spec.shown_argv())
        row["backend_version"] = instance.spec.labels.get("version", "")
    return row


async def load(request: web.Request) -> web.StreamResponse:
    """Load with options; `save_options` keeps them, `force` forgets how often it failed.

    With `stream`, events tell how it goes on: what is fetched, then the phases of the start.
    """
    parts = parts_of(request)
    body = await read_object(request)
    name = request[REQUESTED_MODEL] = model_name(body, "model_name")
    options = {key: value for key, value in body.items() if key not in _NOT_OPTIONS}
    pinned = field(body, "pinned", bool)
    save = flag(body, "save_options", default=False)
    force = flag(body, "force", default=False)
    base, _ = parts.adapters.split(name)  # an adapter comes along with its model
    spec = parts.registry.resolve(base)

    async def operate(listen: ProgressListener) -> JsonObject:
        resident = await parts.pool.load(
            base, LoadRequest(options, pinned), force=force, listen=listen
        )
        if save:
            await asyncio.to_thread(_save_options, parts, spec.canonical_name, options)
        return {
            "status": "success",
            "model_name": name,
            "checkpoint": spec.checkpoints.get("main", ""),
            "recipe": spec.recipe,
            "backend": resident.backend.id if resident.backend else "",
            "notices": list(resident.notices),
        }

    def describe(error: LemonadeError) -> JsonObject:
        return dict(render_error(error, status_of(error, "model"), shape="model"))

    if flag(body, "stream", default=False):
        plan = parts.pool.plan(base, LoadRequest(options, pinned))
        if not force:
            parts.pool.check(plan)
        return await stream_operation(request, operate, describe, tell_result=True)
    return json_response(await operate(ignore))


def _save_options(parts: Parts, key: str, options: dict[str, Any]) -> None:
    """Values replace the saved set; a key sent as null keeps what was stored for it."""
    stored = parts.saved_options.get(key)
    kept = {k: stored[k] for k, v in options.items() if v is None and k in stored}
    chosen = {k: v for k, v in options.items() if v is not None}
    parts.saved_options.put(key, {**kept, **chosen})


async def unload(request: web.Request) -> web.Response:
    """Unload one model, or all when the body names none."""
    parts = parts_of(request)
    begin = time.monotonic()
    try:
        body = await read_object(request, empty_ok=True)
    except MalformedRequest as error:
        # An older server took a broken body for "everything". A typo must not evict anybody.
        raise MalformedRequest(
            error.message, remedy="Send an empty body to unload everything."
        ) from error
    answer: JsonObject
    if body.get("model_name") is None and body.get("model") is None:
        leaving = parts.pool.residents()
        await parts.pool.unload_where(lambda _: True, "everything was unloaded on request")
        answer = {"status": "success", "message": "All models unloaded."}
    else:
        name = model_name(body, "model_name", "model")
        base, adapter = parts.adapters.split(name)
        if adapter is not None:
            forgotten = await forget_adapter(parts, name, base, adapter)
            return json_response({**forgotten, **given_back(())})
        key = parts.registry.resolve(base).canonical_name
        leaving = tuple(one for one in parts.pool.residents() if one.key == key)
        await parts.pool.unload(base)
        answer = {"status": "success", "message": f"Unloaded model: {name}", "model_name": name}
    took = round(time.monotonic() - begin, 3)
    kept = [describe_quarantined(one) for one in parts.quarantine.devices]
    freed = given_back(one.report for one in leaving)
    return json_response({**answer, "took_s": took, **freed, "devices_quarantined": kept})


async def pin(request: web.Request) -> web.Response:
    """Keep a loaded model, or allow its eviction again."""
    parts = parts_of(request)
    body = await read_object(request)
    name = model_name(body, "model", "model_name")
    wanted = field(body, "pinned", bool)
    if wanted is None:
        raise MalformedRequest("The field 'pinned' is missing: send true or false.")
    base, _ = parts.adapters.split(name)  # an adapter stays with its model
    parts.pool.pin(base, pinned=wanted)
    return json_response({"status": "success", "model_name": name, "pinned": wanted})


async def shutdown(request: web.Request) -> web.Response:
    """End all engines that are not kept, answer, and then end the server."""
    parts = parts_of(request)
    try:
        await parts.pool.close()
    finally:
        # Also for a client that does not wait for it: a closed pool serves nobody any more.
        parts.shutdown.set()
    told: dict[str, Any] = {"status": "shutting down"}
    if kept := sorted(parts.pool.left):
        told["kept"] = kept
    return json_response(told)


async def restart(request: web.Request) -> web.Response:
    """Answer, and begin again in the same process; engines that serve go on."""
    parts = parts_of(request)
    if parts.restart is None:
        raise CannotRestart(
            "This server cannot begin again by itself: another program has it running.",
            remedy="End it and start it again.",
        )
    residents = parts.pool.residents()
    serving = [one.served_name for one in residents if one.phase is Phase.SERVING]
    others = [one.served_name for one in residents if one.phase is not Phase.SERVING]
    parts.restart.set()
    parts.shutdown.set()
    return json_response(
        {
            "status": "restarting",
            "server": {"pid": os.getpid(), "since": parts.began},
            "kept": sorted(serving),
            "ended": sorted(others),
            "drain_s": parts.configuration.settings.restart_drain_s,
        }
    )
