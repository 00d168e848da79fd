"""When a model whose engine keeps failing is tried again, and when it is not.

The first failure costs nothing: it is tried again at once. Then there is a pause, which doubles.
After a few failures in a short time the circuit opens: whoever wants the model is told why at
once, and nothing is started. When the pause is over one attempt is let through; if that fails
too, the next pause is twice as long.

Failures are counted by fingerprint: model, files, engine's version, arguments and device. Whoever
changes one of these starts anew. It knows no processes and no clock but the one it is given.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import field
from typing import Final

from lemonade.core.ids import IncidentId
from lemonade.core.records import dataclass

_MOST_KEPT: Final = 1000


@dataclass(frozen=True, slots=True)
class CrashPolicy:
    """How patient we are. Times are seconds.

    Attributes:
        failures: so many within `window` open the circuit; 0 never does.
        window: how long a failure counts.
        first_backoff: before the second of several attempts; the first is made at once.
        longest_backoff: doubling ends here.
        jitter: share by which a pause is lengthened at random, so that not all come at once.
        first_pause: how long the circuit stays open at first.
        longest_pause: doubling ends here.
    """

    failures: int = 3
    window: float = 600.0
    first_backoff: float = 1.0
    longest_backoff: float = 60.0
    jitter: float = 0.2
    first_pause: float = 60.0
    longest_pause: float = 600.0


@dataclass(frozen=True, slots=True)
class Failing:
    """A model whose engine failed lately.

    Attributes:
        model: the name its engine answers to.
        failures: how many count.
        retry_after: seconds until it is tried again; 0 while the circuit is closed.
        cause: of the last failure, as a sentence; may be empty.
        lines: the last its engine said.
        incident: of the last failure.
    """

    model: str
    failures: int
    retry_after: float
    cause: str
    lines: tuple[str, ...]
    incident: IncidentId


@dataclass(slots=True)
class _History:
    model: str
    key: str
    times: list[float] = field(default_factory=list)
    opened: int = 0
    open_until: float = 0.0
    ready_at: float = 0.0
    forgiven_at: float = 0.0
    last: Failing | None = None


class Circuits:
    """The histories of all fingerprints. Used from the event loop alone."""

    def __init__(
        self,
        policy: Callable[[], CrashPolicy] = CrashPolicy,
        *,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._policy = policy
        self._clock = clock
        self._chance = chance
        self._histories: dict[str, _History] = {}

    def knows(self, key: str) -> bool:
        """Whether anything of a model has failed lately; otherwise no fingerprint is needed."""
        self._forgive()
        return any(history.key == key for history in self._histories.values())

    def failed(
        self,
        fingerprint: str,
        *,
        key: str,
        model: str,
        incident: IncidentId,
        cause: str = "",
        lines: tuple[str, ...] = (),
        severe: bool = False,
    ) -> None:
        """Count a failure; `severe` opens the circuit at once."""
        self._forgive()
        policy, now = self._policy(), self._clock()
        history = self._histories.setdefault(fingerprint, _History(model, key))
        history.times = [then for then in history.times if now - then < policy.window][-99:]
        history.times.append(now)
        count = len(history.times)
        if policy.failures and (history.opened or severe or count >= policy.failures):
            pause = policy.first_pause * 2**history.opened
            history.opened += 1
            history.open_until = now + min(pause, policy.longest_pause)
        backoff = min(policy.first_backoff * 2 ** max(0, count - 2), policy.longest_backoff)
        history.ready_at = now + (self._longer(backoff) if count > 1 else 0.0)
        history.ready_at = max(history.ready_at, history.open_until)
        history.forgiven_at = max(now, history.open_until) + policy.window
        history.last = Failing(model, count, 0.0, cause, lines, incident)
        while len(self._histories) > _MOST_KEPT:
            del self._histories[next(iter(self._histories))]

    def open(self, fingerprint: str) -> Failing | None:
        """Why nothing is started now; `None` if it may be."""
        history = self._histories.get(fingerprint)
        if history is None or self._clock() >= history.open_until:
            return None
        return self._told(history)

    def wait(self, fingerprint: str) -> float:
        """Seconds until the next attempt should be made by itself."""
        history = self._histories.get(fingerprint)
        return max(0.0, history.ready_at - self._clock()) if history is not None else 0.0

    def reset(self, key: str) -> tuple[str, ...]:
        """Forget all failures of a model: somebody has looked after it. Its names, if any."""
        found = [f for f, history in self._histories.items() if history.key == key]
        return tuple({self._histories.pop(fingerprint).model for fingerprint in found})

    def failing(self) -> tuple[Failing, ...]:
        """All whose failures still count."""
        self._forgive()
        return tuple(self._told(history) for history in self._histories.values())

    def _told(self, history: _History) -> Failing:
        assert history.last is not None
        last, left = history.last, max(0.0, history.open_until - self._clock())
        return Failing(last.model, last.failures, left, last.cause, last.lines, last.incident)

    def _longer(self, seconds: float) -> float:
        return seconds * (1.0 + self._policy().jitter * self._chance())

    def _forgive(self) -> None:
        now = self._clock()
        for fingerprint in [f for f, h in self._histories.items() if now >= h.forgiven_at]:
            del self._histories[fingerprint]
