"""The relay under aiohttp: a child's answer goes to the client as the bytes it came in.

aiohttp reads the request and keeps the connection; the answer is written by a `Forwarder` to the
client's transport, straight from the callback that received it.

Of aiohttp only public points are used: `Request.transport`, `Request.protocol.writing_paused`,
`Request.writer`, and the methods of `StreamResponse` that are meant to be overridden. The signal
`on_response_prepare` is not sent for a relayed answer.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from aiohttp import web
from multidict import CIMultiDict

from lemonade.core.errors import ConnectionLost, UpstreamError
from lemonade.core.records import dataclass
from lemonade.telemetry import UsageTap
from lemonade.upstream import Extra, Forwarder, Sieve, Upstream, UpstreamRequest


@dataclass(frozen=True, slots=True)
class BufferedError:
    """A child's answer that is not a success, read instead of relayed. Nothing was sent.

    Attributes:
        status: not 200 to 299.
        content_type: empty if the child did not say.
        body: its first 64 KiB.
    """

    status: int
    content_type: str
    body: bytes


@dataclass(frozen=True, slots=True)
class RelayOutcome:
    """What became of a request.

    Attributes:
        status: of the child's answer.
        complete: whether the whole answer was handed to the client's connection.
        response: what the handler has to return.
    """

    status: int
    complete: bool
    response: web.StreamResponse


class Prelude(Protocol):
    """What a client was told before its answer; see `relay.waiting`."""

    composed: bytes
    sent: int

    def hand_over(self) -> bool:
        """Say nothing more; whether the head of the answer is not needed any more."""


class SentResponse(web.StreamResponse):
    """A response that is on the wire already when aiohttp gets to see it.

    Its `headers` are what was sent, for access logs; changing them does nothing.
    """

    def __init__(
        self, status: int, reason: str, composed: bytes, *, sent: int, stays: bool
    ) -> None:
        super().__init__(status=status, reason=reason)
        self._composed = composed
        self._sent = sent
        self._stays = stays

    @property
    def headers(self) -> CIMultiDict[str]:
        """What was sent."""
        lines = self._composed.decode("latin-1").split("\r\n")[1:-2]
        pairs = (line.partition(": ") for line in lines)
        return CIMultiDict((name, value) for name, _, value in pairs)

    @property
    def prepared(self) -> bool:
        """Yes, from the start."""
        return True

    @property
    def keep_alive(self) -> bool | None:
        """Whether the connection can take another request."""
        return self._stays

    @property
    def body_length(self) -> int:
        """Bytes sent, head and framing included."""
        return self._sent

    async def prepare(self, request: web.BaseRequest) -> None:
        """Nothing is left to prepare."""

    async def write_eof(self, data: bytes = b"") -> None:
        """Nothing is left to write."""


async def _add_nothing(_error: UpstreamError) -> None:
    """Nothing more is known."""


async def relay(  # noqa: PLR0913 - it joins two connections
    request: web.Request,
    upstream: Upstream,
    upstream_request: UpstreamRequest,
    *,
    extra_headers: Sequence[tuple[str, str]] = (),
    tap: UsageTap | None = None,
    sieve: Sieve | None = None,
    prelude: Prelude | None = None,
    buffer_errors: bool = False,
    fresh: bool = False,
    explain: Callable[[UpstreamError], Awaitable[None]] = _add_nothing,
) -> RelayOutcome | BufferedError:
    """Send a request to a child and its answer to the client.

    Nothing is sent to the client before the head of the child's answer is here. If the task is
    cancelled, as aiohttp does when the client leaves, the connection to the child is closed at
    once.

    Args:
        request: of the client; its body has been read.
        upstream: the child.
        upstream_request: what the child is asked.
        extra_headers: added to the answer, in place of the child's of the same names.
        tap: is shown the body.
        sieve: takes out of a stream what the client did not ask for.
        prelude: what the client may have been told while it waited.
        buffer_errors: return a child's error as a `BufferedError` instead of relaying it.
        fresh: use no connection that was kept.
        explain: adds to an error what is known, before a client in the middle of a stream is told.

    Returns:
        The outcome; also when the answer broke off after it had begun. The client then got an
        error event if it was a stream at the end of an event, or else a broken connection.

    Raises:
        UpstreamError: there was no answer, and nothing was sent.
        ConnectionResetError: the client is gone.
    """
    transport = request.transport
    if transport is None:
        raise ConnectionResetError("The client is gone.")
    forwarder = Forwarder(
        transport,
        request.protocol,
        modern=request.version >= (1, 1),
        stays=request.keep_alive,
        extra=Extra.of(extra_headers),
        tap=tap,
        sieve=sieve,
        begun=None if prelude is None else prelude.hand_over,
        keep_errors=buffer_errors,
    )

    async def drained() -> None:
        if forwarder.satisfied:
            raise ConnectionLost("Enough of the engine's error was read.")
        if transport.is_closing():
            raise ConnectionResetError("The client is gone.")
        await request.writer.drain()

    complete = False
    try:
        await upstream.converse(upstream_request, forwarder.take_head, drained, fresh=fresh)
        complete = True
    except UpstreamError as error:
        if forwarder.refusal is None:
            if not forwarder.sent:
                raise
            await explain(error)
            forwarder.break_off(error)
    except ConnectionError:
        # The client left and the task was not cancelled for it; there is nobody to tell.
        if not forwarder.sent:
            raise
        transport.abort()
    finally:
        # Should anything go wrong, aiohttp must know that it is too late for another answer.
        before = 0 if prelude is None else prelude.sent
        request.writer.output_size = before + forwarder.sent
    head = forwarder.head
    assert head is not None
    if forwarder.refusal is not None:
        content_type = head.get(b"content-type").decode("latin-1")
        return BufferedError(head.status, content_type, bytes(forwarder.refusal))
    if complete:
        forwarder.finish()
    response = SentResponse(
        head.status,
        head.reason.decode("latin-1"),
        forwarder.composed or (b"" if prelude is None else prelude.composed),
        sent=before + forwarder.sent,
        stays=forwarder.stays,
    )
    return RelayOutcome(head.status, complete, response)
