"""`Exchange`: one request and its answer, moved between two connections by their callbacks.

The way that nearly all requests take needs no task: the request is written to a connection that
was kept, and the answer is written to the client from the callback that received it. What has to
wait for something gets a task: a fresh connection, an engine that was lost, the reason why an
answer broke off.

It says the same as the gateway in every case; that one explains more.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Protocol

from lemonade.core.errors import (
    ConnectionLost,
    LemonadeError,
    UpstreamError,
    UpstreamRefused,
)
from lemonade.core.events import RequestAskedAgain
from lemonade.core.inference import Inference
from lemonade.dialects import UsageSieve, wrap_backend_error
from lemonade.front.client import Client, header_lines
from lemonade.front.entrance import Entry
from lemonade.gateway import (
    REQUEST_ID,
    Parts,
    Prelude,
    RequestIds,
    choose_adapter,
    error_answer,
    explain,
    fit,
    json_bytes,
    publish,
    settled,
    status_of,
)
from lemonade.residency import Lease, Resident
from lemonade.telemetry import UsageTap
from lemonade.upstream import Connection, Extra, Forwarder, StaleConnection

log = logging.getLogger(__name__)

_REPLACED = frozenset({b"x-request-id"})
"""Of the engine's headers, besides those that are never passed on."""


class Owner(Protocol):
    """Who keeps the list of exchanges, and has their tasks."""

    parts: Parts
    ids: RequestIds

    def spawn(self, exchange: Exchange, deed: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
        """Do something that waits, on behalf of an exchange."""

    def forget(self, exchange: Exchange) -> None:
        """It is over."""


class Exchange:
    """One request for a model that was warm when it came.

    Made by the relay, begun by its client, and over when the client was told so or `abandon` was
    called; whichever comes first, the lease ends and the request is counted, once.
    """

    __slots__ = (
        "_again",
        "_asked_again",
        "_body",
        "_client",
        "_connection",
        "_entry",
        "_forwarder",
        "_lease",
        "_over",
        "_owner",
        "_prelude",
        "_request_id",
        "_resident",
        "_started",
        "_tap",
        "_task",
        "_wanted",
    )

    def __init__(
        self,
        owner: Owner,
        client: Client,
        entry: Entry,
        wanted: Inference,
        resident: Resident,
        fitted: tuple[bytes, UsageSieve | None],
        started: float,
    ) -> None:
        self._owner = owner
        self._client = client
        self._entry = entry
        self._wanted = wanted
        self._started = started
        self._request_id = owner.ids.of(entry.given_id)
        self._connection: Connection | None = None
        self._task: asyncio.Task[None] | None = None
        self._prelude = self._make_prelude() if wanted.stream else None
        self._over = False
        self._again = False
        """Whether a kept connection turned out to be closed, and a fresh one is used."""
        self._asked_again = False
        """Whether the engine was lost, and the request is asked once more."""
        self._prepare(resident, Lease(resident), *fitted)

    def _prepare(
        self, resident: Resident, lease: Lease, body: bytes, sieve: UsageSieve | None
    ) -> None:
        """All that belongs to one attempt."""
        stream, client = self._wanted.stream, self._client
        self._resident = resident
        self._lease = lease
        self._body = body
        self._tap = UsageTap(
            stream=stream,
            started=self._started,
            on_first=lease.streaming if stream else None,
            look=resident.recipe.upstream.usage != "llama-timings",
        )
        self._forwarder = Forwarder(
            client.transport,
            client.full,
            modern=True,
            stays=self._entry.head.stays,
            extra=Extra(
                _REPLACED,
                b"X-Request-Id: %b\r\n%b" % (self._request_id.encode(), self._entry.answer_lines),
            ),
            tap=self._tap.feed,
            sieve=sieve,
            begun=_never if self._prelude is None else self._prelude.hand_over,
            keep_errors=True,
        )

    # ---- the way of nearly all requests

    def begin(self) -> None:
        """Ask the engine."""
        connection = self._lease.instance.upstream.take()
        if connection is None:
            self._spawn(self._connect)
        else:
            self._ask(connection)

    def resume(self) -> None:
        """The client has read what it was sent."""
        if self._connection is not None:
            self._connection.resume()

    def abandon(self) -> None:
        """Nobody waits for the answer any more: the engine learns it at once."""
        if self._over:
            return
        complete = self._tap.saw_end
        self._end(200 if complete else 499, complete=complete)
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abort()
        if self._task is not None:
            self._task.cancel()

    def _ask(self, connection: Connection) -> None:
        wanted, resident = self._wanted, self._resident
        upstream = self._lease.instance.upstream
        path = resident.recipe.upstream.operations[wanted.operation]
        head = upstream.render_relayed(path, self._entry.lines, self._request_id, len(self._body))
        self._connection = connection
        patience = float(self._owner.parts.configuration.settings.global_timeout)
        connection.begin(
            head, self._body, "POST", self._forwarder.take_head, self._news, patience=patience
        )

    def _news(self) -> None:
        """Called by the connection when the answer is over, or somebody has enough."""
        connection = self._connection
        if self._over or connection is None:
            return
        if not connection.over:
            if self._forwarder.satisfied:
                connection.abort(ConnectionLost("Enough of the engine's error was read."))
            elif not self._client.writing_paused:
                connection.resume()
            return
        failure = connection.failure
        self._connection = None
        forwarder = self._forwarder
        if forwarder.refusal is not None:
            self._refused()
        elif failure is not None:
            self._failed(failure)
        else:
            forwarder.finish()
            assert forwarder.head is not None
            self._end(forwarder.head.status, complete=True)
            self._client.answered(stays=forwarder.stays)

    def _end(self, status: int, *, complete: bool) -> None:
        """The one place where an exchange ends."""
        self._over = True
        if self._prelude is not None:
            self._prelude.stop()
        self._owner.forget(self)
        REQUEST_ID.set(self._request_id)
        publish(
            self._owner.parts.bus,
            self._wanted,
            self._resident,
            status,
            self._started,
            complete,
            self._tap,
        )
        self._lease.end()

    # ---- the other ways

    def _refused(self) -> None:
        """The engine answered with an error, which is worded anew."""
        head, refusal = self._forwarder.head, self._forwarder.refusal
        assert head is not None
        assert refusal is not None
        title = self._resident.recipe.title
        body = wrap_backend_error(head.status, bytes(refusal), title)
        self._end(head.status, complete=True)
        self._tell(head.status, body, reason=head.reason.decode("latin-1"))

    def _failed(self, error: UpstreamError) -> None:
        if self._forwarder.sent:
            self._spawn(partial(self._break_off, error))
        elif isinstance(error, StaleConnection) and not self._again:
            self._again = True
            self._spawn(self._connect)
        elif isinstance(error, ConnectionLost | UpstreamRefused) and not self._asked_again:
            self._asked_again = True
            log.warning("%s: %s Asking again.", self._wanted.model, error.message)
            again = RequestAskedAgain(self._wanted.model, self._wanted.operation)
            self._owner.parts.bus.publish(again)
            self._spawn(self._ask_again)
        else:
            self._spawn(partial(self._explain, error))

    async def _connect(self) -> None:
        try:
            connection = await self._lease.instance.upstream.connect()
        except UpstreamError as error:
            self._failed(error)
            return
        self._ask(connection)

    async def _ask_again(self) -> None:
        """The engine is lost: whoever loads the model again is waited for."""
        lost = self._resident
        lost.lost += 1
        self._lease.end()
        await settled(lost)
        parts = self._owner.parts
        try:
            lease = await parts.pool.lease(self._wanted.model)
        except LemonadeError as error:
            self._refuse(error)
            return
        try:
            resident = lease.resident
            self._wanted = choose_adapter(self._wanted, resident, None)
            fitted = (
                await fit(self._wanted, lease)
                if resident.recipe.upstream.adapts
                else (self._wanted.body, None)
            )
        except BaseException:
            lease.end()
            raise
        self._again = False
        self._prepare(resident, lease, *fitted)
        await self._connect()

    def fail(self) -> None:
        """Something went wrong that nobody thought of; it is in the log."""
        if self._over:
            return
        connection, self._connection = self._connection, None
        self._end(500, complete=False)
        if connection is not None:
            connection.abort()
        self._client.transport.abort()

    async def _explain(self, error: UpstreamError) -> None:
        """There is no answer, and nothing of one was sent."""
        await explain(error, self._resident)
        self._refuse(error)

    async def _break_off(self, error: UpstreamError) -> None:
        """The answer is not complete, and some of it is with the client."""
        await explain(error, self._resident)
        forwarder = self._forwarder
        forwarder.break_off(error)
        assert forwarder.head is not None
        complete = self._tap.saw_end
        if not complete:
            log.warning("%s: the answer was cut off", self._resident.served_name)
        self._end(forwarder.head.status, complete=complete)
        self._client.answered(stays=forwarder.stays)

    def _refuse(self, error: LemonadeError) -> None:
        log.info("POST %s: %s", self._wanted.operation, error.message)
        self._end(
            502 if isinstance(error, UpstreamError) else status_of(error, "model"), complete=False
        )
        status, body, own = error_answer(error, "model", requested_model=self._wanted.model)
        self._tell(status, body, header_lines(own))

    def _tell(
        self, status: int, body: Mapping[str, Any], lines: bytes = b"", reason: str = ""
    ) -> None:
        """End with an error: as an event if a stream has begun, else as an answer."""
        client, stays = self._client, self._entry.head.stays
        if self._prelude is not None and self._prelude.begun:
            self._prelude.fail(body)
        else:
            own = b"X-Request-Id: %b\r\n%b" % (self._request_id.encode(), lines)
            client.answer(
                status,
                json_bytes(body),
                own + self._entry.answer_lines,
                stays=stays,
                reason=reason,
            )
        client.answered(stays=stays)

    # ---- what it is made with

    def _make_prelude(self) -> Prelude | None:
        settings = self._owner.parts.configuration.settings
        if not settings.heartbeat_after_s:
            return None
        wanted, pool = self._wanted, self._owner.parts.pool
        return Prelude(
            self._client.transport,
            (("X-Request-Id", self._request_id), *self._entry.headers),
            stays=self._entry.head.stays,
            after=settings.heartbeat_after_s,
            every=settings.heartbeat_every_s,
            step=lambda: pool.step_of(wanted.model),
        )

    def _spawn(self, deed: Callable[[], Awaitable[None]]) -> None:
        self._task = self._owner.spawn(self, deed)


def _never() -> bool:
    return False
