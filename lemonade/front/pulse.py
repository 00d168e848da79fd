"""Whether a worker hangs, or is merely busy.

A worker is asked now and then whether its event loop turns. One that does not answer is looked at
more closely, and hangs only if it does no work either: it neither computes nor wants a core or
a disk. One that computes is left alone for as long as any request could possibly need.

Looks are counted and not seconds: while the server itself stood still, nobody could answer it.
"""

from __future__ import annotations

from typing import Final

from lemonade.supervisor import HelperFacts

LOOK_EVERY: Final = 0.5
"""Seconds between two looks at all that changes unseen. This is one of them."""

ASK_LOOKS: Final = 10
"""Looks from one question to the next, 5 s: each wakes a worker that has nothing to do."""

STILL_LOOKS: Final = 10
"""How many looks in a row an unanswered worker may do nothing at all, 5 s. A question wakes its
loop within milliseconds, and who waits for a core or a disk is not doing nothing."""

BUSY_SECONDS: Final = 60.0
"""Seconds of a core that it may compute without an answer. The largest body that is accepted keeps
a loop for about one; a machine that is short of cores does not make this clock go faster."""

_BUSY_SHARE: Final = 0.05
"""Share of a core that counts as computing."""


class Pulse:
    """Follows one worker from question to answer.

    Attributes:
        asked: whether an answer is awaited.
    """

    def __init__(self) -> None:
        self.asked = False
        self._still = 0
        self._at_first = 0.0
        self._at_last = 0.0

    def ask(self, seen: HelperFacts) -> None:
        """It is being asked."""
        self.asked = True
        self._still = 0
        self._at_first = self._at_last = seen.cpu_seconds

    def answer(self) -> None:
        """Its loop turns."""
        self.asked = False

    def hangs(self, seen: HelperFacts) -> str:
        """What it did instead of answering, if that is to be its end; empty otherwise."""
        spent = seen.cpu_seconds - self._at_last
        self._at_last = seen.cpu_seconds
        idle = seen.resting and spent <= _BUSY_SHARE * LOOK_EVERY
        self._still = self._still + 1 if idle else 0
        if self._still >= STILL_LOOKS:
            return f"neither answered nor worked for {self._still * LOOK_EVERY:g} s"
        if seen.cpu_seconds - self._at_first > BUSY_SECONDS:
            return f"computed for {BUSY_SECONDS:g} s without an answer"
        return ""
