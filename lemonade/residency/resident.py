"""`Resident`: a model that is loaded or on its way; `Lease`: the right to use it.

```
LOADING ──ready──▶ SERVING ──evicted, unloaded, replaced──▶ DRAINING ──last lease ended──▶ GONE
   └── failed, cancelled ──▶ GONE          └── child ended ──▶ GONE
```

Only the pool changes a resident. A lease is used in `SERVING` and `DRAINING`; none is granted
after `SERVING`, except to those who waited for the load.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import field
from enum import StrEnum
from types import TracebackType
from typing import Self

from lemonade.catalog import BackendSpec, ModelSpec, RecipeSpec
from lemonade.core.errors import LemonadeError
from lemonade.core.process import ExitReport
from lemonade.core.records import dataclass
from lemonade.planning import EffectiveOptions
from lemonade.residency.fitted import Fitted
from lemonade.residency.placement import Instance, PortLease
from lemonade.residency.wishes import LoadRequest
from lemonade.upstream import Upstream


class Phase(StrEnum):
    """May it be used?"""

    LOADING = "loading"
    SERVING = "serving"
    DRAINING = "draining"
    GONE = "gone"


@dataclass(slots=True, eq=False)
class Resident:
    """One load of one model, from the first wish to the last byte of memory given back.

    Attributes:
        spec: the model.
        served_name: the name its child answers to.
        request: what its load was asked with; asked again if it has to be restored.
        options: what it is loaded with; known once planned.
        context: how many tokens its engine holds, as it says itself; 0 until it was asked.
        adapters: what its engine has besides the model, by name.
        pinned: never evicted.
        leases: requests using it, or waiting for its load to do so.
        streams: of them, those whose first chunk has come and whose stream has not ended.
        waiters: callers that want this load to finish.
        claims: whether it holds a slot while still loading.
        called_off: its load is about to end; whoever comes now waits for that and begins anew.
        superseded: its load gave way to one with other options; whoever waited waits for that.
        promised_to: the load that will replace it once that is ready.
        kept: loaded again if it crashes, though nobody asks for it.
        fingerprint: what its failures are counted by; known once its files are here.
        incident: of its failure.
        hung: what its engine was ended for by us, as a verb; empty if it was not.
        failed_by: how its engine failed, in a word for programs; empty if it did not.
        failure: the same in sentences, with the cause if that is known.
        metrics_seen: the page of its engine's metrics that was read last.
        metrics_seen_at: when, in seconds of the epoch.
        lost: requests that lost their engine before their answer was complete.
        notices: what whoever asked for the load should know.
        settled: done when the load ended; raises the load's error to every waiter.
        gone: set when nothing of it is left.
        report: how its engine ended, if it had one.
        held: its port and version while it serves.
        adopted: whether its engine was started by an earlier server.
        since: when it began to serve, in seconds of the epoch; 0 before that.
        last_use: monotonic seconds of the last lease's begin or end.
    """

    spec: ModelSpec
    served_name: str
    recipe: RecipeSpec
    request: LoadRequest
    pinned: bool = False
    phase: Phase = Phase.LOADING
    step: str = "planning"
    backend: BackendSpec | None = None
    options: EffectiveOptions | None = None
    instance: Instance | None = None
    context: int = 0
    adapters: dict[str, Fitted] = field(default_factory=dict)
    leases: int = 0
    streams: int = 0
    waiters: int = 0
    claims: bool = False
    called_off: bool = False
    superseded: bool = False
    promised_to: Resident | None = None
    error: LemonadeError | None = None
    report: ExitReport | None = None
    why: str = ""
    kept: bool = False
    fingerprint: str = ""
    incident: str = ""
    hung: str = ""
    failed_by: str = ""
    failure: str = ""
    metrics_seen: bytes = b""
    metrics_seen_at: float = 0.0
    lost: int = 0
    notices: tuple[str, ...] = ()
    held: PortLease | None = None
    adopted: bool = False
    since: float = 0.0
    settled: asyncio.Event = field(default_factory=asyncio.Event)
    idle: asyncio.Event = field(default_factory=asyncio.Event)
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    last_use: float = field(default_factory=time.monotonic)
    created: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.idle.set()

    @property
    def key(self) -> str:
        """Canonical name of the model: at most one resident of a key serves."""
        return self.spec.canonical_name

    @property
    def ending(self) -> bool:
        """Its engine has ended, or is about to, though something of it may be left."""
        return self.instance is not None and self.instance.ending

    @property
    def devices(self) -> tuple[str, ...]:
        """What it computes on; empty while unplanned."""
        return self.backend.devices if self.backend else ()

    @property
    def shown_options(self) -> Mapping[str, object]:
        """Options somebody chose; those at their default are left out."""
        if self.options is None:
            return {}
        return {
            name: value
            for name, value in self.options.values.items()
            if self.options.origins.get(name) != "default"
        }


class Lease:
    """The right to use a model. Its end is always counted: use it as a context manager."""

    def __init__(self, resident: Resident) -> None:
        self.resident = resident
        self._streaming = False
        self._open = True
        resident.leases += 1
        resident.idle.clear()
        resident.last_use = time.monotonic()

    @property
    def instance(self) -> Instance:
        """The engine that answers."""
        instance = self.resident.instance
        assert instance is not None, "a lease is granted only while serving"
        return instance

    @property
    def upstream(self) -> Upstream:
        """Its connections."""
        return self.instance.upstream

    def streaming(self) -> None:
        """Note that the first chunk of a stream came."""
        if self._open and not self._streaming:
            self._streaming = True
            self.resident.streams += 1

    def end(self) -> None:
        """Give the right back. Idempotent."""
        if not self._open:
            return
        self._open = False
        resident = self.resident
        resident.last_use = time.monotonic()
        if self._streaming:
            resident.streams -= 1
        resident.leases -= 1
        if resident.leases == 0:
            resident.idle.set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()
