"""Versions of a backend: what is there, using another one, going back, and removing the rest.

None of it touches a running engine: it goes on with its version, and the next load takes the one
that is used by then. Answers name the models that this is true of.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web

from lemonade.catalog import BackendSpec
from lemonade.core.bundle import Bundle
from lemonade.core.errors import (
    InstallForbidden,
    LemonadeError,
    Locked,
    MalformedRequest,
    UnknownBackend,
    UnknownRecipe,
    UnsupportedHere,
)
from lemonade.core.ids import BackendId
from lemonade.core.inference import JsonObject
from lemonade.gateway.bodies import field, flag, read_object
from lemonade.gateway.errors import json_response
from lemonade.gateway.parts import Parts, parts_of
from lemonade.gateway.routing import Route
from lemonade.gateway.running import models_on, naming_models, still_running
from lemonade.installer import InstalledVersion, Pruned
from lemonade.planning import PinKind, Selection

_STATUSES: Final[dict[type[LemonadeError], int]] = {UnknownBackend: 404, UnknownRecipe: 404}


def version_routes() -> tuple[Route, ...]:
    """The routes of this file."""
    return (
        Route("POST", "/backends/use", use, statuses=_STATUSES),
        Route("POST", "/backends/rollback", roll_back, statuses=_STATUSES),
        Route("POST", "/backends/prune", prune, statuses=_STATUSES),
        Route("GET", "/backends/{recipe}/{backend}", show, statuses=_STATUSES),
    )


async def use(request: web.Request) -> web.Response:
    """Use an installed version from the next load on."""
    parts = parts_of(request)
    body = await read_object(request)
    backend = _backend(parts, _required(body, "recipe"), _required(body, "backend"))
    version = _required(body, "version")
    return await _switch(parts, backend, lambda wanted: parts.versions.use(wanted, version))


async def roll_back(request: web.Request) -> web.Response:
    """Use the version that was used before, from the next load on."""
    parts = parts_of(request)
    body = await read_object(request)
    backend = _backend(parts, _required(body, "recipe"), _required(body, "backend"))
    return await _switch(parts, backend, parts.versions.roll_back)


async def prune(request: web.Request) -> web.Response:
    """Remove versions nobody needs, leftovers and unfinished downloads; of one backend or all."""
    parts = parts_of(request)
    body = await read_object(request, empty_ok=True)
    dry_run = flag(body, "dry_run", default=False)
    chosen = _chosen(parts, field(body, "recipe", str), field(body, "backend", str))
    found: list[Pruned] = []
    for backend in chosen:
        found += await parts.versions.prune(_wanted(parts, backend), dry_run=dry_run)
    known = tuple(parts.catalog.backends.values())
    found += await parts.versions.prune_shared(known, dry_run=dry_run)
    removed = [one for one in found if not one.kept_because]
    return json_response(
        {
            "status": "success",
            "dry_run": dry_run,
            "freed_bytes": sum(one.size_bytes for one in removed),
            "removed": [
                {"backend": o.backend, "kind": o.kind, "name": o.name, "size_bytes": o.size_bytes}
                for o in removed
            ],
            "kept": [
                {"backend": one.backend, "version": one.name, "why": one.kept_because}
                for one in found
                if one.kept_because
            ],
        }
    )


async def show(request: web.Request) -> web.Response:
    """One backend: its state, what is wanted and why, and every version that is there."""
    parts = parts_of(request)
    backend = _backend(parts, request.match_info["recipe"], request.match_info["backend"])
    selection = _wanted(parts, backend)
    status = parts.selections.status(backend)
    pointer = parts.bundles.pointer(backend)
    versions = await parts.versions.installed(selection)
    return json_response(
        {
            "recipe": backend.backend_id.recipe,
            "backend": backend.backend_id.variant,
            "title": backend.title,
            "state": status.state,
            "message": status.message,
            "action": status.action,
            "wanted": selection.version,
            "wanted_by": _wanted_by(parts, backend, selection),
            "active": next((one.name for one in versions if one.active), None),
            "chosen": pointer is not None and pointer.chosen,
            "since": pointer.since if pointer is not None else None,
            "history": list(pointer.history) if pointer is not None else [],
            "versions": [_describe(parts, one) for one in versions],
        }
    )


async def _switch(
    parts: Parts, backend: BackendSpec, act: Callable[[Selection], Awaitable[Bundle]]
) -> web.Response:
    selection = parts.selections.of(backend)
    if selection.kind in (PinKind.TAG, PinKind.PATH):
        raise InstallForbidden(
            f"The setting {parts.selections.setting(backend)} says which {backend.id} is used: "
            f"{parts.selections.pin(backend)}.",
            remedy=f"`lemonade config set {parts.selections.setting(backend)}=builtin` leaves the "
            "choice to these commands.",
        )
    if not selection.spec.pin.fetched:
        raise UnsupportedHere(
            f"{backend.id} has no versions: it is on this machine or it is not.",
            remedy="`lemonade backends --all` shows what Lemonade installs.",
        )
    try:
        bundle = await act(selection)
    except Locked as error:
        raise naming_models(parts, error) from error
    running = still_running(parts, backend, bundle)
    message = f"The next load uses {backend.id} {bundle.version}."
    if running:
        names = ", ".join(str(one["model_name"]) for one in running)
        message += f" Still on another version: {names}."
    return json_response(
        {
            "status": "success",
            "recipe": backend.backend_id.recipe,
            "backend": backend.backend_id.variant,
            "version": bundle.version,
            "message": message,
            "still_running": running,
        }
    )


def _required(body: JsonObject, name: str) -> str:
    value = field(body, name, str)
    if not value:
        raise MalformedRequest(f"The field '{name}' is required.")
    return value


def _backend(parts: Parts, recipe: str, variant: str) -> BackendSpec:
    try:
        return parts.catalog.backend(BackendId.parse(f"{recipe}:{variant}"))
    except MalformedRequest as error:
        raise UnknownBackend(error.message, remedy=error.remedy) from error


def _chosen(parts: Parts, recipe: str | None, variant: str | None) -> list[BackendSpec]:
    """The backends that are meant: one, those of a recipe, or all."""
    if not recipe and variant:
        raise MalformedRequest("The field 'recipe' is required where there is a 'backend'.")
    if not recipe:
        return list(parts.catalog.backends.values())
    if variant:
        return [_backend(parts, recipe, variant)]
    parts.catalog.recipe(recipe)
    return list(parts.catalog.backends_of(recipe))


def _wanted(parts: Parts, backend: BackendSpec) -> Selection:
    """What the settings make of it; if that cannot be had, what it is without them."""
    try:
        return parts.selections.of(backend)
    except UnsupportedHere:
        return Selection(backend, PinKind.BUILTIN, "")


def _wanted_by(parts: Parts, backend: BackendSpec, selection: Selection) -> str:
    """Who says which version is wanted."""
    if selection.kind is PinKind.BUILTIN:
        return "this version of Lemonade" if selection.version else ""
    return f"the setting {parts.selections.setting(backend)}={parts.selections.pin(backend)}"


def _describe(parts: Parts, one: InstalledVersion) -> JsonObject:
    receipt = one.receipt
    contents = receipt.contents if receipt is not None else None
    files = contents.assets if contents is not None else ()
    packages = receipt.packages if receipt is not None else ()
    return {
        "version": one.name,
        "path": str(one.root),
        "active": one.active,
        "usable": one.usable,
        "last_known_good": one.last_good,
        "verified": receipt is not None,
        "installed_at": receipt.installed_at if receipt is not None else None,
        "made_for": receipt.made_for if receipt is not None else "",
        "size_bytes": one.size_bytes,
        "sha256": {
            **{asset.name: asset.sha256 for asset in files},
            **{package.file: package.sha256 for package in packages},
        },
        "in_use": one.in_use,
        "models": models_on(parts, one.root),
    }
