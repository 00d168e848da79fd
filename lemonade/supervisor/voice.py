"""What one child says, from the descriptor it writes to up to those who want to know."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

from lemonade.core.process import ProcessSpec, StartStep
from lemonade.supervisor.logfile import LogFile, LogWriter
from lemonade.supervisor.logs import Output
from lemonade.supervisor.spawn import Process
from lemonade.supervisor.surroundings import Surroundings
from lemonade.supervisor.vigil import Steps

log = logging.getLogger(__name__)


class Voice:
    """Made with the child; read from at once, and written to a file once `speak` was called.

    Attributes:
        output: its lines.
        steps: where its start is, as far as they tell.
    """

    def __init__(
        self,
        spec: ProcessSpec,
        process: Process,
        around: Surroundings,
        progressed: Callable[[StartStep], None],
        recalled: bytes,
    ) -> None:
        self._name = spec.name
        self.output = Output(
            spec.name,
            spec.secrets,
            to_file=spec.log_file is not None,
            pid=process.pid,
            rules=spec.levels,
            journal=around.journal,
        )
        self.output.recall(recalled)
        self._reader = process.reader(self.output, around.beside)
        self._writer = (
            LogWriter(self.output, LogFile(spec.log_file), around.beside)
            if spec.log_file is not None
            else None
        )
        self.steps = Steps(spec.probe.milestones, progressed)
        self.output.heed = self.steps.heed if spec.probe.milestones else None

    def speak(self, company: asyncio.TaskGroup) -> list[asyncio.Task[None]]:
        """Begin; the tasks are to be cancelled before `finish`."""
        tasks = [company.create_task(self._read())]
        if self._writer is not None:
            tasks.append(company.create_task(self._writer.run()))
        return tasks

    async def drain(self) -> None:
        """Take what is there, if that can be had."""
        with contextlib.suppress(OSError):  # who reads has said so
            await self._reader.drain()

    async def flush(self) -> None:
        """Have what was taken in the file."""
        if self._writer is not None:
            await self._writer.flush()

    def finish(self) -> None:
        """There will be no more."""
        self._reader.finish()

    def let_go(self) -> int | None:
        """It goes on without us; what is to be handed to the next reader."""
        return self._reader.let_go()

    async def _read(self) -> None:
        try:
            await self._reader.run()
        except OSError as error:
            log.warning("%s: its output is no longer read: %s", self._name, error)
