"""What every child of one supervisor shares."""

from __future__ import annotations

from collections.abc import Callable

from lemonade.core.bus import Bus
from lemonade.core.records import dataclass
from lemonade.supervisor.beside import Beside
from lemonade.supervisor.grove import Grove
from lemonade.supervisor.holding import DeviceLook
from lemonade.supervisor.journal import Journal
from lemonade.supervisor.ledger import Ledger, Owner


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What every child of one supervisor shares.

    Attributes:
        bus: told what happens.
        ledger: where the child is recorded.
        beside: threads for what blocks.
        owner: this server, as the records name it.
        journal: where the lines of all children go.
        watch_interval: least seconds between two probes of a ready child.
        devices: tells what processes hold of devices' memory.
        keep: whether a child that can outlive the server may, as things are now.
        grove: where a child gets a cgroup of its own; `None` if it cannot.
    """

    bus: Bus
    ledger: Ledger
    beside: Beside
    owner: Owner
    journal: Journal
    watch_interval: float
    devices: DeviceLook
    keep: Callable[[], bool]
    grove: Grove | None = None
