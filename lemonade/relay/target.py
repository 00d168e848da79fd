"""What the relay has to know of a loaded model, and of the right to use it.

The server's own residents and leases have all of it; a worker process has what it was granted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from lemonade.core.inference import Operation
from lemonade.upstream import Upstream


class Limits(Protocol):
    """Where an engine wants its limits lowered."""

    @property
    def above(self) -> int:
        """A limit up to this needs no look at the context."""
        ...


class Manner(Protocol):
    """How an engine wants to be asked."""

    @property
    def operations(self) -> Mapping[Operation, str]:
        """The path that serves each operation."""
        ...

    @property
    def own_name(self) -> bool:
        """Whether it knows its model by one name only."""
        ...

    @property
    def old_limit(self) -> bool:
        """Whether it wants limits in the older field too."""
        ...

    @property
    def usage(self) -> str:
        """How it says what a request cost."""
        ...

    @property
    def limits(self) -> Limits | None:
        """Where limits are lowered; `None` if they never are."""
        ...

    @property
    def adapts(self) -> bool:
        """Whether anything of a request has to be looked at for it."""
        ...


class Recipe(Protocol):
    """What runs a model."""

    @property
    def title(self) -> str:
        """As people know it."""
        ...

    @property
    def upstream(self) -> Manner:
        """How its engines want to be asked."""
        ...


class Target(Protocol):
    """A loaded model."""

    @property
    def served_name(self) -> str:
        """The name its engine answers to."""
        ...

    @property
    def recipe(self) -> Recipe:
        """What runs it."""
        ...

    @property
    def context(self) -> int:
        """How many tokens its engine holds, as it says itself; 0 until it was asked."""
        ...


class Right(Protocol):
    """The right to use a model for one request."""

    @property
    def upstream(self) -> Upstream:
        """The engine's connections."""
        ...

    def streaming(self) -> None:
        """Note that the first chunk of a stream came."""

    def end(self) -> None:
        """Give it back. Idempotent."""
