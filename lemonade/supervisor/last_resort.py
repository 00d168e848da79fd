"""The end of a server that does not come to its end.

Everything that ends in order has a limit of its own. What has none is a thread that hangs in the
kernel, on a disk or a driver that does not answer: the interpreter would wait for it for ever. So
once a server was told to end there is a last limit, after which the process is gone whatever it
waits for. Its engines are ended by then, or by the guardian.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import sys
import threading
from typing import Final

log = logging.getLogger(__name__)

LIMIT: Final = 60.0
"""Seconds after the first request to end: engines have their grace, and clients theirs."""

HURRIED_LIMIT: Final = 15.0
"""Seconds after the second one, which kills engines at once."""

STATUS: Final = 70


class LastResort:
    """A timer in a thread that nobody waits for. Made by the composition root, set by signals."""

    def __init__(self, *, limit: float = LIMIT, hurried: float = HURRIED_LIMIT) -> None:
        self._limits = (limit, hurried, 0.0)
        self._asked = 0
        self._timer: threading.Timer | None = None

    def begin(self, more: float = 0.0) -> None:
        """The server ends, whoever asked for it, and may take so many seconds more."""
        if not self._asked:
            self.ask(more)

    def ask(self, more: float = 0.0) -> None:
        """Somebody wants the server to end: the first time in order, the third time now."""
        seconds = more + self._limits[min(self._asked, len(self._limits) - 1)]
        self._asked += 1
        if self._timer is not None:
            self._timer.cancel()
        self._timer = threading.Timer(seconds, _leave)
        self._timer.daemon = True
        self._timer.start()


def _leave() -> None:
    log.critical("The server does not come to its end, and is ended. What its threads wait for:")
    faulthandler.dump_traceback(sys.stderr)
    os._exit(STATUS)
