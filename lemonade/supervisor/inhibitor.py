"""What keeps the machine from going to sleep: a child that holds logind's lock while it lives.

`systemd-inhibit` takes the lock and runs a program that does nothing. It is a child like any
other: recorded, guarded, and ended with the server, however that ends; and with it the lock.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from lemonade.core.errors import LemonadeError
from lemonade.core.process import Endpoint, ProbeSpec, ProcessSpec, StopPolicy
from lemonade.supervisor.child import Child
from lemonade.supervisor.supervisor import Supervisor

log = logging.getLogger(__name__)

NAME: Final = "sleep-inhibitor"
_PROGRAM: Final = "systemd-inhibit"
_WHY: Final = "A model is answering or being loaded"
_SYSTEMD: Final = Path("/run/systemd/system")
_BUS: Final = Path("/run/dbus/system_bus_socket")
_BUS_VARIABLE: Final = "DBUS_SYSTEM_BUS_ADDRESS"


class Inhibitor:
    """The lock. Taken and let go from one task; nothing of it ever fails for its user."""

    def __init__(self, supervisor: Supervisor, environ: Mapping[str, str]) -> None:
        self._supervisor = supervisor
        self._environ = environ
        self._child: Child | None = None
        self._given_up = False

    @property
    def held(self) -> bool:
        """Whether the child that holds it lives."""
        return self._child is not None and self._child.report is None

    async def take(self) -> None:
        """Hold it, if this machine has logind. What fails is said once, and not tried again."""
        if self._given_up or self.held:
            return
        if self._child is not None:
            self._give_up(self._why_it_ended(self._child))
            return
        program = await asyncio.to_thread(self._program)
        if program is None:
            self._given_up = True  # most machines without logind never sleep: not worth a line
            return
        try:
            self._child = await self._supervisor.start(self._spec(program), _lives)
        except LemonadeError as error:
            self._give_up(error.message)

    async def let_go(self) -> None:
        """Hold it no more; returns when that is so."""
        child, self._child = self._child, None
        if child is None:
            return
        if child.report is not None:
            self._give_up(self._why_it_ended(child))
            return
        try:
            await child.stop()
        except LemonadeError as error:
            log.warning("%s", error)

    def _give_up(self, why: str) -> None:
        self._child, self._given_up = None, True
        log.warning("The machine may go to sleep while models work: %s", why)

    def _why_it_ended(self, child: Child) -> str:
        assert child.report is not None
        last = next((line for line in reversed(child.tail(5)) if line.strip()), "")
        return f"{_PROGRAM} {child.report.sentence()}. {last}".strip()

    def _program(self) -> str | None:
        there = _SYSTEMD.is_dir() and _BUS.exists()
        if not (there or self._environ.get(_BUS_VARIABLE)):
            return None
        return shutil.which(_PROGRAM, path=self._environ.get("PATH"))

    def _spec(self, program: str) -> ProcessSpec:
        kept = ("PATH", "LANG", "LD_LIBRARY_PATH", _BUS_VARIABLE)
        words = ("--what=sleep", "--mode=block", "--who=Lemonade", f"--why={_WHY}")
        return ProcessSpec(
            name=NAME,
            argv=(program, *words, "sleep", "infinity"),
            env={name: self._environ[name] for name in kept if name in self._environ},
            executable_root=Path(program).parent,
            endpoint=Endpoint("127.0.0.1", 0),
            probe=ProbeSpec("", stall_timeout=0.0),
            stop=StopPolicy(grace=1.0),
            quiet=True,
        )


async def _lives() -> bool:
    return True
