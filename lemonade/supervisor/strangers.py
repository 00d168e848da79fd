"""Whether it is the child that answers for it, or another server that took its port first."""

from __future__ import annotations

import logging

from lemonade.core.process import ProcessSpec
from lemonade.core.records import dataclass
from lemonade.supervisor.beside import Beside
from lemonade.supervisor.kin import Family
from lemonade.supervisor.ports import taken_by_others

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Strangers:
    """Those who may answer at the port of one child."""

    spec: ProcessSpec
    family: Family
    beside: Beside

    async def answer(self) -> bool:
        """Whether one of them has answered for it."""
        port, name = self.spec.endpoint.port, self.spec.name
        try:
            taken = await self.beside.proc(self._listen, port)
        except OSError as error:
            log.warning("%s: who listens on its port cannot be seen: %s", name, error)
            return True  # and is asked again
        if taken:
            log.warning("%s: another program listens on its port %d", name, port)
        return taken

    def _listen(self, port: int) -> bool:
        family = [facts.pid for facts in self.family.living()]
        return taken_by_others(port, [self.family.leader.pid, *family])
