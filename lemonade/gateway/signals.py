"""What signals mean to the server."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable

from lemonade.gateway.parts import Parts
from lemonade.supervisor import LastResort, release_signals


def handle_signals(parts: Parts, last_resort: LastResort, hurry: Callable[[], None]) -> None:
    """The first signal ends the server in order, a second one kills the engines at once.

    A third one ends it as it is; the guardian sees to the engines. SIGHUP has it begin again,
    unless that says that its terminal is gone.
    """
    loop = asyncio.get_running_loop()
    had_terminal = _has_terminal()

    def asked() -> None:
        if parts.restart is not None:
            parts.restart.clear()
        if parts.shutdown.is_set():
            last_resort.ask()
            parts.pool.hurry()
            hurry()
        parts.shutdown.set()

    def hung_up() -> None:
        if parts.restart is None or (had_terminal and not _has_terminal()):
            asked()
        elif not parts.shutdown.is_set():
            parts.restart.set()
            parts.shutdown.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, asked)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        # `nohup` asks for a server that outlives its terminal.
        loop.add_signal_handler(signal.SIGHUP, hung_up)
    release_signals()


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True
