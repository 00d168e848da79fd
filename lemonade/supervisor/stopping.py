"""Ending what is left of a child until nothing is: ask, wait, then kill, and look again.

The child's own process and its group are signalled by the child's task; this is the second half,
the sweep, which ends every other process of the family one by one, by pid *and* start time. It is
over only when a look at all processes finds none alive, or when even SIGKILL has not helped for
`kill_within` seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Callable, Sequence
from typing import Final

from lemonade.core.records import dataclass
from lemonade.supervisor.beside import Beside
from lemonade.supervisor.processes import Identity, ProcessFacts, send_signal

log = logging.getLogger(__name__)

Look = Callable[[], tuple[ProcessFacts, ...]]
"""Finds the processes that are to be ended and are still alive. May block."""

_FIRST_PAUSE: Final = 0.01
_LONGEST_PAUSE: Final = 0.2
_BLIND_LIMIT: Final = 10.0
"""Seconds without a look at processes after which an end is given up."""


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep found.

    Attributes:
        ended: pids that were alive when it began, or later, and are gone.
        survivors: pids that are alive in spite of SIGKILL.
    """

    ended: tuple[int, ...] = ()
    survivors: tuple[int, ...] = ()


async def sweep(
    look: Look,
    beside: Beside,
    *,
    grace: float,
    kill_within: float,
    hurry: asyncio.Event,
    end_all: Callable[[], None] = lambda: None,
) -> Swept:
    """End all that `look` finds, and what it finds after that.

    Args:
        look: asked again and again, so that what is born meanwhile is found too.
        beside: where it is asked.
        grace: seconds between SIGTERM and SIGKILL; 0 does not ask first.
        kill_within: seconds after the first SIGKILL before giving up.
        hurry: set by somebody who does not want to wait for the grace.
        end_all: kills all of them in another way, if there is one. May block.

    Raises:
        OSError: for seconds on end nothing could be looked at.
    """
    loop = asyncio.get_running_loop()
    kill_from = loop.time() + grace
    give_up_at: float | None = None
    asked: set[Identity] = set()
    pause = _FIRST_PAUSE
    while alive := await _seen(look, beside):
        now = loop.time()
        killing = now >= kill_from or hurry.is_set()
        if killing and give_up_at is None:
            give_up_at = now + kill_within
            pause = _FIRST_PAUSE
        elif give_up_at is not None and now >= give_up_at:
            return _swept(asked, alive)
        targets = [f.identity for f in alive if killing or f.identity not in asked]
        if killing:
            await beside.proc(end_all)
        number = signal.SIGKILL if killing else signal.SIGTERM
        await beside.proc(_send_all, targets, number)
        asked.update(targets)
        await _pause(pause if killing else min(pause, kill_from - now), hurry, waiting=not killing)
        pause = min(pause * 2, _LONGEST_PAUSE)
    return _swept(asked, ())


async def _seen(look: Look, beside: Beside) -> tuple[ProcessFacts, ...]:
    """What `look` finds; where we may open nothing to look at, asked again until we may.

    Raises:
        OSError: that lasts too long.
    """
    limit = asyncio.get_running_loop().time() + _BLIND_LIMIT
    while True:
        try:
            return await beside.proc(look)
        except OSError as error:
            if asyncio.get_running_loop().time() > limit:
                raise
            log.warning("Processes to be ended cannot be looked at: %s", error)
        await asyncio.sleep(_LONGEST_PAUSE)


def _send_all(targets: Sequence[Identity], number: int) -> None:
    for identity in targets:
        send_signal(identity, number)


async def _pause(seconds: float, hurry: asyncio.Event, *, waiting: bool) -> None:
    if not waiting:
        await asyncio.sleep(seconds)
        return
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await hurry.wait()


def _swept(asked: set[Identity], alive: tuple[ProcessFacts, ...]) -> Swept:
    survivors = {facts.identity for facts in alive}
    return Swept(
        tuple(sorted(identity.pid for identity in asked - survivors)),
        tuple(sorted(identity.pid for identity in survivors)),
    )
