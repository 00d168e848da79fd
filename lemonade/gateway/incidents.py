"""What failed: the records of incidents."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from aiohttp import web

from lemonade.core.errors import LemonadeError, MalformedRequest
from lemonade.gateway.errors import json_response
from lemonade.gateway.parts import parts_of
from lemonade.gateway.routing import Route

SHOWN: Final = 100

_SUMMARY: Final = (
    "id", "time", "kind", "how", "model", "backend", "bundle_version", "phase", "ended", "message",
    "cause", "fix",
)  # fmt: skip


def incident_routes() -> tuple[Route, ...]:
    """The routes of this file."""
    return (
        Route("GET", "/incidents", list_incidents, errors="object"),
        Route("GET", "/incidents/{id}", show_incident, errors="object"),
    )


async def list_incidents(request: web.Request) -> web.Response:
    """Failures of engines, the newest first, in short: `?model=&limit=`."""
    parts = parts_of(request)
    limit = request.query.get("limit", str(SHOWN))
    if not (limit.isascii() and limit.isdigit() and len(limit) < 6):
        raise MalformedRequest("'limit' must be a number.", facts={"field": "limit"})
    model = request.query.get("model", "")
    if model:
        with suppress(LemonadeError):  # it may have been removed since, by just this name
            model = parts.registry.public_name(parts.registry.resolve(model))
    found = await parts.incidents.newest(model=model, limit=int(limit))
    return json_response({"incidents": [{key: one.get(key) for key in _SUMMARY} for one in found]})


async def show_incident(request: web.Request) -> web.Response:
    """All that is known of one failure: what was started, how it ended, its last lines."""
    return json_response(await parts_of(request).incidents.read(request.match_info["id"]))
