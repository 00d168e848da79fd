"""Who leaves for whom: slots are claimed before an engine starts, and kept until it is ready."""

from __future__ import annotations

import logging
from collections.abc import Callable

from lemonade.core.errors import EverythingPinned
from lemonade.residency.resident import Phase, Resident
from lemonade.residency.residents import Residents
from lemonade.residency.room import plan_room

log = logging.getLogger(__name__)


class Claims:
    """The promises among the residents of a pool."""

    def __init__(self, residents: Residents, max_per_type: Callable[[], int]) -> None:
        self._residents = residents
        self._max_per_type = max_per_type

    async def claim(self, resident: Resident) -> list[Resident]:
        """Take a slot, or wait for one that another load is about to settle."""
        while (victims := self._promised(resident)) is None:
            await self._residents.change()
        resident.claims = True
        return victims

    def _promised(self, resident: Resident) -> list[Resident] | None:
        """Who will leave for it; `None` if that must be asked again when a load settles."""
        here = self._residents
        room = plan_room(
            resident, here.serving.values(), here.loading.values(), self._max_per_type()
        )
        if room is None:
            return None
        victims = [here.serving[key] for key in room.stop]
        for victim in victims:
            victim.promised_to = resident
            log.info("%s will make room: %s", victim.served_name, room.reason)
        return victims

    def confirmed(self, resident: Resident, victims: list[Resident]) -> list[Resident]:
        """Who leaves now that the engine is ready: others for those pinned since they were chosen.

        Raises:
            EverythingPinned: there are no others.
        """
        pinned = [v.served_name for v in victims if v.pinned and v.phase is Phase.SERVING]
        if not pinned:
            return victims
        self.release(resident)
        # There is no waiting for other loads here: they might be waiting for this one.
        others = self._promised(resident)
        if others is None:
            raise EverythingPinned(
                f"There is no room for {resident.served_name} any longer: "
                f"{' and '.join(pinned)} was pinned while it was loading.",
                remedy="Load it again, or raise the setting max_loaded_models.",
                facts={"pinned": pinned, "model": resident.served_name},
            )
        return others

    def release(self, resident: Resident) -> None:
        """Nobody has to leave for it any longer."""
        for other in self._residents.serving.values():
            if other.promised_to is resident:
                other.promised_to = None
