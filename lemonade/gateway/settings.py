"""The configuration over HTTP: read it, change it."""

from __future__ import annotations

import asyncio

from aiohttp import web

from lemonade.core.errors import MalformedRequest
from lemonade.gateway.bodies import read_object
from lemonade.gateway.errors import json_response
from lemonade.gateway.parts import parts_of
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
    updated, message = await asyncio.to_thread(parts.configuration.update, body, persist=True)
    if "extra_models_dir" in updated:
        await asyncio.to_thread(parts.rescan)
    answer: dict[str, object] = {"status": "success", "updated": updated}
    if message:
        answer["message"] = message
    return json_response(answer)
