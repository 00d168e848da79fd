"""One child's place in the ledger: entered once, amended, and left for good.

The disk's thread does what it is asked in order, so an amendment under way when the child leaves
is overtaken by the removal, never the other way round.
"""

from __future__ import annotations

import logging

from lemonade.core.errors import LemonadeError
from lemonade.core.ids import ChildId
from lemonade.core.process import ProcessSpec
from lemonade.supervisor.kin import Family
from lemonade.supervisor.ledger import Record
from lemonade.supervisor.spawn import Process
from lemonade.supervisor.surroundings import Surroundings

log = logging.getLogger(__name__)


class Entry:
    """Made with the child."""

    def __init__(
        self,
        around: Surroundings,
        child: ChildId,
        spec: ProcessSpec,
        process: Process,
        family: Family,
    ) -> None:
        self._ledger = around.ledger
        self._beside = around.beside
        self._owner = around.owner
        self._child = child
        self._spec = spec
        self._process = process
        self._family = family
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
        await self._beside.disk(self._ledger.remove, self._child)

    def _record(self) -> Record:
        """What is known of it now."""
        leaf = self._process.leaf
        return Record(
            child=self._child,
            name=self._spec.name,
            owner=self._owner,
            leader=self._process.identity,
            executables=self._family.executables(),
            executable_root=str(self._spec.executable_root),
            argv0=self._spec.argv[0],
            port=self._spec.endpoint.port,
            labels=self._spec.labels,
            descendants=self._family.descendants(),
            cgroup=str(leaf.path) if leaf is not None else "",
            cgroup_of=self._process.leaf_of,
        )
