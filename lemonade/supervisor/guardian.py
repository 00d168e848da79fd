"""What ends our children when this server is killed: a process that waits for nothing else.

The kernel ends a child together with us, but not what the child has started, which may hold all
the memory. So a small process of its own session reads from a pipe that only this server can write
to. If the pipe ends without a word, the server is dead, however that happened; the guardian then
becomes the reaper for the records of this one server, and is gone a moment later. What the server
has kept for the next one is left alone.

While it waits it is a bare interpreter that has imported nothing, since it waits all the time.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import lemonade
from lemonade.supervisor.processes import Identity, own_identity, read_process
from lemonade.supervisor.reaper import reap_ledger

log = logging.getLogger(__name__)

_GOODBYE: Final = b"."
_WAIT: Final = (
    "import os, signal, sys\n"
    "for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):\n"
    "    signal.signal(number, signal.SIG_IGN)\n"
    "if not os.read(0, 1):\n"
    "    os.execv(sys.executable, [sys.executable, '-s', '-m', *sys.argv[1:]])\n"
)
"""The waiting. It outlives the signals that end a whole group of processes in order: then the
server ends its children itself, and the guardian has to be there if it does not come to that."""

_LEAVE_WITHIN: Final = 1.0
_DYING_WITHIN: Final = 5.0
"""Seconds that a killed server may take to be gone: its pipe is closed while it still ends."""

_GRACE: Final = 0.3
"""Seconds between SIGTERM and SIGKILL: nobody uses any more what is left."""


class Guardian:
    """The process that waits. Made and dismissed by the supervisor, off the event loop."""

    def __init__(self, ledger: Path) -> None:
        """Start it. Blocks for the milliseconds between fork and exec, in whatever thread.

        Raises:
            OSError: there can be no further process or pipe.
        """
        us = own_identity()
        words = ("lemonade.supervisor.guardian", str(ledger), str(us.pid), str(us.start_ticks))
        package = str(Path(lemonade.__file__).parents[1])
        reading, self._writing = os.pipe()
        try:
            self._process = subprocess.Popen(
                (sys.executable, "-I", "-S", "-c", _WAIT, *words),
                stdin=reading,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={"PYTHONPATH": package, "PYTHONDONTWRITEBYTECODE": "1"},
                cwd="/",
                start_new_session=True,
            )
        except BaseException:
            os.close(self._writing)
            raise
        finally:
            os.close(reading)

    @property
    def alive(self) -> bool:
        """Whether it still waits."""
        return self._process.poll() is None

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    def dismiss(self) -> None:
        """Have it end without doing anything. Blocks for a moment."""
        with contextlib.suppress(OSError):
            os.write(self._writing, _GOODBYE)
        os.close(self._writing)
        try:
            self._process.wait(_LEAVE_WITHIN)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def clear_up(ledger: Path, server: Identity, *, dying_within: float = _DYING_WITHIN) -> None:
    """End what is left of the children of a server that is dead; of one that lives, nothing.

    Blocks, at most `dying_within` seconds for the server to be gone.
    """
    give_up_at = time.monotonic() + dying_within
    while _lives(server) and time.monotonic() < give_up_at:
        time.sleep(0.01)
    asyncio.run(reap_ledger(ledger, grace=_GRACE, only=server, spare="marked"))


def _lives(server: Identity) -> bool:
    facts = read_process(server.pid)
    return facts is not None and facts.identity == server and not facts.ending


def main(words: Sequence[str]) -> int:
    """What the waiting process becomes. `words` are the ledger and the server's identity."""
    ledger, pid, start_ticks = words
    clear_up(Path(ledger), Identity(int(pid), int(start_ticks)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
