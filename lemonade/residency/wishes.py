"""`LoadRequest`: what a caller wants of a load."""

from __future__ import annotations

from dataclasses import field

from lemonade.catalog import Adapter
from lemonade.core.inference import JsonObject
from lemonade.core.records import dataclass


@dataclass(frozen=True, slots=True)
class LoadRequest:
    """What a caller wants of a load.

    Attributes:
        options: recipe options as sent; see `resolve_options` for absent, null and value.
        pinned: `None` leaves it as it is.
        adapters: all that it shall run with; `None` are those it is known to have.
    """

    options: JsonObject = field(default_factory=dict)
    pinned: bool | None = None
    adapters: tuple[Adapter, ...] | None = None
