"""Whether it is the child that answers for it, or another server that took its port first.

The owner of the listening socket is the proof. A stranger that stays is named, and the child is
ended for it: nobody must be sent to somebody else's server.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from lemonade.core.process import FOREIGN_SERVER, ProcessSpec
from lemonade.supervisor.beside import Beside
from lemonade.supervisor.kin import Family
from lemonade.supervisor.ports import listener_on, taken_by_others

log = logging.getLogger(__name__)

_PATIENCE: Final = 1.0
"""Seconds a stranger may stay: it may be one that is ending."""


class Strangers:
    """Those who may answer at the port of one child.

    Attributes:
        who: the one that was seen last, for people; empty if there was none.
    """

    def __init__(
        self,
        spec: ProcessSpec,
        family: Family,
        beside: Beside,
        found: Callable[[str, str], None],
    ) -> None:
        """Nobody was seen yet. `found` is told why the child is of no use, and the word for it."""
        self.who = ""
        self._spec = spec
        self._family = family
        self._beside = beside
        self._found = found
        self._since = 0.0

    async def answer(self) -> bool:
        """Whether one of them answers for the child."""
        try:
            who = await self._beside.proc(self._other_than_us)
        except OSError as error:
            log.warning("%s: who listens on its port cannot be seen: %s", self._spec.name, error)
            return True  # and is asked again
        now = asyncio.get_running_loop().time()
        if not who:
            self.who = ""
            return False
        if not self.who:
            self._since = now
            log.warning("%s: %s", self._spec.name, self._said(who))
        self.who = who
        if now - self._since >= _PATIENCE:
            self._found(self._said(who), FOREIGN_SERVER)
        return True

    async def look_back(self) -> None:
        """See who listens now that the child has ended: it may have found its port taken.

        Raises:
            OSError: that cannot be seen.
        """
        self.who = await self._beside.proc(listener_on, self._spec.endpoint.port)

    def _other_than_us(self) -> str:
        port = self._spec.endpoint.port
        family = [facts.pid for facts in self._family.living()]
        if not taken_by_others(port, [self._family.leader.pid, *family]):
            return ""
        return listener_on(port)

    def _said(self, who: str) -> str:
        return f"{who} listens on its port {self._spec.endpoint.port}"
