"""What a child prints: its last lines in memory, live, and on their way to a file.

Output is bytes of any kind from a program we do not trust: lines may never end, hold NULs, be no
UTF-8, or show a secret. All are bounded, cleaned and redacted here, once, before anybody sees
them. Nothing is ever parsed to decide anything, and a slow reader or a full disk loses lines
rather than hold up the engine.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final

from lemonade.core.logs import LevelRule, LogRecord
from lemonade.core.process import REDACTED
from lemonade.supervisor.journal import Follower, Journal, Lines

log = logging.getLogger(__name__)

RING_LINES: Final = 2000
RING_CHARACTERS: Final = 4 * 1024 * 1024
LINE_BYTES: Final = 64 * 1024

_CUT: Final = " …[cut]"
_READ_BYTES: Final = 8 * 1024
"""Read at a time. An engine that prints empty lines as fast as it can costs 9 ms of the loop for
each of these, and everybody else has a turn in between; a whole pipe at once took 70 ms."""
_READS_AT_THE_END: Final = 512
_PENDING_BYTES: Final = 2 * 1024 * 1024


class Output:
    """The lines of one child.

    Made with the child, fed from the event loop's thread, and ended by `close`. It outlives the
    process, so that its end can be read.
    """

    def __init__(
        self,
        name: str,
        secrets: Sequence[str] = (),
        *,
        to_file: bool = False,
        pid: int | None = None,
        rules: tuple[LevelRule, ...] = (),
        journal: Journal | None = None,
    ) -> None:
        """Set up.

        Args:
            name: of the child, in its records.
            secrets: shown to nobody.
            to_file: whether somebody takes lines to a file.
            pid: of the process, in its records.
            rules: how its lines tell how grave they are.
            journal: where all lines go besides.
        """
        self._name = name
        self._pid = pid
        self._rules = rules
        self._journal = journal if journal is not None else Journal()
        self._log = logging.getLogger(f"lemonade.child.{name}")
        self._secrets = tuple(secret for secret in secrets if secret)
        # A secret must not escape redaction by lying across the place where a line is cut.
        self._room = LINE_BYTES + max((len(s.encode()) for s in self._secrets), default=0)
        self._ring = Lines(RING_LINES, RING_CHARACTERS)
        self._partial = bytearray()
        self._overlong = False
        self._followers: set[Follower] = set()
        self._closed = False
        self._to_file = to_file
        self._pending = bytearray()
        self._unwritten = 0
        self.has_pending = asyncio.Event()
        self.printed_bytes = 0
        self.heed: Callable[[str], None] | None = None
        """Hears each line, and each version of one that is rewritten, as long as it is set."""

    def feed(self, data: bytes) -> None:
        """Take what the child wrote."""
        self.printed_bytes += len(data)
        *lines, rest = data.split(b"\n")
        for line in lines:
            self._extend(line)
            self._end_line()
        self._extend(rest)

    def recall(self, data: bytes) -> None:
        """What the child wrote to an earlier server: kept here, and told to nobody else."""
        for line in data.split(b"\n")[:-1]:
            text = self._clean(line)
            self._ring.put(LogRecord(0, None, self._name, self._pid, "output", text, self._rules))

    def close(self) -> None:
        """There will be no more: an unfinished line counts as one, followers are released."""
        if self._partial:
            self._end_line()
        self._closed = True
        for follower in self._followers:
            follower.close()

    def tail(self, lines: int) -> tuple[str, ...]:
        """The last lines, oldest first; an unfinished one is the last."""
        if lines <= 0:
            return ()
        shown = [record.text for record in self._ring.all()[-lines:]]
        if self._partial:
            shown.append(self._clean(bytes(self._partial)))
        return tuple(shown[-lines:])

    def records(self) -> tuple[LogRecord, ...]:
        """All lines that are kept, oldest first, without an unfinished one."""
        return self._ring.all()

    def remark(self, text: str) -> None:
        """Tell those who follow the model something that the child has not printed."""
        self._journal.note(self._name, self._pid, "notice", text, said="info")

    async def follow(self) -> AsyncIterator[str]:
        """Lines as they come, from now on, until the child is gone.

        A reader that falls behind loses the oldest lines and is told how many.
        """
        if self._closed:
            return
        with Follower(self._followers) as follower:
            while (record := await follower.next()) is not None:
                yield record.text

    def take_pending(self) -> bytes:
        """What has to be written to the file by now."""
        if self._unwritten:
            self._pending += f"[{self._unwritten} lines were not written: slow disk]\n".encode()
            self._unwritten = 0
        data = bytes(self._pending)
        self._pending.clear()
        self.has_pending.clear()
        return data

    def stop_writing(self) -> None:
        """The file cannot be written; keep lines in memory only."""
        self._to_file = False
        self._pending.clear()

    def _extend(self, piece: bytes) -> None:
        # Progress bars rewrite their line after a carriage return: the last version counts.
        start = piece.rstrip(b"\r").rfind(b"\r") + 1
        if start or (self._partial.endswith(b"\r") and piece.strip(b"\r")):
            if self.heed is not None and not self._overlong:
                for version in (bytes(self._partial) + piece[:start]).split(b"\r"):
                    self.heed(self._clean(version))
            self._partial.clear()
            self._overlong = False
            piece = piece[start:]
        if self._overlong:
            return
        self._partial += piece[: self._room + 1]
        if len(self._partial) > self._room:
            self._overlong = True

    def _end_line(self) -> None:
        self._publish(self._clean(bytes(self._partial)))
        self._partial.clear()
        self._overlong = False

    def _clean(self, raw: bytes) -> str:
        """One line for people, without secrets."""
        text = raw.rstrip(b"\r").decode("utf-8", "replace").replace("\0", "\ufffd")
        for secret in self._secrets:
            text = text.replace(secret, REDACTED)
        if self._overlong or len(text) > LINE_BYTES:
            return text[:LINE_BYTES] + _CUT
        return text

    def _publish(self, line: str) -> None:
        record = self._journal.note(self._name, self._pid, "output", line, rules=self._rules)
        self._ring.put(record)
        if self.heed is not None:
            self.heed(line)
        for follower in self._followers:
            follower.offer(record)
        if self._to_file:
            self._queue_for_file(line)
        if self._log.isEnabledFor(logging.DEBUG):
            self._log.debug("%s", line)

    def _queue_for_file(self, line: str) -> None:
        if len(self._pending) > _PENDING_BYTES:
            self._unwritten += 1
            return
        self._pending += line.encode("utf-8", "replace") + b"\n"
        self.has_pending.set()


class PipeReader:
    """Carries bytes from the child's pipe to its `Output` whenever there are some.

    Attached when the child is spawned. The pipe may stay open longer than the child lives, since
    its descendants hold it too: nobody waits for its end, `finish` takes what is there and closes.
    """

    def __init__(self, descriptor: int, output: Output) -> None:
        self._descriptor: int | None = descriptor
        self._output = output
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(descriptor, self._readable)

    def _readable(self) -> None:
        if self._carry() == b"":
            self._detach()

    def _carry(self) -> bytes | None:
        """Carry one piece over; empty when nothing will come any more, `None` if not now."""
        if self._descriptor is None:
            return b""
        try:
            data = os.read(self._descriptor, _READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return None
        except OSError:
            return b""
        self._output.feed(data)
        return data

    async def run(self) -> None:
        """The event loop says when there is something: nothing is to be done."""

    async def drain(self) -> None:
        """`finish` does that."""

    def finish(self) -> None:
        """Take what is there, then let go of the pipe."""
        self._take_rest()
        self._detach()
        self._output.close()

    def let_go(self) -> int | None:
        """Take what is there, and hand the pipe over."""
        self._take_rest()
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            self._loop.remove_reader(descriptor)
        self._output.close()
        return descriptor

    def _take_rest(self) -> None:
        for _ in range(_READS_AT_THE_END):
            if not self._carry():
                break

    def _detach(self) -> None:
        if self._descriptor is not None:
            self._loop.remove_reader(self._descriptor)
            with contextlib.suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = None
