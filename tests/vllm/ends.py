"""Follows the end of an engine from outside: when is everything dead, and when is that said?"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import psutil

from tests.serving import Serving, gone

GONE_WITHIN: Final = 5.0
"""Seconds between the moment the server can know of an end and the last process's death."""

_NOTICED_WITHIN: Final = 60.0
"""Seconds vLLM may take to notice that a part of it is dead."""


@dataclass
class End:
    """Seconds from the beginning of an end until each was dead, and until that was said."""

    api_server: float = 0.0
    everything: float = 0.0
    said: float = 0.0


def follow(server: Serving, family: Sequence[int], what: str, end: Callable[[], object]) -> End:
    """Do what ends an engine, and watch until nothing is alive and the server says so.

    Whenever the server says that nothing is loaded or on its way, nothing may be alive.
    """
    seen = End()
    begin = time.monotonic()
    ending = threading.Thread(target=end)
    ending.start()
    while not (seen.everything and seen.said):
        health = server.get("health").json()
        listed = health["all_models_loaded"] or health["models_loading"]
        # In this order: who is said to be gone must be dead already.
        alive = [pid for pid in family if not gone(pid)]
        now = time.monotonic() - begin
        if family[0] not in alive:
            seen.api_server = seen.api_server or now
        if not alive:
            seen.everything = seen.everything or now
        if not listed:
            assert not alive, f"{what}: said to be gone after {now:.2f} s, alive: {names(alive)}"
            seen.said = now
        since = now - seen.api_server if seen.api_server else 0.0
        assert since < GONE_WITHIN, f"{what}: {since:.1f} s later: {names(alive)}, {listed}"
        assert now < _NOTICED_WITHIN, f"{what}: nobody notices: {names(alive)}, {listed}"
        time.sleep(0.01)
    ending.join()
    print(
        f"\n| {what} | {seen.api_server:.2f} s | {seen.everything:.2f} s | {seen.said:.2f} s |",
        flush=True,
    )
    return seen


def named(family: Sequence[int], start: str) -> int:
    """The first process of that name."""
    return next(pid for pid in family if psutil.Process(pid).name().startswith(start))


def names(pids: Sequence[int]) -> list[str]:
    """For people."""
    shown = []
    for pid in pids:
        try:
            shown.append(f"{pid} {psutil.Process(pid).name()}")
        except psutil.NoSuchProcess:
            shown.append(f"{pid}")
    return shown


def kill(pid: int, number: signal.Signals = signal.SIGKILL) -> Callable[[], None]:
    """What kills a process."""
    return lambda: os.kill(pid, number)
