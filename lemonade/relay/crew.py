"""How many workers there are, and what they have done, for those who show it."""

from __future__ import annotations

from dataclasses import field

from lemonade.core.records import dataclass


@dataclass(slots=True)
class Crew:
    """The worker processes of this server.

    Attributes:
        wanted: how many there should be.
        ready: how many accept connections.
        requests: relayed so far, by the number of the worker; one that is replaced counts on.
    """

    wanted: int = 0
    ready: int = 0
    requests: dict[int, int] = field(default_factory=dict)

    def page(self) -> str:
        """The same for Prometheus; empty if there shall be none."""
        if not self.wanted:
            return ""
        relayed = "lemonade_worker_requests_total"
        lines = [
            "# HELP lemonade_workers Processes beside the server that accept connections.",
            "# TYPE lemonade_workers gauge",
            f"lemonade_workers {self.ready}",
            f"# HELP {relayed} Requests relayed by a worker, since the start.",
            f"# TYPE {relayed} counter",
            *(
                f'{relayed}{{worker="{number}"}} {self.requests.get(number, 0)}'
                for number in range(1, self.wanted + 1)
            ),
        ]
        return "\n".join(lines) + "\n"
