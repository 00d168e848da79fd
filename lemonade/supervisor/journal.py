"""The last lines of all children and of the server itself, in the order they came, and live.

It outlives each child: whoever follows a model goes on when it is loaded again. Memory is bounded,
in lines and in characters, here and for each follower: one that is too slow loses the oldest lines
and is told how many.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections import deque
from types import TracebackType
from typing import Final, Self

from lemonade.core.logs import LevelRule, LogLevel, LogRecord, LogStream

JOURNAL_LINES: Final = 5000
_JOURNAL_CHARACTERS: Final = 4 * 1024 * 1024
_FOLLOWER_LINES: Final = 1000
_FOLLOWER_CHARACTERS: Final = 4 * 1024 * 1024
_CHILDREN: Final = "lemonade.child."
_WARNING: Final[LogLevel] = "warning"


class Lines:
    """The latest lines, as many as there is room for: the oldest make way."""

    def __init__(self, lines: int, characters: int) -> None:
        self._lines = lines
        self._room = characters
        self._characters = 0
        self._records: deque[LogRecord] = deque()

    def __len__(self) -> int:
        return len(self._records)

    def put(self, record: LogRecord) -> int:
        """Keep one; returns how many had to go for it."""
        records = self._records
        records.append(record)
        self._characters += len(record.text)
        gone = 0
        while len(records) > self._lines or (self._characters > self._room and len(records) > 1):
            self._characters -= len(records.popleft().text)
            gone += 1
        return gone

    def take(self) -> LogRecord:
        """The oldest, which is then not kept any more."""
        record = self._records.popleft()
        self._characters -= len(record.text)
        return record

    def all(self) -> tuple[LogRecord, ...]:
        """Oldest first."""
        return tuple(self._records)


class Follower:
    """One live reader, registered from the moment it is made until it is left or closed."""

    def __init__(self, home: set[Follower], *, model: str = "", level: LogLevel = "debug") -> None:
        self._home = home
        self._model = model
        self._level: LogLevel = level
        self._waiting = Lines(_FOLLOWER_LINES, _FOLLOWER_CHARACTERS)
        self._dropped = 0
        self._closed = False
        self._changed = asyncio.Event()
        home.add(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._home.discard(self)

    def offer(self, record: LogRecord) -> None:
        """Take a line if it is one of those that are followed."""
        if self._model and (record.source != self._model or record.stream == "server"):
            return
        if record.at_least(self._level):
            self._dropped += self._waiting.put(record)
            self._changed.set()

    def close(self) -> None:
        """Nothing will come any more."""
        self._closed = True
        self._changed.set()

    async def next(self) -> LogRecord | None:
        """The next line, or how many are missing before it; `None` when there will be no more."""
        while not len(self._waiting):
            if self._closed:
                return None
            self._changed.clear()
            await self._changed.wait()
        if self._dropped:
            count, self._dropped = self._dropped, 0
            words = f"[{count} lines were left out: they came too fast]"
            return LogRecord(
                0, time.time(), self._model, None, "notice", words, said=_WARNING, dropped=count
            )
        return self._waiting.take()


class Journal:
    """Where all lines come together. Used from the event loop's thread only.

    Attributes:
        closed: set when the server ends.
    """

    def __init__(self) -> None:
        self._seq = 0
        self._lines = Lines(JOURNAL_LINES, _JOURNAL_CHARACTERS)
        self._followers: set[Follower] = set()
        self.closed = asyncio.Event()

    def note(
        self,
        source: str,
        pid: int | None,
        stream: LogStream,
        text: str,
        *,
        rules: tuple[LevelRule, ...] = (),
        said: LogLevel | None = None,
    ) -> LogRecord:
        """Enter a line; it is numbered, dated, and given to whoever follows."""
        self._seq += 1
        record = LogRecord(self._seq, time.time(), source, pid, stream, text, rules, said)
        self._lines.put(record)
        for follower in self._followers:
            follower.offer(record)
        return record

    def recent(self, after: int = 0) -> tuple[LogRecord, ...]:
        """What is kept of the lines with a greater number, oldest first."""
        return tuple(record for record in self._lines.all() if record.seq > after)

    def follow(self, *, model: str = "", level: LogLevel = "debug") -> Follower:
        """A reader of what comes from now on, to be used in a `with`.

        Args:
            model: whose lines; empty is everybody's, and the server's own.
            level: the least grave ones.
        """
        follower = Follower(self._followers, model=model, level=level)
        if self.closed.is_set():
            follower.close()
        return follower

    def close(self) -> None:
        """The server ends: followers get what is waiting for them, and are released."""
        self.closed.set()
        for follower in self._followers:
            follower.close()


class JournalHandler(logging.Handler):
    """Enters what the server itself logs, from whatever thread.

    Made in the event loop's thread. What children print comes to the journal by itself.
    """

    def __init__(self, journal: Journal) -> None:
        super().__init__()
        self._journal = journal
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._pid = os.getpid()

    def emit(self, record: logging.LogRecord) -> None:
        """Enter it, or give it up if the loop has ended."""
        if record.name.startswith(_CHILDREN):
            return
        try:
            line = (record.name, self.format(record), _level(record.levelno))
            if threading.get_ident() == self._thread:
                self._enter(*line)
            else:
                self._loop.call_soon_threadsafe(self._enter, *line)
        except RuntimeError:  # the loop is closed
            return
        except Exception:  # noqa: BLE001 - logging's own way with a message that cannot be made
            self.handleError(record)

    def _enter(self, name: str, text: str, level: LogLevel) -> None:
        for line in text.splitlines() or ("",):
            self._journal.note(name, self._pid, "server", line, said=level)


def _level(number: int) -> LogLevel:
    if number >= logging.ERROR:
        return "error"
    if number >= logging.WARNING:
        return "warning"
    return "info" if number >= logging.INFO else "debug"
