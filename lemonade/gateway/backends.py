"""Backends: install and uninstall."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Final

from aiohttp import web

from lemonade.catalog import BackendSpec
from lemonade.core.bundle import Bundle
from lemonade.core.errors import (
    LemonadeError,
    Locked,
    MalformedRequest,
    UnknownBackend,
    UnknownRecipe,
    UnsupportedHere,
)
from lemonade.core.ids import BackendId
from lemonade.core.inference import JsonObject
from lemonade.core.progress import Progress, ProgressListener
from lemonade.dialects import status_of
from lemonade.gateway.bodies import field, flag, read_object
from lemonade.gateway.deciding import Decision, Handed, check_given, decide, decide_given
from lemonade.gateway.dry_run import describe_plan
from lemonade.gateway.errors import json_response
from lemonade.gateway.parts import Parts, parts_of
from lemonade.gateway.progress import ignore, stream_operation
from lemonade.gateway.routing import Route
from lemonade.gateway.running import naming_models, still_running
from lemonade.planning import InstallPlan

_NO_SUCH: Final[Mapping[type[LemonadeError], int]] = {UnknownRecipe: 500, UnknownBackend: 500}
"""As clients of Lemonade 11 know it."""


def backend_routes() -> tuple[Route, ...]:
    """The routes of this file."""
    return (
        Route("POST", "/install", install, statuses=_NO_SUCH),
        Route("POST", "/install/dry-run", dry_run, statuses=_NO_SUCH),
        Route("POST", "/uninstall", uninstall),
    )


async def install(request: web.Request) -> web.StreamResponse:
    """Install a backend, or find that it is; with `subscribe: false` the server goes on alone."""
    parts = parts_of(request)
    body = await read_object(request)
    backend = _named(parts, body)
    force = flag(body, "force", default=False)
    version = field(body, "version", str) or ""
    answer = {"recipe": backend.backend_id.recipe, "backend": backend.backend_id.variant}

    def describe(error: LemonadeError) -> JsonObject:
        return {"error": str(error), **answer, **({"facts": error.facts} if error.facts else {})}

    streaming = flag(body, "stream", default=False)
    subscribed = flag(body, "subscribe", default=True)
    handed = _handed(body, force=force)
    try:
        if handed is None:
            decision = await decide(parts, backend, force=force, version=version)
        else:
            decision = check_given(parts, backend, handed) or Decision()
    except LemonadeError as error:
        return json_response(describe(error), status=status_of(error, "string"))
    if decision.action:
        return json_response({"action": decision.action, **answer})
    if streaming and not subscribed:
        job = parts.installer.detach(backend.backend_id, decision.plan, force=force)
        return json_response({**job, **({"message": decision.note} if decision.note else {})})

    async def operate(listen: ProgressListener) -> JsonObject:
        done = decision
        if handed is not None:
            done = await decide_given(parts, backend, handed, listen)
        if done.plan is not None:
            await _carry_out(parts, done.plan, listen, force=force)
        listen(Progress(backend.id, complete=True, message=done.note))
        said = {"message": done.note} if done.note else {}
        running = still_running(parts, backend, _used(parts, backend))
        found = {"still_running": running} if running else {}
        return {"status": "success", **answer, **said, **found}

    if streaming:
        return await stream_operation(request, operate, describe)
    try:
        return json_response(await operate(ignore))
    except LemonadeError as error:
        return json_response(describe(error), status=status_of(error, "string"))


async def dry_run(request: web.Request) -> web.Response:
    """What installing a backend would do, here or on a machine with another GPU."""
    parts = parts_of(request)
    body = await read_object(request)
    backend = _named(parts, body)
    arch, version = field(body, "arch", str) or "", field(body, "version", str) or ""
    try:
        return json_response(await describe_plan(parts, backend, arch=arch, version=version))
    except LemonadeError as error:
        asked = {"recipe": backend.backend_id.recipe, "backend": backend.backend_id.variant}
        return json_response({"error": str(error), **asked, "arch": arch}, status=500)


async def uninstall(request: web.Request) -> web.Response:
    """Unload what runs on it, then remove it. Removing what is not there is a success."""
    parts = parts_of(request)
    body = await read_object(request)
    backend = _named(parts, body)
    await parts.pool.unload_where(
        lambda resident: resident.backend is not None and resident.backend.id == backend.id,
        f"its backend {backend.id} is being uninstalled",
    )
    try:
        await parts.installer.uninstall(backend)
    except Locked as error:
        raise naming_models(parts, error) from error
    return json_response(
        {
            "status": "success",
            "recipe": backend.backend_id.recipe,
            "backend": backend.backend_id.variant,
        }
    )


def _handed(body: JsonObject, *, force: bool) -> Handed | None:
    """What somebody hands over instead of having it fetched, if anybody does."""
    source, digest = field(body, "from", str), field(body, "sha256", str)
    if source == "":
        raise MalformedRequest(
            "The field 'from' names nothing.",
            remedy="Give a path or an address, or leave it out to have it fetched.",
        )
    if source is None:
        if digest:
            raise MalformedRequest("The field 'sha256' is about what 'from' names.")
        return None
    if not flag(body, "subscribe", default=True):
        raise MalformedRequest(
            "What is handed over is installed while somebody waits.",
            remedy="Leave 'subscribe' out.",
        )
    return Handed(source, digest or "", field(body, "version", str) or "", force)


def _named(parts: Parts, body: JsonObject) -> BackendSpec:
    recipe, variant = field(body, "recipe", str), field(body, "backend", str)
    if not recipe or not variant:
        raise MalformedRequest(
            "The fields 'recipe' and 'backend' are required.",
            remedy='Send {"recipe": "...", "backend": "..."} as `GET system-info` lists them.',
        )
    try:
        return parts.catalog.backend(BackendId.parse(f"{recipe}:{variant}"))
    except MalformedRequest as error:
        raise UnknownBackend(error.message, remedy=error.remedy) from error


async def _carry_out(
    parts: Parts, plan: InstallPlan, listen: ProgressListener, *, force: bool
) -> None:
    try:
        await parts.installer.install(plan, listen, force=force)
    except Locked as error:
        raise naming_models(parts, error) from error


def _used(parts: Parts, backend: BackendSpec) -> Bundle | None:
    """What the next engine is started from."""
    with suppress(UnsupportedHere):
        return parts.selections.active(backend)
    return None
