"""All connections to one child, and conversations over them.

Idle connections are kept, the youngest is used first, and the old ones are closed before the child
would. Nothing here looks at proxy settings: a child is on the loopback.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from lemonade.core.errors import (
    ConnectionLost,
    UpstreamError,
    UpstreamRefused,
    UpstreamTimeout,
)
from lemonade.core.process import Endpoint
from lemonade.upstream.connection import Connection, HeadSink, StaleConnection
from lemonade.upstream.request import (
    UpstreamRequest,
    finish_relayed,
    render_relayed,
    render_request,
)
from lemonade.upstream.response import UpstreamResponse
from lemonade.upstream.watch import Watch

IDLE_LIMIT: Final = 256
"""How many idle connections to one child are kept."""

IDLE_SECONDS: Final = 4.0
"""How long. The HTTP server inside llama.cpp closes after five."""

CONNECT_SECONDS: Final = 5.0
"""How long a connection to a child on this machine may take."""


_BEGINNINGS: Final = 64
"""How many beginnings of heads are remembered; clients' header lines are much alike."""


class Elsewhere(Protocol):
    """Conversations with the same child that another process of ours has."""

    @property
    def quiet(self) -> float | None:
        """Seconds since more than a comment came for one of them; `None` if there is none."""
        ...

    def cut(self) -> None:
        """End them at once."""


class Upstream:
    """One child, as something requests can be sent to.

    Invariant: a connection is idle, busy or closed, and only the first two are known here.
    Made when the child is ready; ended by `aclose`, which ends every conversation at once.

    Attributes:
        elsewhere: those whose conversations count as if they were had here.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        api_key: str = "",
        *,
        idle_limit: int = IDLE_LIMIT,
        idle_seconds: float = IDLE_SECONDS,
        connect_seconds: float = CONNECT_SECONDS,
    ) -> None:
        self.endpoint = endpoint
        self.api_key = api_key
        self._host = f"{endpoint.host}:{endpoint.port}"
        self._idle_limit = idle_limit
        self._idle_seconds = idle_seconds
        self._connect_seconds = connect_seconds
        self._idle: list[tuple[Connection, float]] = []
        """The youngest is last. With each the time when it became idle."""
        self._busy: set[Connection] = set()
        self._watch = Watch(self._busy)
        self.elsewhere: set[Elsewhere] = set()
        self._broom: asyncio.TimerHandle | None = None
        self._beginnings: dict[tuple[str, bytes], bytes] = {}
        self._closed = False

    @property
    def active(self) -> int:
        """How many conversations are going on."""
        return len(self._busy)

    @property
    def idle(self) -> int:
        """How many connections wait for a request."""
        return len(self._idle)

    @property
    def quiet(self) -> float:
        """Seconds since more than a comment came for one conversation; 0 if there is none."""
        here = [connection.quiet for connection in self._busy]
        there = [one.quiet for one in self.elsewhere]
        return min((*here, *(one for one in there if one is not None)), default=0.0)

    def render(self, request: UpstreamRequest) -> bytes:
        """The head of the request for this child, its own key included.

        Raises:
            MalformedRequest: see `render_request`.
        """
        return render_request(request, self._host, self.api_key)

    def render_relayed(self, path: str, lines: bytes, request_id: str, length: int) -> bytes:
        """The head of a POST with a client's own header lines; see `render_relayed`."""
        key = path, lines
        beginning = self._beginnings.get(key)
        if beginning is None:
            if len(self._beginnings) >= _BEGINNINGS:
                self._beginnings.clear()
            beginning = render_relayed(path, lines, self._host, self.api_key)
            self._beginnings[key] = beginning
        return finish_relayed(beginning, request_id, length)

    def take(self) -> Connection | None:
        """An idle connection, now busy, or `None`. Follow with `Connection.begin` or `abort`."""
        while self._idle:
            connection, _ = self._idle.pop()
            if connection.usable:
                self._busy.add(connection)
                return connection
        return None

    async def connect(self) -> Connection:
        """A fresh connection, already busy. Follow with `Connection.begin` or `abort`.

        Raises:
            UpstreamRefused: nobody listens, or `aclose` was called.
            UpstreamTimeout: the child does not accept.
        """
        loop = asyncio.get_running_loop()
        self._check_open()
        try:
            async with asyncio.timeout(self._connect_seconds):
                _, connection = await loop.create_connection(
                    lambda: Connection(loop, self._offer, self._forget, self._watch),
                    self.endpoint.host,
                    self.endpoint.port,
                )
        except TimeoutError as error:
            raise UpstreamTimeout(
                f"The engine at {self._host} does not accept connections."
            ) from error
        except OSError as error:
            raise UpstreamRefused(
                f"The engine at {self._host} cannot be reached.",
                remedy="It may have ended; its log says why: see `lemonade logs`.",
            ) from error
        try:
            self._check_open()
        except UpstreamRefused:
            connection.abort()
            raise
        self._busy.add(connection)
        return connection

    async def converse(
        self,
        request: UpstreamRequest,
        head_sink: HeadSink,
        drained: Callable[[], Awaitable[None]],
        *,
        fresh: bool = False,
    ) -> None:
        """Send a request and stay until its answer is complete.

        If the task is cancelled the connection is closed at once, which is how a child learns
        that nobody waits for its answer.

        Args:
            request: to send.
            head_sink: takes the head and says who takes the body; see `Connection`.
            drained: awaited after a sink had enough; reading goes on when it returns.
            fresh: take no connection that was kept: it might be closed, and then the request
                would be sent twice.

        Raises:
            UpstreamError: the answer is not complete. What came of it went to the sinks.
        """
        head = self.render(request)
        connection = None if fresh else self.take()
        if connection is not None:
            try:
                await _attend(connection, head, request, head_sink, drained)
                return
            except StaleConnection:
                pass
        await _attend(await self.connect(), head, request, head_sink, drained)

    async def send(self, request: UpstreamRequest) -> UpstreamResponse:
        """Send a request; returns when the head of its answer has come.

        Use the response in an `async with`.

        Raises:
            UpstreamError: there is no answer.
        """
        head = self.render(request)
        connection = self.take()
        if connection is not None:
            response = UpstreamResponse(connection)
            try:
                await response.begin(head, request)
                return response
            except StaleConnection:
                pass
        response = UpstreamResponse(await self.connect())
        await response.begin(head, request)
        return response

    async def aclose(self, why: str = "The engine was stopped during the answer.") -> None:
        """Close all connections, conversations included, so that the child can end.

        `why` is what those are told who still wait for an answer.
        """
        self._closed = True
        self._watch.stop()
        for one in tuple(self.elsewhere):
            one.cut()
        if self._broom is not None:
            self._broom.cancel()
            self._broom = None
        for connection, _ in self._idle[:]:
            connection.abort()
        self._idle.clear()
        for connection in tuple(self._busy):
            connection.abort(ConnectionLost(why))
        # Let the event loop close the sockets before the caller signals the child.
        await asyncio.sleep(0)

    def _check_open(self) -> None:
        if self._closed:
            raise UpstreamRefused(f"The engine at {self._host} was stopped.")

    # ---- called by connections

    def _offer(self, connection: Connection) -> None:
        """An exchange ended well."""
        self._busy.discard(connection)
        if self._closed or len(self._idle) >= self._idle_limit:
            connection.abort()
            return
        loop = connection.loop
        self._idle.append((connection, loop.time()))
        if self._broom is None:
            self._broom = loop.call_later(self._idle_seconds, self._sweep)

    def _forget(self, connection: Connection) -> None:
        """A connection is closed."""
        if connection in self._busy:
            self._busy.discard(connection)
        else:
            self._idle = [entry for entry in self._idle if entry[0] is not connection]

    def _sweep(self) -> None:
        """Close what has been idle for too long; the oldest come first."""
        self._broom = None
        loop = asyncio.get_running_loop()
        while self._idle:
            connection, since = self._idle[0]
            left = since + self._idle_seconds - loop.time()
            if left > 0:
                self._broom = loop.call_later(left, self._sweep)
                return
            del self._idle[0]
            connection.abort()


async def _attend(
    connection: Connection,
    head: bytes,
    request: UpstreamRequest,
    head_sink: HeadSink,
    drained: Callable[[], Awaitable[None]],
) -> None:
    """Run one exchange on a connection from a task."""
    loop = asyncio.get_running_loop()
    waiter: asyncio.Future[None] = loop.create_future()
    over = False
    failure: UpstreamError | None = None

    def wake() -> None:
        # When the task gets to run, the connection may be serving somebody else already. So what
        # there is to know about this exchange is noted now.
        nonlocal over, failure
        if connection.over:
            over, failure = True, connection.failure
        if not waiter.done():
            waiter.set_result(None)

    try:
        connection.begin(
            head, request.body, request.method, head_sink, wake, patience=request.patience
        )
        await waiter
        while not over:
            waiter = loop.create_future()
            await drained()
            if not over:
                connection.resume()
                await waiter
    except BaseException:
        # Cancelled, or the client is gone: in any case nobody wants the rest.
        if not over:
            connection.abort()
        raise
    if failure is not None:
        raise failure
