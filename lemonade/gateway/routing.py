"""Routes as data: path, handler, who may call, and the shape its errors have.

There is no list of path prefixes to keep in step with them: middleware reads the route itself.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import field
from enum import StrEnum
from typing import Final

from aiohttp import web

from lemonade.core.errors import LemonadeError
from lemonade.core.records import dataclass
from lemonade.dialects import ErrorShape
from lemonade.relay import PREFIXES

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

SOCKET_PROTOCOL: Final = "lemonade-realtime"
"""Name of the WebSocket protocol that a page asks for beside its key."""


class Access(StrEnum):
    """Who may call a route."""

    PUBLIC = "public"
    USER = "user"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Route:
    """One operation.

    Attributes:
        path: below the prefixes, or from the root if not `prefixed`.
        errors: shape of its error bodies; clients parse both.
        socket: whether it is a WebSocket, whose clients may be unable to send a header.
        statuses: where a status differs from the one of the error's class.
    """

    method: str
    path: str
    handler: Handler
    access: Access = Access.USER
    prefixed: bool = True
    errors: ErrorShape = "string"
    socket: bool = False
    statuses: Mapping[type[LemonadeError], int] = field(default_factory=dict)

    def paths(self) -> tuple[str, ...]:
        """All full paths."""
        if not self.prefixed:
            return (self.path,)
        return tuple(prefix + self.path for prefix in PREFIXES)


class RouteTable:
    """The routes of an application, found again from a request's matched handler.

    Immutable once the application runs.
    """

    def __init__(self, routes: tuple[Route, ...]) -> None:
        self.routes = routes
        self._by_resource: dict[tuple[str, str], Route] = {}

    def mount(self, app: web.Application) -> None:
        """Add all routes to an application; GET routes answer HEAD too."""
        for route in self.routes:
            for path in route.paths():
                if route.method == "GET":
                    added = app.router.add_get(
                        path, route.handler, allow_head=True, expect_handler=_wait
                    )
                else:
                    added = app.router.add_route(
                        route.method, path, route.handler, expect_handler=_wait
                    )
                assert added.resource is not None
                canonical = added.resource.canonical
                self._by_resource[route.method, canonical] = route
                if route.method == "GET":
                    self._by_resource["HEAD", canonical] = route

    def of(self, request: web.Request) -> Route | None:
        """The route a request matched; `None` for a path or method nobody serves."""
        resource = request.match_info.route.resource
        if resource is None:
            return None
        return self._by_resource.get((request.method, resource.canonical))


async def _wait(_request: web.Request) -> None:
    """In place of aiohttp's `100 Continue`: middleware says it once the client may come in."""
