"""Takes out of a stream the one event its client did not ask for: usage, and nothing else.

Works on what the body says, whatever blocks and chunks it comes in. An event is passed on as soon
as it is whole, in the bytes it came in; before that no client could do anything with it.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

HELD_LIMIT: Final = 64 * 1024
"""An event that is longer is passed on in pieces: the one looked for has some hundred bytes."""

_KEY: Final = b'"usage"'
_ENDS: Final = (b"\n\n", b"\r\n\r\n", b"\r\r")
_EVENT: Final = re.compile(rb".+?(?:\n\n|\r\n\r\n|\r\r)", re.DOTALL)


class _Event(msgspec.Struct):
    choices: msgspec.Raw = msgspec.Raw()
    usage: msgspec.Raw = msgspec.Raw()


_DECODER: Final = msgspec.json.Decoder(_Event)


class UsageSieve:
    """Sieves one stream.

    Invariant: it holds on to the beginning of at most one event, up to `HELD_LIMIT` bytes.
    """

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """What may be passed on now that this came."""
        if self._held:
            data = self._held + data
            self._held = b""
        elif data.endswith(b"\n\n") and _KEY not in data:
            return data  # all but one or two events of a stream
        end = max(data.rfind(mark) + len(mark) if mark in data else 0 for mark in _ENDS)
        whole, rest = data[:end], data[end:]
        if _KEY in whole:
            whole = b"".join(e for e in _EVENT.findall(whole) if not _is_usage_alone(e))
        if len(rest) > HELD_LIMIT:
            return whole + rest
        self._held = rest
        return whole

    def rest(self) -> bytes:
        """What is left when the body is complete: an event without its end."""
        rest, self._held = self._held, b""
        return rest


def _is_usage_alone(event: bytes) -> bool:
    """Whether it is a chunk that has usage and no choice."""
    line = event.strip(b"\r\n")
    if not line.startswith(b"data:") or _KEY not in line or b"\n" in line or b"\r" in line:
        return False
    try:
        read = _DECODER.decode(line[5:])
        no_choice = bool(read.choices) and msgspec.json.decode(read.choices) == []
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return no_choice and bytes(read.usage).startswith(b"{")
