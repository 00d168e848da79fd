"""Who has tasks: they begin after it was entered, and have ended when it is left."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self


class TaskOwner(ABC):
    """An async context manager with a group of tasks. Leaving ends what runs, then waits for it.

    Its tasks end in a state, not in an exception: one that fails would take the others with it.
    """

    def __init__(self) -> None:
        self._tasks = asyncio.TaskGroup()

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            await self._end_all()
            # The group is not told of an error: it would wrap it into a group of its own.
            await self._tasks.__aexit__(None, None, None)
        finally:
            self._let_go()

    @abstractmethod
    async def _end_all(self) -> None:
        """Have every task end; they are waited for afterwards."""

    def _let_go(self) -> None:
        """Close what the tasks needed; none runs any more."""
        return
