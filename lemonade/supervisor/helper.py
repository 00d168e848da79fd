"""A process of our own program beside the server: it inherits descriptors, and dies with us.

Unlike an engine it is ours to trust: it needs no ledger, no log of its own and no probe. It ends
when we tell it, when what connects us ends, and by the kernel's hand if we are killed.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import lemonade
from lemonade.core.records import dataclass
from lemonade.supervisor.processes import effort_of, read_process
from lemonade.supervisor.spawn import before_exec

_LOOK_EVERY: Final = 0.01

_WANTS: Final = ("R", "D")
"""States of a process that has a core or waits for one, or for a disk."""


@dataclass(frozen=True, slots=True)
class HelperFacts:
    """What the kernel says of it at one moment.

    Attributes:
        resting: it neither computes nor wants to: it waits for something else, or was stopped.
        cpu_seconds: it has computed so far.
    """

    resting: bool
    cpu_seconds: float


class Helper:
    """One process. Made by whoever needs it, who also waits for its end."""

    def __init__(self, module: str, words: Sequence[str], descriptors: Sequence[int]) -> None:
        """Start it. Blocks for the milliseconds between fork and exec.

        Args:
            module: of ours, to be run as a program.
            words: for it.
            descriptors: that it inherits, under the same numbers.

        Raises:
            OSError: there can be no further process.
        """
        package = str(Path(lemonade.__file__).parents[1])
        path = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH", ""))))
        self._process = subprocess.Popen(
            (sys.executable, "-m", module, *words),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": path},
            pass_fds=tuple(descriptors),
            start_new_session=True,
            preexec_fn=before_exec(os.getpid(), signal.SIGKILL, None, lambda: None),  # noqa: PLW1509
        )

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    def look(self) -> HelperFacts | None:
        """What it does now; `None` if it is gone, or if nobody can tell."""
        try:
            facts, effort = read_process(self.pid), effort_of((self.pid,))
        except OSError:  # we may open nothing more
            return None
        if facts is None or facts.ending:
            return None
        return HelperFacts(facts.state not in _WANTS, effort.cpu_seconds)

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()

    async def ended(self, within: float) -> str:
        """Wait for its end, and kill it if that does not come in time; how it ended, as a verb."""
        loop = asyncio.get_running_loop()
        late = loop.time() + within
        while (status := self._process.poll()) is None:
            if loop.time() > late:
                self._process.kill()
            await asyncio.sleep(_LOOK_EVERY)
        if status < 0:
            return f"was ended by signal {-status}"
        return f"ended with status {status}"
