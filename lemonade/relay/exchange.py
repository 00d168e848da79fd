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
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Final, Protocol

import msgspec

from lemonade.core.errors import (
    ConnectionLost,
    LemonadeError,
    UpstreamError,
    UpstreamRefused,
)
from lemonade.core.inference import Inference
from lemonade.core.records import dataclass
from lemonade.dialects import (
    UsageSieve,
    error_answer,
    json_bytes,
    status_of,
    wrap_backend_error,
)
from lemonade.relay.client import Client, header_lines
from lemonade.relay.counting import Over
from lemonade.relay.entrance import Entry
from lemonade.relay.target import Right, Target
from lemonade.relay.waiting import Prelude
from lemonade.relay.welcome import RequestIds
from lemonade.telemetry import UsageTap
from lemonade.upstream import (
    BodySink,
    Connection,
    Extra,
    Forwarder,
    Passage,
    ResponseHead,
    StaleConnection,
    compose_whole,
)

log = logging.getLogger(__name__)

_REPLACED: Final = frozenset({b"x-request-id"})
"""Of the engine's headers, besides those that are never passed on."""


class Chance(msgspec.Struct, frozen=True):
    """All that one attempt to get an answer needs.

    Attributes:
        wanted: the request as it is asked now.
        target: who is asked.
        right: to do so.
        fitted: the body, and what takes out of the stream what only we asked for.
    """

    wanted: Inference
    target: Target
    right: Right
    fitted: tuple[bytes, UsageSieve | None]


@dataclass(frozen=True, slots=True)
class Patience:
    """How long is waited for engines. Seconds.

    Attributes:
        silence: an engine may be silent so long.
        heartbeat_after: a stream begins without an answer after this; 0 is never.
        heartbeat_every: between two comments that say the same.
    """

    silence: float
    heartbeat_after: float
    heartbeat_every: float


class Owner(Protocol):
    """Who keeps the list of exchanges, has their tasks, and knows what they do not."""

    ids: RequestIds

    @property
    def patience(self) -> Patience:
        """As the settings are now."""
        ...

    def step_of(self, model: str) -> str:
        """What a request for that model is waiting for, in a few words."""

    def spawn(self, exchange: Exchange, deed: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
        """Do something that waits, on behalf of an exchange."""

    def forget(self, exchange: Exchange) -> None:
        """It is over."""

    def count(self, over: Over) -> None:
        """Tell everybody, soon."""

    async def explain(self, error: UpstreamError, target: Target) -> None:
        """If the engine has ended, name the incident in the error. Takes a moment at most."""

    def passes_on(self, target: Target) -> bool:
        """Whether another process asks again where an engine was lost."""

    async def again(self, wanted: Inference, target: Target, right: Right) -> Chance:
        """A second chance where an engine was lost, and the right to use it is of no use any more.

        Raises:
            LemonadeError: there is none.
        """


async def see_through(exchange: Exchange, deed: Callable[[], Awaitable[None]]) -> None:
    """Do something on behalf of an exchange. What it fails with ends that one, and is logged."""
    try:
        await deed()
    except Exception:  # a bug in one request must not take the others down
        log.exception("Relaying failed")
        exchange.fail()


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
        "_given",
        "_over",
        "_owner",
        "_passage",
        "_prelude",
        "_request_id",
        "_right",
        "_sieve",
        "_started",
        "_tap",
        "_target",
        "_task",
        "_upstream",
        "_wanted",
    )

    def __init__(
        self,
        owner: Owner,
        client: Client,
        entry: Entry,
        given: bytes,
        chance: Chance,
        started: float,
    ) -> None:
        """Nothing is asked yet.

        Args:
            owner: whose it is.
            client: who waits.
            entry: the head of the request.
            given: its body, as it came.
            chance: whom to ask, and what.
            started: when it came.
        """
        self._owner = owner
        self._client = client
        self._entry = entry
        self._given = given
        self._started = started
        self._request_id = owner.ids.of(entry.given_id)
        self._connection: Connection | None = None
        self._task: asyncio.Task[None] | None = None
        self._wanted = chance.wanted
        self._prelude = self._make_prelude() if chance.wanted.stream else None
        self._over = False
        self._again = False
        """Whether a kept connection turned out to be closed, and a fresh one is used."""
        self._asked_again = client.asked_before is not None
        """Whether the engine was lost, and the request is asked once more."""
        self._prepare(chance)

    def _prepare(self, chance: Chance) -> None:
        """All that belongs to one attempt."""
        self._wanted = chance.wanted
        self._target = chance.target
        self._right = right = chance.right
        self._upstream = right.upstream
        self._body, self._sieve = chance.fitted
        self._tap: UsageTap | None = None
        self._passage: Passage | None = None
        self._forwarder: Forwarder | None = None
        if self._wanted.stream:
            self._tap = tap = self._make_tap()
            self._passage = Passage(self._client.transport, self._client, tap)

    # ---- the way of nearly all requests

    def begin(self) -> None:
        """Ask the engine; over a connection that was kept, unless one has been lost already."""
        connection = None if self._asked_again else self._upstream.take()
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
        complete = self._tap is not None and self._tap.saw_end
        self._end(200 if complete else 499, complete=complete)
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abort()
        if self._task is not None:
            self._task.cancel()

    def _ask(self, connection: Connection) -> None:
        path = self._target.recipe.upstream.operations[self._wanted.operation]
        head = self._upstream.render_relayed(
            path, self._entry.lines, self._request_id, len(self._body)
        )
        self._connection = connection
        connection.begin(
            head,
            self._body,
            "POST",
            self._take_head,
            self._news,
            patience=self._owner.patience.silence,
            passage=self._passage,
            whole_sink=None if self._wanted.stream else self._take_whole,
        )

    def _take_whole(self, head: ResponseHead, body: bytes) -> None:
        """The answer came in one piece, as it nearly always does without a stream."""
        self._connection = None
        client, stays = self._client, self._entry.head.stays
        if not client.transport.is_closing():
            extra = self._make_extra()
            client.transport.write(compose_whole(head, body, stays=stays, extra=extra))
        self._end(head.status, complete=True, answer=body)
        client.answered(stays=stays)

    def _take_head(self, head: ResponseHead) -> BodySink:
        """It comes piece by piece."""
        if self._tap is None:
            self._tap = self._make_tap()
        self._forwarder = forwarder = Forwarder(
            self._client.transport,
            self._client,
            modern=True,
            stays=self._entry.head.stays,
            extra=self._make_extra(),
            tap=self._tap,
            passage=self._passage,
            sieve=self._sieve,
            begun=None if self._prelude is None else self._prelude.hand_over,
            keep_errors=True,
        )
        return forwarder.take_head(head)

    def _news(self) -> None:
        """Called by the connection when the answer is over, or somebody has enough."""
        connection, forwarder = self._connection, self._forwarder
        if self._over or connection is None:
            return
        if not connection.over:
            if forwarder is not None and forwarder.satisfied:
                connection.abort(ConnectionLost("Enough of the engine's error was read."))
            elif not self._client.writing_paused:
                connection.resume()
            return
        failure = connection.failure
        self._connection = None
        if forwarder is not None and forwarder.refusal is not None:
            self._refused(forwarder, forwarder.refusal)
        elif failure is not None:
            self._failed(failure)
        else:
            assert forwarder is not None
            assert forwarder.head is not None
            forwarder.finish()
            self._end(forwarder.head.status, complete=True)
            self._client.answered(stays=forwarder.stays)

    def _end(self, status: int, *, complete: bool, answer: bytes = b"") -> None:
        """The one place where an exchange ends."""
        self._over = True
        if self._prelude is not None:
            self._prelude.stop()
        self._owner.forget(self)
        self._right.end()
        self._owner.count(
            Over(
                self._request_id,
                self._wanted,
                self._target.served_name,
                status,
                complete,
                self._started,
                time.monotonic(),
                self._tap,
                answer,
            )
        )

    # ---- the other ways

    def _refused(self, forwarder: Forwarder, refusal: bytearray) -> None:
        """The engine answered with an error, which is worded anew."""
        head = forwarder.head
        assert head is not None
        title = self._target.recipe.title
        body = wrap_backend_error(head.status, bytes(refusal), title)
        self._end(head.status, complete=True)
        self._tell(head.status, body)

    def _failed(self, error: UpstreamError) -> None:
        if self._forwarder is not None and self._forwarder.sent:
            self._spawn(partial(self._break_off, self._forwarder, error))
        elif isinstance(error, StaleConnection) and not self._again:
            self._again = True
            self._spawn(self._connect)
        elif isinstance(error, ConnectionLost | UpstreamRefused) and not self._asked_again:
            self._asked_again = True
            begun = self._prelude is not None and self._prelude.begun
            if not self._owner.passes_on(self._target):
                log.warning("%s: %s Asking again.", self._wanted.model, error.message)
                self._spawn(self._ask_again)
            elif begun:  # who answers from the beginning cannot go on with what was sent
                self._spawn(partial(self._explain, error))
            else:
                self._pass_on()
        else:
            self._spawn(partial(self._explain, error))

    async def _connect(self) -> None:
        try:
            connection = await self._upstream.connect()
        except UpstreamError as error:
            self._failed(error)
            return
        self._task = None  # a stream goes on for long without it
        self._ask(connection)

    async def _ask_again(self) -> None:
        """The engine is lost: whoever loads the model again is waited for."""
        try:
            chance = await self._owner.again(self._wanted, self._target, self._right)
        except LemonadeError as error:
            self._refuse(error)
            return
        self._again = False
        self._prepare(chance)
        await self._connect()

    def _pass_on(self) -> None:
        """The engine is lost: whoever loads the model again answers. Nothing is counted here."""
        self._over = True
        if self._prelude is not None:
            self._prelude.stop()
        self._owner.forget(self)
        self._right.end()
        self._client.part(self._entry.again(self._request_id, self._given), self._target)

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
        await self._owner.explain(error, self._target)
        self._refuse(error)

    async def _break_off(self, forwarder: Forwarder, error: UpstreamError) -> None:
        """The answer is not complete, and some of it is with the client."""
        await self._owner.explain(error, self._target)
        forwarder.break_off(error)
        assert forwarder.head is not None
        complete = self._tap is not None and self._tap.saw_end
        if not complete:
            log.warning("%s: the answer was cut off", self._target.served_name)
        self._end(forwarder.head.status, complete=complete)
        self._client.answered(stays=forwarder.stays)

    def _refuse(self, error: LemonadeError) -> None:
        log.info("POST %s: %s", self._wanted.operation, error.message)
        self._end(
            502 if isinstance(error, UpstreamError) else status_of(error, "model"), complete=False
        )
        status, body, own = error_answer(error, "model", requested_model=self._wanted.model)
        self._tell(status, body, header_lines(own))

    def _tell(self, status: int, body: Mapping[str, Any], lines: bytes = b"") -> None:
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
            )
        client.answered(stays=stays)

    # ---- what it is made with

    def _make_tap(self) -> UsageTap:
        stream = self._wanted.stream
        return UsageTap(
            stream=stream,
            started=self._started,
            on_first=self._right.streaming if stream else None,
            look=self._target.recipe.upstream.usage != "llama-timings",
        )

    def _make_extra(self) -> Extra:
        """What is added to the engine's head."""
        name, lines = self._request_id.encode(), self._entry.answer_lines
        return Extra(_REPLACED, b"X-Request-Id: %b\r\n%b" % (name, lines))

    def _make_prelude(self) -> Prelude | None:
        patience = self._owner.patience
        if not patience.heartbeat_after:
            return None
        owner, model = self._owner, self._wanted.model
        return Prelude(
            self._client.transport,
            (("X-Request-Id", self._request_id), *self._entry.headers),
            stays=self._entry.head.stays,
            after=patience.heartbeat_after,
            every=patience.heartbeat_every,
            step=lambda: owner.step_of(model),
        )

    def _spawn(self, deed: Callable[[], Awaitable[None]]) -> None:
        self._task = self._owner.spawn(self, deed)
