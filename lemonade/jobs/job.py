"""One job: how far it is, who waits for it, and how it ends.

```
downloading ──► completed
     │  ╲─────► error
     ├────────► paused ──┐   (what came so far is kept; asking for the same again continues)
     └────────► cancelled ┘
```

A job belongs to the `Jobs` that started it, never to a request. Requests wait for it; when the
last one leaves, it is cancelled, unless it was started to run on its own.
"""

from __future__ import annotations

import asyncio
import copy
import logging
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Generic, TypeVar

from lemonade.core.errors import LemonadeError
from lemonade.core.progress import Progress, ProgressListener
from lemonade.core.records import dataclass

log = logging.getLogger(__name__)

T = TypeVar("T")


class Status(StrEnum):
    """Where a job is; the words of the download protocol."""

    DOWNLOADING = "downloading"
    PAUSED = "paused"
    CANCELLED = "cancelled"
    COMPLETED = "completed"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Kind:
    """What all jobs of one owner have in common.

    Attributes:
        type: the word that clients know; with a name it is a job's id.
        stopped: what is said to those who wait for one that was stopped: its name, and how.
        broken: what an unexpected exception becomes.
    """

    type: str
    stopped: Callable[[str, Status], LemonadeError]
    broken: Callable[[Exception], LemonadeError]

    def id(self, name: str) -> str:
        """What clients call the job for something of that name."""
        return f"{self.type}:{name}"


class Job(Generic[T]):
    """One job. Made and run by `Jobs`; only used on the event loop's thread."""

    def __init__(self, kind: Kind, key: str, name: str, clock: Callable[[], float]) -> None:
        self.key = key
        self.name = name
        self.status = Status.DOWNLOADING
        self.running = True
        self.detached = False
        self.error: LemonadeError | None = None
        self.progress: Progress | None = None
        self.ended_at = 0.0
        self._kind = kind
        self._clock = clock
        self._earlier_files = 0
        self._task: asyncio.Task[None] | None = None
        self._listeners: list[ProgressListener] = []
        self._results: list[T] = []
        self._over = asyncio.Event()

    @property
    def id(self) -> str:
        """What clients call it."""
        return self._kind.id(self.name)

    @property
    def may_be_joined(self) -> bool:
        """Whether it is still on its way to what was asked for."""
        return self.running and self.status is Status.DOWNLOADING

    def start(
        self,
        group: asyncio.TaskGroup,
        work: Callable[[Job[T]], Awaitable[T]],
        after: Job[T] | None = None,
    ) -> None:
        """Begin, when `after` has ended. The task ends in a status, not in an error."""
        self._task = group.create_task(self._run(work, after), name=self.id)
        # Not the task's last lines: one that is cancelled before its first step runs none.
        self._task.add_done_callback(self._end)

    async def wait(self, listen: ProgressListener) -> T:
        """Wait until it has ended, and hear how far it is; at once what is known now.

        Raises:
            LemonadeError: it ended in an error, or somebody stopped it.
        """
        self._listeners.append(listen)
        try:
            if self.progress is not None and self.running:
                _say(listen, self.progress)
            await self._over.wait()
        finally:
            self._listeners.remove(listen)
            if not self._listeners and not self.detached:
                self.stop(Status.CANCELLED)
        if self.error is not None:
            # Every waiter gets one of its own: an error that is raised twice mixes tracebacks.
            raise copy.copy(self.error) from self.error
        if self.status is not Status.COMPLETED:
            raise self._kind.stopped(self.name, self.status)
        return self._results[0]

    async def ended(self) -> None:
        """Wait until nothing of it runs any more."""
        await self._over.wait()

    def stop(self, status: Status) -> None:
        """Pause or cancel it. Nothing happens if it has ended.

        A stop that comes when the deed is done does not undo it: the job is completed then.
        """
        if not self.running or self._task is None:
            return
        if self.status is Status.DOWNLOADING:
            self._task.cancel()  # once: it may be in the middle of cleaning up
        self.status = status

    def tell(self, progress: Progress) -> None:
        """Say how far it is."""
        if self.progress is not None and progress.file_index > self.progress.file_index:
            self._earlier_files += self.progress.bytes_total
        self.progress = progress
        for listen in tuple(self._listeners):
            _say(listen, progress)

    def as_json(self) -> dict[str, object]:
        """The snapshot clients know."""
        progress = self.progress or Progress(file="", file_index=0, total_files=0)
        earlier, overall = self._earlier_files, self._earlier_files + progress.bytes_downloaded
        if whole := progress.total_download_size:
            # Steps after the last download have bytes too, of files that are unpacked here.
            earlier, overall = min(earlier, whole), min(overall, whole)
        row: dict[str, object] = {
            "id": self.id,
            "type": self._kind.type,
            "model_name": self.name,
            "status": str(self.status),
            "running": self.running,
            **progress.as_json(),
            "completed_files_bytes": earlier,
            "cumulative_bytes_downloaded": overall,
            "overall_bytes_downloaded": overall,
            "complete": self.status is Status.COMPLETED,
        }
        if self.error is not None:
            row["error"] = str(self.error)
            row["code"] = self.error.code
        return row

    async def _run(self, work: Callable[[Job[T]], Awaitable[T]], after: Job[T] | None) -> None:
        try:
            if after is not None:
                await after.ended()
            self._results.append(await work(self))
            self.status = Status.COMPLETED
        except LemonadeError as error:
            self._fail(error)
        except Exception as error:  # the group outlives its members, bugs included
            log.exception("%s failed", self.id)
            self._fail(self._kind.broken(error), error)

    def _fail(self, error: LemonadeError, cause: Exception | None = None) -> None:
        if self.status is Status.DOWNLOADING:  # what was stopped may stumble on its way out
            self.status = Status.ERROR
            error.__cause__ = error.__cause__ or cause
            self.error = error

    def _end(self, _task: asyncio.Task[None]) -> None:
        if self.status is Status.DOWNLOADING:  # cancelled by nobody who said so
            self.status = Status.CANCELLED
        self.running = False
        self.ended_at = self._clock()
        self._over.set()


def _say(listen: ProgressListener, progress: Progress) -> None:
    try:
        listen(progress)
    except Exception:  # somebody's display must not end everybody's job
        log.exception("A listener failed")
