"""What is said of a request when it is over."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import msgspec

from lemonade.core.events import RequestFinished
from lemonade.core.inference import Inference, Usage
from lemonade.telemetry import UsageTap, usage_of


class Over(msgspec.Struct):
    """A request that is over and has not been counted.

    Attributes:
        request_id: its name.
        wanted: the request.
        served_name: of the model that answered.
        status: the client got.
        complete: whether the whole answer was delivered.
        started: when it came, on the monotonic clock.
        ended: when it was over.
        tap: watched the answer; `None` if it came whole, or not at all.
        answer: what came whole.
    """

    request_id: str
    wanted: Inference
    served_name: str
    status: int
    complete: bool
    started: float
    ended: float
    tap: UsageTap | None
    answer: bytes = b""

    def usage(self) -> Usage:
        """What it cost."""
        if self.status != 200:
            return Usage()
        return usage_of(self.answer) if self.tap is None else self.tap.finish(self.ended)

    def event(self) -> RequestFinished:
        """What is told of it."""
        wanted, name = self.wanted, self.served_name
        return RequestFinished(
            model=f"{name}:{wanted.adapter}" if wanted.adapter else name,
            operation=wanted.operation,
            status=self.status,
            stream=wanted.stream,
            duration=self.ended - self.started,
            complete=self.complete,
            usage=self.usage(),
        )


class Accounts:
    """Counts requests in the turn of the loop after the one they ended in, all of it together.

    Their answers are on their way by then, and nobody has asked anything since.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, publish: Callable[[str, RequestFinished], None]
    ) -> None:
        """`publish` gets a request's name, and what is told of it."""
        self._loop = loop
        self._publish = publish
        self._waiting: list[Over] = []

    def add(self, over: Over) -> None:
        """One more."""
        if not self._waiting:
            self._loop.call_soon(self.settle)
        self._waiting.append(over)

    def settle(self) -> None:
        """Count all that wait."""
        waiting, self._waiting = self._waiting, []
        for over in waiting:
            self._publish(over.request_id, over.event())


def finished(
    wanted: Inference,
    served_name: str,
    status: int,
    started: float,
    complete: bool,  # noqa: FBT001 - one of six facts of a finished request
    tap: UsageTap,
) -> RequestFinished:
    """The event of a request that ends now."""
    now = time.monotonic()
    return Over("", wanted, served_name, status, complete, started, now, tap).event()
