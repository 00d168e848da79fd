"""`Jobs`: those of one owner. One job for one thing, however many ask; listed and controlled."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar

from lemonade.core.errors import MalformedRequest
from lemonade.core.inference import JsonObject
from lemonade.jobs.job import Job, Kind, Status

T = TypeVar("T")

_ACTIONS: Final = ("pause", "cancel", "remove")
_KEPT_AFTER_COMPLETION: Final = 30.0
"""How long a completed job stays in the list, seconds."""


class Jobs(Generic[T]):
    """Starts, lists and stops jobs of one kind.

    Their tasks belong to the owner's group; `stop_all` before that is left. `clock` gives seconds,
    for how long completed jobs stay listed.
    """

    def __init__(
        self,
        kind: Kind,
        tasks: asyncio.TaskGroup,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._kind = kind
        self._tasks = tasks
        self._clock = clock
        self._jobs: dict[str, Job[T]] = {}

    def begin(self, key: str, name: str, work: Callable[[Job[T]], Awaitable[T]]) -> Job[T]:
        """The job that does this: one that runs, or a new one.

        One that is being stopped is waited for by the new one.

        Args:
            key: what makes two requests the same.
            name: for clients; jobs of different keys may share it.
            work: carries it out, and tells the job how far it is. A `LemonadeError` ends the job
                with that error.
        """
        self._forget_old()
        before = self._jobs.get(key)
        if before is not None and before.may_be_joined:
            return before
        self.forget(name)
        job = self._jobs[key] = Job(self._kind, key, name, self._clock)
        job.start(self._tasks, work, before if before is not None and before.running else None)
        return job

    def get(self, key: str) -> Job[T] | None:
        """The job for that key, running or not."""
        return self._jobs.get(key)

    def is_running(self, name: str) -> bool:
        """Whether anything of that name is under way."""
        return any(job.running and job.name == name for job in self._jobs.values())

    def forget(self, name: str) -> None:
        """Forget the jobs of that name that have ended."""
        for job in tuple(self._jobs.values()):
            if job.name == name and not job.running:
                del self._jobs[job.key]

    def stop_all(self) -> None:
        """Cancel what runs; the owner waits for the tasks."""
        for job in self._jobs.values():
            job.stop(Status.CANCELLED)

    def snapshots(self) -> tuple[JsonObject, ...]:
        """The jobs that were started on their own; completed ones for half a minute."""
        self._forget_old()
        return tuple(job.as_json() for job in self._jobs.values() if job.detached)

    def control(self, id: str, action: str) -> JsonObject | None:  # noqa: A002 - it is one
        """Pause, cancel or remove a job that was started on its own.

        Returns:
            Its snapshot, or the protocol's reply to a removal; `None` if there is no such job.

        Raises:
            MalformedRequest: the action is none of the three.
        """
        if action not in _ACTIONS:
            raise MalformedRequest(
                f"'{action}' is nothing that can be done to a download.",
                remedy="It may be pause, cancel or remove.",
            )
        self._forget_old()
        found = [job for job in self._jobs.values() if job.id == id and job.detached]
        if not found:
            return None
        if action == "remove" and not any(job.running for job in found):
            self.forget(found[0].name)
            return {"status": "ok"}
        for job in found:
            job.stop(Status.PAUSED if action == "pause" else Status.CANCELLED)
        return found[-1].as_json()

    def _forget_old(self) -> None:
        now = self._clock()
        for key, job in tuple(self._jobs.items()):
            if job.running:
                continue
            done = job.status is Status.COMPLETED
            if not job.detached or (done and now - job.ended_at > _KEPT_AFTER_COMPLETION):
                del self._jobs[key]
