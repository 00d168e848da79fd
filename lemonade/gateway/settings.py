"""The configuration over HTTP: read it, change it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from lemonade.config import pin_key
from lemonade.core.errors import MalformedRequest
from lemonade.gateway.bodies import read_object
from lemonade.gateway.errors import json_response
from lemonade.gateway.parts import Parts, parts_of
from lemonade.gateway.routing import Access, Route


def settings_routes() -> tuple[Route, ...]:
    """The routes of this file."""
    return (
        Route("GET", "/internal/config", show, access=Access.ADMIN, prefixed=False),
        Route("GET", "/internal/config/defaults", defaults, access=Access.ADMIN, prefixed=False),
        Route("POST", "/internal/set", change, access=Access.ADMIN, prefixed=False),
    )


async def show(request: web.Request) -> web.Response:
    """Everything as it is in force."""
    return json_response(parts_of(request).configuration.snapshot())


async def defaults(request: web.Request) -> web.Response:
    """Everything as it would be if nobody had decided anything."""
    return json_response(parts_of(request).configuration.defaults())


async def change(request: web.Request) -> web.Response:
    """Check all keys, then apply and keep them; on any error nothing is applied."""
    parts = parts_of(request)
    body = await read_object(request)
    if not body:
        raise MalformedRequest("The body is empty: send at least one setting.")
    before = parts.swapper.choices()
    updated, message = await asyncio.to_thread(parts.configuration.update, body, persist=True)
    parts.swapper.follow(before)
    message = " ".join(filter(None, (message, _idle_pins(parts, updated))))
    if "extra_models_dir" in updated:
        await asyncio.to_thread(parts.rescan)
    answer: dict[str, object] = {"status": "success", "updated": updated}
    if message:
        answer["message"] = message
    return json_response(answer)


def _idle_pins(parts: Parts, updated: Mapping[str, Any]) -> str:
    """A sentence on pins that no backend has; older configurations hold some."""
    known = {
        (parts.catalog.recipe(spec.backend_id.recipe).section, pin_key(spec.backend_id.variant))
        for spec in parts.catalog.backends.values()
    }
    idle = [
        f"{section}.{key}"
        for section, values in updated.items()
        if isinstance(values, Mapping)
        for key in values
        if key.endswith("_bin") and (section, key) not in known
    ]
    return f"No backend here is called as {', '.join(idle)} says: ignored." if idle else ""
