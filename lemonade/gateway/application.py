"""Builds the application from its parts. Nothing is global."""

from __future__ import annotations

from aiohttp import web

from lemonade.gateway.adapters import adapter_routes
from lemonade.gateway.backends import backend_routes
from lemonade.gateway.downloads import download_routes
from lemonade.gateway.explain import explain_routes
from lemonade.gateway.incidents import incident_routes
from lemonade.gateway.inference import inference_routes
from lemonade.gateway.lifecycle import lifecycle_routes
from lemonade.gateway.logs import log_routes
from lemonade.gateway.middleware import add_headers, guard
from lemonade.gateway.models import model_routes
from lemonade.gateway.parts import PARTS, Parts
from lemonade.gateway.routing import Route, RouteTable
from lemonade.gateway.settings import settings_routes
from lemonade.gateway.system import system_routes
from lemonade.gateway.versions import version_routes
from lemonade.relay import MAX_BODY_BYTES


def all_routes() -> tuple[Route, ...]:
    """Every route of the server, in the order they are matched."""
    return (
        *lifecycle_routes(),
        *incident_routes(),
        *log_routes(),
        *inference_routes(),
        *explain_routes(),
        *adapter_routes(),
        *model_routes(),
        *download_routes(),
        *backend_routes(),
        *version_routes(),
        *system_routes(),
        *settings_routes(),
    )


def build_application(parts: Parts) -> web.Application:
    """The whole public side."""
    table = RouteTable(all_routes())
    app = web.Application(middlewares=[guard(table, parts.access)], client_max_size=MAX_BODY_BYTES)
    app[PARTS] = parts
    app.on_response_prepare.append(add_headers)
    table.mount(app)
    return app
