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
        self._of: dict[type[Event], tuple[Callable[..., None], ...]] = {}
        """Who hears what, as far as it was asked since somebody subscribed or left."""

    def subscribe(self, kind: type[E], listener: Callable[[E], None]) -> Callable[[], None]:
        """Call `listener` for every event of `kind` or a subclass; returns how to stop that."""
        entry = (kind, listener)
        self._listeners.append(entry)
        self._of.clear()

        def unsubscribe() -> None:
            if entry in self._listeners:
                self._listeners.remove(entry)
                self._of.clear()

        return unsubscribe

    def publish(self, event: Event) -> None:
        """Tell everybody who asked. Never raises."""
        kind = type(event)
        listeners = self._of.get(kind)
        if listeners is None:
            listeners = tuple(one for wanted, one in self._listeners if issubclass(kind, wanted))
            self._of[kind] = listeners
        for listener in listeners:
            try:
                listener(event)
            except Exception:  # an observer must never change what the server does
                log.exception("A listener failed on %s", kind.__name__)
