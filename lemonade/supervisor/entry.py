"""One child's place in the ledger: entered once, amended, and left for good.

The disk's thread does what it is asked in order, so an amendment under way when the child leaves
is overtaken by the removal, never the other way round.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from lemonade.core.errors import LemonadeError
from lemonade.supervisor.beside import Beside
from lemonade.supervisor.ledger import Ledger, Record

log = logging.getLogger(__name__)


class Entry:
    """Made with the child. `record` tells what is known of it at the moment of asking."""

    def __init__(self, ledger: Ledger, beside: Beside, record: Callable[[], Record]) -> None:
        self._ledger = ledger
        self._beside = beside
        self._record = record
        self._written: Record | None = None
        self._failing = False

    async def enter(self) -> None:
        """Write the record for the first time.

        Raises:
            OutOfDisk: there is no space.
            BadConfigFile: the ledger cannot be written.
        """
        record = self._record()
        await self._beside.disk(self._ledger.write, record)
        self._written = record

    async def amend(self) -> None:
        """Write it again if something has changed.

        A failure is logged, and the next call tries again: what was recorded before is still true.
        """
        record, before = self._record(), self._written
        if before in (None, record):
            return
        self._written = record
        try:
            await self._beside.disk(self._ledger.write, record)
            self._failing = False
        except LemonadeError as error:
            if self._written is record:  # and not left meanwhile
                self._written = before
            if not self._failing:
                log.warning("A record could not be amended: %s", error)
            self._failing = True

    async def leave(self) -> None:
        """Remove it: nothing of the child is left.

        Raises:
            OSError: it cannot be removed.
        """
        self._written = None
        await self._beside.disk(self._ledger.remove, self._record().child)
