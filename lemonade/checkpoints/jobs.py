"""One download of one model: how far it is, who waits for it, and how it ends.

```
downloading ──► completed
     │  ╲─────► error
     ├────────► paused ──┐   (what came so far is kept; the next pull continues)
     └────────► cancelled ┘
```

A job belongs to the `Downloads` that started it, never to a request. Requests wait for it; when
the last one leaves, it is cancelled, unless it was started to run on its own.
"""

from __future__ import annotations

import asyncio
import copy
import logging
from collections.abc import Awaitable, Callable
from enum import StrEnum

from lemonade.core.errors import CheckpointError, Incomplete, LemonadeError
from lemonade.core.progress import Progress, ProgressListener

log = logging.getLogger(__name__)


class Status(StrEnum):
    """Where a job is; the words of the download protocol."""

    DOWNLOADING = "downloading"
    PAUSED = "paused"
    CANCELLED = "cancelled"
    COMPLETED = "completed"
    ERROR = "error"


class Job:
    """A download. Made and run by `Downloads`; only used on the event loop's thread."""

    def __init__(self, key: str, shown_name: str, clock: Callable[[], float]) -> None:
        self.key = key
        self.shown_name = shown_name
        self.status = Status.DOWNLOADING
        self.running = True
        self.detached = False
        self.error: LemonadeError | None = None
        self.progress: Progress | None = None
        self.ended_at = 0.0
        self._clock = clock
        self._earlier_files = 0
        self._task: asyncio.Task[None] | None = None
        self._listeners: list[ProgressListener] = []
        self._over = asyncio.Event()

    @property
    def id(self) -> str:
        """What clients call it."""
        return f"model:{self.shown_name}"

    def start(self, group: asyncio.TaskGroup, work: Callable[[Job], Awaitable[None]]) -> None:
        """Begin. The task ends in a status, not in an error."""
        self._task = group.create_task(self._run(work), name=self.id)

    async def wait(self, listen: ProgressListener) -> None:
        """Wait until it has ended, and hear how far it is; at once what is known now.

        Raises:
            LemonadeError: it ended in an error, or somebody stopped it.
        """
        self._listeners.append(listen)
        try:
            if self.progress is not None and self.running:
                listen(self.progress)
            await self._over.wait()
        finally:
            self._listeners.remove(listen)
            if not self._listeners and not self.detached:
                self.stop(Status.CANCELLED)
        if self.error is not None:
            # Every waiter gets one of its own: an error that is raised twice mixes tracebacks.
            raise copy.copy(self.error) from self.error
        if self.status is not Status.COMPLETED:
            raise Incomplete(
                f"The download of {self.shown_name} was {self.status}.",
                remedy="Pull it again to continue; what is already here is kept.",
            )

    async def ended(self) -> None:
        """Wait until nothing of it runs any more."""
        await self._over.wait()

    def stop(self, status: Status) -> None:
        """Pause or cancel it. Nothing happens if it has ended."""
        if self.running and self._task is not None:
            self.status = status
            self._task.cancel()

    def tell(self, progress: Progress) -> None:
        """Say how far it is."""
        if self.progress is not None and progress.file_index > self.progress.file_index:
            self._earlier_files += self.progress.bytes_total
        self.progress = progress
        for listen in tuple(self._listeners):
            listen(progress)

    def as_json(self) -> dict[str, object]:
        """The snapshot clients know."""
        progress = self.progress or Progress(file="", file_index=0, total_files=0)
        overall = self._earlier_files + progress.bytes_downloaded
        row: dict[str, object] = {
            "id": self.id,
            "type": "model",
            "model_name": self.shown_name,
            "status": str(self.status),
            "running": self.running,
            **progress.as_json(),
            "completed_files_bytes": self._earlier_files,
            "cumulative_bytes_downloaded": overall,
            "overall_bytes_downloaded": overall,
            "complete": self.status is Status.COMPLETED,
        }
        if self.error is not None:
            row["error"] = str(self.error)
            row["code"] = self.error.code
        return row

    async def _run(self, work: Callable[[Job], Awaitable[None]]) -> None:
        try:
            await work(self)
            self.status = Status.COMPLETED
        except asyncio.CancelledError:
            if self.status is Status.DOWNLOADING:  # the server is ending
                self.status = Status.CANCELLED
            raise
        except LemonadeError as error:
            self._fail(error)
        except Exception as error:  # the group outlives its members, bugs included
            log.exception("The download of %s failed", self.shown_name)
            self._fail(CheckpointError(f"The download failed: {error!r}."), error)
        finally:
            self.running = False
            self.ended_at = self._clock()
            self._over.set()

    def _fail(self, error: LemonadeError, cause: Exception | None = None) -> None:
        self.status = Status.ERROR
        error.__cause__ = error.__cause__ or cause
        self.error = error
