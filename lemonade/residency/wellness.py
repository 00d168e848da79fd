"""Whether an engine that fails its probes hangs, or is merely busy.

A failed probe alone ends nobody: many engines do not answer while they compute. One that has no
request hangs if it goes on failing. One that has requests hangs only if, besides, nothing comes
from it and it computes nothing, for as long as its recipe allows.
"""

from __future__ import annotations

from typing import Final

from lemonade.core.records import dataclass

BUSY_SHARE: Final = 0.05
"""Share of a core that counts as computing."""


@dataclass(frozen=True, slots=True)
class HangPolicy:
    """Times are seconds.

    Attributes:
        look_every: between two looks at an engine.
        idle_patience: how long an engine without requests may fail its probes, after it was
            found to be unhealthy.
        watch: whether engines that hang are ended at all.
        timeout: how long an engine with requests may make nothing; 0 leaves it to its recipe.
    """

    look_every: float = 5.0
    idle_patience: float = 30.0
    watch: bool = True
    timeout: float = 0.0


@dataclass(frozen=True, slots=True)
class Patience:
    """With one engine, in seconds; 0 is without limit.

    Attributes:
        idle: while it has no requests and fails its probes.
        busy: while it has requests, fails its probes and does nothing.
        still: while it has requests, passes its probes and is not heard of otherwise.
    """

    idle: float = 0.0
    busy: float = 0.0
    still: float = 0.0


@dataclass(frozen=True, slots=True)
class Look:
    """What is seen of an engine at one moment.

    Attributes:
        now: monotonic seconds.
        healthy: whether its last probes passed.
        requests: that it is working on.
        silence: seconds since anything came from it for one of them.
        cpu_seconds: computed so far, by all its processes.
        made: what it has made so far, by its own counters; `None` if it does not say.
    """

    now: float
    healthy: bool
    requests: int
    silence: float = 0.0
    cpu_seconds: float = 0.0
    made: float | None = None


class Wellness:
    """Follows one engine from look to look."""

    def __init__(self) -> None:
        self._idle_since: float | None = None
        self._still_since: float | None = None
        self._last: Look | None = None

    def hangs(self, look: Look, patience: Patience) -> str:
        """What it is to be ended for, as a verb; empty while it is well, or may be."""
        last, self._last = self._last, look
        if look.healthy:
            self._idle_since = self._still_since = None
            return ""
        if not look.requests:
            self._still_since = None
            self._idle_since = self._idle_since if self._idle_since is not None else look.now
            return _verdict(look.now - self._idle_since, patience.idle)
        self._idle_since = None
        if last is None or self._still_since is None or _works(last, look):
            self._still_since = look.now
        return _verdict(min(look.silence, look.now - self._still_since), patience.busy)


def _verdict(still: float, patience: float) -> str:
    if not patience or still < patience:
        return ""
    return f"stopped answering and was ended after {still:.0f} s without a sign of life"


def _works(before: Look, now: Look) -> bool:
    spent = now.cpu_seconds - before.cpu_seconds
    made = now.made is not None and before.made is not None and now.made != before.made
    return made or spent > BUSY_SHARE * (now.now - before.now)
