"""What the server fetches by itself, models and backends: list, pause, cancel or forget it."""

from __future__ import annotations

from aiohttp import web

from lemonade.core.errors import MalformedRequest, NoSuchRoute
from lemonade.gateway.bodies import field, read_object
from lemonade.gateway.errors import json_response
from lemonade.gateway.parts import parts_of
from lemonade.gateway.routing import Route


def download_routes() -> tuple[Route, ...]:
    """The routes of this file."""
    return (
        Route("GET", "/downloads", list_downloads),
        Route("POST", "/downloads/control", control),
    )


async def list_downloads(request: web.Request) -> web.Response:
    """Pulls and installations started with `subscribe: false`; finished ones for half a minute."""
    parts = parts_of(request)
    return json_response([*parts.downloads.jobs.snapshots(), *parts.installer.jobs.snapshots()])


async def control(request: web.Request) -> web.Response:
    """Pause, cancel or remove one; the same request goes on with it later."""
    body = await read_object(request)
    name, action = field(body, "id", str), field(body, "action", str)
    if not name or not action:
        raise MalformedRequest(
            "The fields 'id' and 'action' are required.",
            remedy="`id` is one of GET downloads; `action` is pause, cancel or remove.",
        )
    parts = parts_of(request)
    answer = parts.downloads.jobs.control(name, action)
    if answer is None:
        answer = parts.installer.jobs.control(name, action)
    if answer is None and action == "remove":
        answer = {"status": "ok", "missing": True}
    if answer is None:
        raise NoSuchRoute(
            f"There is no download '{name}'.", remedy="GET downloads lists those there are."
        )
    return json_response(answer)
