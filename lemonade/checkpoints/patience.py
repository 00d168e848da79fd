"""How long we put up with a hub, and trying again within that."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from lemonade.checkpoints.failures import may_pass
from lemonade.checkpoints.threads import StopSignal
from lemonade.core.records import dataclass

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Patience:
    """The budget of every wait. Times are seconds.

    Attributes:
        retries: how often in a row a transfer may fail without any progress in between.
        question_retries: how often a question may fail.
        first_pause: before the second try; doubled before each further one.
        longest_pause: the most that doubling leads to.
        answer_within: limit of an answer without content.
        silent_within: how long a content may stall before the line is taken for dead.
        largest_plain_bytes: contents above it are only served through the hub's own transfer
            protocol, which huggingface-hub speaks; they cannot be continued.
    """

    retries: int = 10
    question_retries: int = 3
    first_pause: float = 1.0
    longest_pause: float = 60.0
    answer_within: float = 20.0
    silent_within: float = 60.0
    largest_plain_bytes: int = 50 * 1000**3

    def pause(self, failures: int) -> float:
        """Before the next try, after so many failures."""
        return float(min(self.longest_pause, self.first_pause * 2 ** (failures - 1)))


def patiently(
    work: Callable[[], T], stop: StopSignal, patience: Patience, *, question: bool = False
) -> T:
    """Do the work, again if its failure may pass. Blocks.

    Args:
        work: what huggingface-hub is asked for.
        stop: ends the waiting.
        patience: the budget.
        question: whether somebody waits for an answer, so that a hub that cannot be reached at
            all is said at once; in the middle of a download it may come back.

    Raises:
        Stopped: told to.
        Exception: what the work raised last.
    """
    retries = patience.question_retries if question else patience.retries
    failures = 0
    while True:
        stop.check()
        try:
            return work()
        except Exception as error:
            failures += 1
            if failures > retries or not may_pass(error, connecting=not question):
                raise
            log.info("The hub failed, and is asked again: %s", error)
            stop.pause(patience.pause(failures))
