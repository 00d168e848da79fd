"""An answer of a child that we read ourselves: health, metrics, slots, short JSON calls.

Unlike the relay this hands out what the body says, without its framing, to somebody who awaits it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Final, Self

from lemonade.core.errors import UpstreamError
from lemonade.upstream.connection import BodySink, Connection
from lemonade.upstream.framing import BodyWalker, Header, ResponseHead, walker_for
from lemonade.upstream.request import UpstreamRequest

_READ_AHEAD: Final = 64 * 1024
"""How much of a body is kept before the child has to wait."""

ANSWER_LIMIT: Final = 4 * 1024 * 1024
"""How much of an answer is read unless the caller says otherwise."""


class UpstreamResponse:
    """An answer whose head has come and whose body can be read.

    Made by `Upstream.send`, ended by `async with` or `close`; if that happens before the body is
    complete the connection is closed. Invariant: at most 64 KiB and one block of the body are in
    memory.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._head: ResponseHead | None = None
        self._walker: BodyWalker | None = None
        self._ready: list[bytes] = []
        self._size = 0
        self._ended = False
        self._failure: UpstreamError | None = None
        self._news = asyncio.Event()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def status(self) -> int:
        """HTTP status."""
        return self._known().status

    @property
    def reason(self) -> str:
        """The phrase after the status; may be empty."""
        return self._known().reason.decode("latin-1")

    @property
    def headers(self) -> tuple[Header, ...]:
        """As the child sent them."""
        return self._known().headers

    @property
    def content_type(self) -> str:
        """Empty if the child did not say."""
        return self._known().get(b"content-type").decode("latin-1")

    async def blocks(self) -> AsyncIterator[bytes]:
        """What the body says, as it comes.

        Raises:
            UpstreamError: the body is not complete; everything that came was handed out before.
        """
        while True:
            if self._ready:
                piece = b"".join(self._ready)
                self._ready.clear()
                self._size = 0
                if not self._ended:
                    self._connection.resume()
                yield piece
            elif not self._ended:
                await self._wait()
            elif self._failure is not None:
                raise self._failure
            else:
                return

    async def read(self, limit: int = ANSWER_LIMIT) -> bytes:
        """The whole body, or its first `limit` bytes.

        Raises:
            UpstreamError: the body is not complete.
        """
        pieces: list[bytes] = []
        size = 0
        async for piece in self.blocks():
            pieces.append(piece)
            size += len(piece)
            if size >= limit:
                break
        return b"".join(pieces)[:limit]

    def close(self) -> None:
        """End the conversation; the rest of the body is not wanted."""
        if not self._ended:
            self._connection.abort()

    async def begin(self, head: bytes, request: UpstreamRequest) -> None:
        """Send the request and return when the answer's head has come. For `Upstream.send`.

        Raises:
            UpstreamError: there will be no answer.
        """
        try:
            self._connection.begin(
                head,
                request.body,
                request.method,
                self._take_head,
                self._take_note,
                patience=request.patience,
            )
            await self._head_came()
        except BaseException:
            self.close()
            raise

    def _known(self) -> ResponseHead:
        assert self._head is not None
        return self._head

    async def _head_came(self) -> None:
        while self._head is None:
            if self._failure is not None:
                raise self._failure
            await self._wait()

    async def _wait(self) -> None:
        self._news.clear()
        await self._news.wait()

    # ---- called by the connection

    def _take_head(self, head: ResponseHead) -> BodySink:
        self._head = head
        self._walker = walker_for(head, collect=True)
        self._news.set()
        return self._take_body

    def _take_body(self, block: bytes, _whole: int) -> bool:
        walker = self._walker
        assert walker is not None
        walker.feed(block)
        piece = walker.payload()
        if piece:
            self._ready.append(piece)
            self._size += len(piece)
            self._news.set()
        return self._size >= _READ_AHEAD

    def _take_note(self) -> None:
        connection = self._connection
        # Once over, the connection may be serving somebody else: look at it only now.
        if connection.over and not self._ended:
            self._ended = True
            self._failure = connection.failure
        self._news.set()
