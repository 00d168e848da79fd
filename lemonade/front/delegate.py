"""One request that aiohttp answers, on a connection that is not its own.

aiohttp's handler for a connection is made for a single request, sees exactly its bytes, and is
dismissed when it has answered; so the connection is free for whoever serves the next request.
Where the end of a request is not known, or the connection becomes something else (a WebSocket),
the handler stays for good.

Of aiohttp only public points are used: `web.Server` and `web.RequestHandler` with the methods of
`asyncio.Protocol`, its `transport`, and `finish_response`, which it calls when an answer is ready.
`tests/front/test_delegate.py` holds it to that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from aiohttp import web

_SETTINGS: Final[dict[str, Any]] = {"access_log": None, "keepalive_timeout": 75.0}
"""No log of accesses; seconds that a connection which is aiohttp's may be idle."""


class Delegate(web.RequestHandler):
    """Answers one request, or all that follow on its connection."""

    __slots__ = ("_answered", "asked_before")

    def __init__(self, server: web.Server, loop: asyncio.AbstractEventLoop) -> None:
        """A handler without a connection yet, of an application's server."""
        super().__init__(server, loop=loop, **_SETTINGS)
        self._answered: Callable[[], None] = lambda: None
        self.asked_before = False

    def serve(self, answered: Callable[[], None], *, asked_before: bool) -> None:
        """What comes is a request.

        Args:
            answered: told in a later turn of the loop when a whole answer was handed to the
                connection, and the connection goes on.
            asked_before: whether an engine was asked already, and lost; the gateway heeds that.
        """
        self._answered = answered
        self.asked_before = asked_before

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Called by aiohttp when the handler has returned."""
        response, left = await super().finish_response(request, resp, start_time)
        if not left and response.keep_alive:
            asyncio.get_running_loop().call_soon(self._answered)
        return response, left

    def dismiss(self) -> None:
        """End it without its connection."""
        self.transport = None
        self.connection_lost(None)
