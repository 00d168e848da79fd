"""Server-sent events, sans I/O: frames out, and events in from bytes in any cut.

Source: WHATWG HTML, "Server-sent events", section 9.2.6.
"""

from __future__ import annotations

import json

from lemonade.core.records import dataclass


@dataclass(frozen=True, slots=True)
class SseEvent:
    """One dispatched event: its name (`message` if unnamed) and its data."""

    name: str
    data: str


def render_event(name: str, data: object) -> bytes:
    """A named frame with JSON data, as pulls and installs send them."""
    return f"event: {name}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n".encode()


def render_data(data: object) -> bytes:
    """An unnamed frame with JSON data, as OpenAI streams have them."""
    return f"data: {json.dumps(data, ensure_ascii=False)}\n\n".encode()


class SseReader:
    """Feed bytes, get events. Comments are skipped; a half event is kept until the rest comes."""

    def __init__(self) -> None:
        self._rest = b""
        self._name = ""
        self._data: list[str] = []

    def feed(self, chunk: bytes) -> list[SseEvent]:
        """The events completed by `chunk`, in order."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        events: list[SseEvent] = []
        for raw in lines:
            line = raw.rstrip(b"\r").decode("utf-8", "replace")
            if not line:
                if self._data:
                    events.append(SseEvent(self._name or "message", "\n".join(self._data)))
                self._name, self._data = "", []
                continue
            field, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if field == "data":
                self._data.append(value)
            elif field == "event":
                self._name = value
        return events
