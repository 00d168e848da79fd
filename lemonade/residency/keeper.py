"""Tells what the next server has to know of engines, as long as they serve, at every change.

So it stands on the disk already if this server is killed.
"""

from __future__ import annotations

import logging
from typing import Self

from lemonade.core.inference import JsonObject
from lemonade.jobs import TaskOwner, outliving
from lemonade.residency.keeping import facts_of
from lemonade.residency.pool import Pool
from lemonade.residency.resident import Resident

log = logging.getLogger(__name__)


class Keeper(TaskOwner):
    """Made by the composition root after the pool, and ended before it."""

    def __init__(self, pool: Pool) -> None:
        super().__init__()
        self._pool = pool
        self._told: dict[Resident, JsonObject] = {}

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        work = outliving(self._follow, "what the next server has to know")
        self._following = self._tasks.create_task(work)
        return self

    async def _end_all(self) -> None:
        self._following.cancel()

    async def _follow(self) -> None:
        while True:
            changed = self._pool.changed
            for resident in self._pool.residents():
                await self._tell(resident)
            for gone in [one for one in self._told if one.gone.is_set()]:
                del self._told[gone]
            await changed.wait()

    async def _tell(self, resident: Resident) -> None:
        facts = facts_of(resident)
        if resident.instance is None or facts == self._told.get(resident):
            return
        if facts is None:
            del self._told[resident]
        else:
            self._told[resident] = facts
        try:
            await resident.instance.keep(facts)
        except OSError as error:
            log.warning("%s cannot be kept as it is: %s", resident.served_name, error)
