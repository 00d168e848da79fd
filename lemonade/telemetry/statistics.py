"""What has been served since the start: the last request, totals, and both for each model.

Listens to the bus and is told nothing directly. Requests without usage count as requests only.
"""

from __future__ import annotations

from typing import Any

from lemonade.core.bus import Bus
from lemonade.core.events import RequestFinished
from lemonade.core.inference import Usage
from lemonade.core.records import dataclass


@dataclass(slots=True)
class Tally:
    """Sums over requests, and what the last of them was like.

    Attributes:
        requests: that an engine answered with success, completely or not.
        last: usage of the last of them.
    """

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    prompt_tokens: int = 0
    cache_tokens: int = 0
    last: Usage | None = None

    def add(self, usage: Usage) -> None:
        """Count one more request."""
        self.requests += 1
        self.input_tokens += usage.input_tokens or 0
        self.output_tokens += usage.output_tokens or 0
        self.prompt_tokens += usage.prompt_tokens or 0
        self.cache_tokens += usage.cache_tokens or 0
        self.last = usage


class Statistics:
    """The server's book. Made by the composition root; lives as long as the server."""

    def __init__(self, bus: Bus) -> None:
        self._last: Usage | None = None
        self._models: dict[str, Tally] = {}
        bus.subscribe(RequestFinished, self._note)

    @property
    def total(self) -> Tally:
        """Over all models, those unloaded since included."""
        total = Tally(last=self._last)
        for tally in self._models.values():
            total.requests += tally.requests
            total.input_tokens += tally.input_tokens
            total.output_tokens += tally.output_tokens
            total.prompt_tokens += tally.prompt_tokens
            total.cache_tokens += tally.cache_tokens
        return total

    def of_model(self, name: str) -> Tally:
        """Of one model, by the name it is served under; empty if it was never asked."""
        return self._models.get(name) or Tally()

    def as_json(self) -> dict[str, Any]:
        """The document of `GET stats`. Before any request everything is zero."""
        total, last = self.total, self._last
        if last is None:
            last = Usage(
                input_tokens=0,
                output_tokens=0,
                prompt_tokens=0,
                cache_tokens=0,
                time_to_first_token=0.0,
                tokens_per_second=0.0,
            )
        return {
            "time_to_first_token": last.time_to_first_token or 0.0,
            "tokens_per_second": last.tokens_per_second or 0.0,
            "input_tokens": last.input_tokens,
            "output_tokens": last.output_tokens,
            "prompt_tokens": last.prompt_tokens,
            "cache_tokens": last.cache_tokens,
            "request_count_total": total.requests,
            "input_tokens_total": total.input_tokens,
            "output_tokens_total": total.output_tokens,
            "prompt_tokens_total": total.prompt_tokens,
            "cache_tokens_total": total.cache_tokens,
            "routing_decisions_total": 0,
            "routing_switches_total": 0,
        }

    def _note(self, event: RequestFinished) -> None:
        if event.status >= 400 or not event.complete:
            return
        tally = self._models.get(event.model)
        if tally is None:
            tally = self._models[event.model] = Tally()
        tally.add(event.usage)
        self._last = event.usage
