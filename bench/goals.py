"""What the server is meant to reach, figure by figure, and whether a run says that it does.

A goal is a bound for the whole server (`lemonade`), either of the figure itself or of its ratio to
nginx in the same round.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Goal:
    """A bound of a figure: of itself, or of its ratio to another server's."""

    bound: float
    reference: str = ""
    at_least: bool = False

    def text(self) -> str:
        """The bound in few words."""
        word = "at least" if self.at_least else "at most"
        return f"{word} {self.bound:g}{'xN' if self.reference == 'nginx' else ''}"

    def verdict(self, value: float | None) -> str:
        """The bound and whether `value` keeps it; by how much it is missed otherwise."""
        if value is None:
            return f"{self.text()}: not measured"
        kept = value >= self.bound if self.at_least else value <= self.bound
        if kept:
            return f"{self.text()}: met"
        return f"{self.text()}: missed, {value / self.bound:.2f} times the bound"


GOALS = {
    "added1": Goal(1.2, "nginx"),
    "cpu_request": Goal(1.25, "nginx"),
    "cpu_chunk_200": Goal(1.15, "nginx"),
    "cpu_chunk_1000": Goal(1.2, "nginx"),
    "served_1000": Goal(1000, at_least=True),
    "ttft256": Goal(0.5, "nginx"),
    "rss_1000": Goal(64),
    "start": Goal(0.5),
    "idle": Goal(0.2),
}
"""By key of the figure."""
