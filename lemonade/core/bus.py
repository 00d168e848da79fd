"""Publish and subscribe, synchronously. A failing listener is logged and never felt."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from lemonade.core.events import Event

log = logging.getLogger(__name__)

E = TypeVar("E", bound=Event)


class Bus:
    """Hands every event to the listeners of its type, in the order they subscribed.

    Made by the composition root; lives as long as the server. Not thread-safe: publish from the
    event loop's thread.
    """

    def __init__(self) -> None:
        self._listeners: list[tuple[type[Event], Callable[..., None]]] = []

    def subscribe(self, kind: type[E], listener: Callable[[E], None]) -> Callable[[], None]:
        """Call `listener` for every event of `kind` or a subclass; returns how to stop that."""
        entry = (kind, listener)
        self._listeners.append(entry)

        def unsubscribe() -> None:
            if entry in self._listeners:
                self._listeners.remove(entry)

        return unsubscribe

    def publish(self, event: Event) -> None:
        """Tell everybody who asked. Never raises."""
        for kind, listener in tuple(self._listeners):
            if isinstance(event, kind):
                try:
                    listener(event)
                except Exception:  # an observer must never change what the server does
                    log.exception("A listener failed on %s", type(event).__name__)
