"""Whether children are silent for too long: one timer for all conversations with one of them."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Collection
from typing import Final, Protocol

_HARDLY: Final = 0.001
"""Seconds that are not worth another timer."""


class Talk(Protocol):
    """One conversation."""

    def left(self, now: float) -> float:
        """Seconds that the child may go on being silent; infinite if nobody minds."""

    def give_up(self) -> None:
        """It was silent for too long."""


class Watch:
    """Looks at conversations when the first of them could have been silent for too long.

    A conversation that only has to be told of when it begins costs a comparison; a timer of its
    own would have to be made and cancelled for every request.
    """

    def __init__(self, talks: Collection[Talk]) -> None:
        """Nobody is watched yet.

        Args:
            talks: those that are going on, at any time.
        """
        self._talks = talks
        self._due = math.inf
        self._timer: asyncio.TimerHandle | None = None

    def mind(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        """A conversation begins that may be silent until then, by the loop's clock."""
        if due < self._due:
            self.stop()
            self._due = due
            self._timer = loop.call_at(due, self._look, loop)

    def stop(self) -> None:
        """Watch nobody, until the next conversation begins."""
        self._due = math.inf
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        self._due = math.inf
        now = loop.time()
        for talk in tuple(self._talks):
            left = talk.left(now)
            if left <= _HARDLY:
                talk.give_up()
            elif left < math.inf:
                self.mind(loop, now + left)
