"""What an engine holds until nothing of it is left: its port, and the version it runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from lemonade.core.bundle import Bundle
from lemonade.core.errors import NotInstalled
from lemonade.core.process import Endpoint
from lemonade.core.records import dataclass
from lemonade.installer import VersionLease, lease
from lemonade.residency.placement import PortLease

_LOOKS: Final = 20
_BETWEEN: Final = 0.02
"""Seconds. Somebody who only asks whether a version is in use holds it for a moment, too."""


@dataclass(frozen=True, slots=True)
class Holding:
    """A port and a version; a `PortLease` that ends both."""

    port: PortLease
    version: VersionLease | None = None

    @property
    def lock(self) -> str:
        """The file that stands for the version; empty if it is not ours to remove."""
        return "" if self.version is None else str(self.version.path)

    @property
    def endpoint(self) -> Endpoint:
        """Where the engine is to listen."""
        return self.port.endpoint

    def release(self) -> None:
        """Give both back. Idempotent."""
        self.port.release()
        if self.version is not None:
            self.version.release()


async def hold(
    bundle: Bundle, active: Callable[[], Bundle | None]
) -> tuple[Bundle, VersionLease | None]:
    """Keep the version that is to be started from being removed.

    It may have been replaced and removed since it was chosen; then it is the one that is active
    now. Programs that are not ours to remove are not held.

    Raises:
        NotInstalled: there is none any more.
        UnsupportedHere: as `active` raises it.
    """
    current: Bundle | None = bundle
    for _ in range(_LOOKS):
        if current is not None and not current.removable:
            return current, None
        if current is not None and (held := lease(current)) is not None:
            return current, held
        await asyncio.sleep(_BETWEEN)
        current = active()
    raise NotInstalled(
        f"{bundle.backend} {bundle.version} was removed just before it was to be started.",
        remedy=f"`lemonade backends install {bundle.backend}` gets it again.",
    )
