"""`Prelude`: what a streaming client is told while nothing can be streamed yet.

An answer is committed only when there is one, so that an error has its own status. But a client
that waits for minutes, while an engine starts or reads a long prompt, cannot tell waiting from
hanging, and neither can what lies between. So after a while the stream begins without its content:
a head with status 200, and comments, which every reader of event streams skips. From then on an
error is an event.

Nothing of it costs a request that is answered soon more than a timer.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

_TICK: Final = 1.0
"""Most seconds between two looks at what is being waited for."""

_LAST_CHUNK: Final = b"0\r\n\r\n"


class Prelude:
    """Of one request. Made when it has been read; stopped by whoever made it, in any case.

    Attributes:
        begun: whether the stream has begun.
        composed: the head that was sent then.
        sent: bytes handed to the client's connection.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        headers: Iterable[tuple[str, str]],
        *,
        stays: bool,
        after: float,
        every: float,
        step: Callable[[], str],
        note: Callable[[int], None] = lambda _: None,
    ) -> None:
        """Set the timer.

        Args:
            transport: of a client that wants a stream and speaks HTTP/1.1.
            headers: as every answer has them.
            stays: whether the client keeps its connection.
            after: seconds of silence before the stream begins.
            every: seconds between two comments that say the same.
            step: what is being waited for, in a few words.
            note: told how many bytes the client's connection has been handed.
        """
        self._transport = transport
        self._headers = headers
        self._stays = stays
        self._every = every
        self._step = step
        self._note = note
        self._loop = asyncio.get_running_loop()
        self._said = ""
        self._said_at = 0.0
        self.begun = False
        self.composed = b""
        self.sent = 0
        self._timer: asyncio.TimerHandle | None = self._loop.call_later(after, self._begin)

    def stop(self) -> None:
        """Say nothing more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def hand_over(self) -> bool:
        """The answer is here: say nothing more; whether its head is not needed any more."""
        self.stop()
        return self.begun

    def fail(self, body: Mapping[str, Any]) -> None:
        """End the stream with an error event. It has begun."""
        self.stop()
        event = b"data: " + json.dumps(body, ensure_ascii=False).encode() + b"\n\n"
        self._hand_over(_chunk(event) + _LAST_CHUNK)

    def _begin(self) -> None:
        if self._transport.is_closing():
            self.stop()
            return
        lines = [
            "HTTP/1.1 200 OK",
            "Content-Type: text/event-stream",
            "Cache-Control: no-cache",
            "X-Accel-Buffering: no",
            "Transfer-Encoding: chunked",
            *(f"{name}: {value}" for name, value in self._headers),
            *(() if self._stays else ("Connection: close",)),
        ]
        self.composed = "\r\n".join((*lines, "", "")).encode("latin-1")
        self._hand_over(self.composed)
        self.begun = True
        self._tick()

    def _tick(self) -> None:
        step, now = self._step(), self._loop.time()
        if step != self._said or now - self._said_at >= self._every:
            self._said, self._said_at = step, now
            self._hand_over(_chunk(f": {' '.join(step.split())}\n\n".encode()))
        self._timer = self._loop.call_later(min(_TICK, self._every), self._tick)

    def _hand_over(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(data)
            self.sent += len(data)
            self._note(self.sent)


def _chunk(event: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(event), event)
