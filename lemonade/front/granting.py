"""What worker processes may relay, and what they use of it: the server's side.

A worker holds a grant for each model that serves. What it has in flight counts here as leases, so
that eviction, draining and everything that is shown sees the truth, a quarter of a second late at
most. A resident that leaves is withdrawn first: for each worker a lease is held from that moment
until the worker has said that nothing is in flight, or is gone; so draining waits for it.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import field
from typing import Final

from lemonade.core.errors import LemonadeError
from lemonade.core.events import ModelLoaded
from lemonade.core.inference import Inference, Operation
from lemonade.core.records import dataclass
from lemonade.gateway import Parts, check_type
from lemonade.relay import (
    Anew,
    Cleared,
    Granted,
    GrantedLimits,
    GrantedManner,
    GrantedRecipe,
    Message,
    Named,
    Refused,
    Use,
    Withdrawn,
)
from lemonade.residency import Lease, Phase, Resident

_MOST_NAMES: Final = 256
"""Names that one grant may have; who asks by more has the server."""

_LATELY: Final = 16
"""Grants that are remembered, those that are over included."""

Send = Callable[[Message], None]


class Share:
    """One grant in one worker."""

    def __init__(self, number: int, resident: Resident, send: Send) -> None:
        self.resident = resident
        self._number = number
        self._send = send
        self._plain: list[Lease] = []
        self._streaming: list[Lease] = []
        self._held: Lease | None = None
        self._quiet = 0.0
        self._heard = 0.0
        assert resident.instance is not None
        self._upstream = resident.instance.upstream
        self._upstream.elsewhere.add(self)

    @property
    def quiet(self) -> float | None:
        """Seconds since this worker got more than comments; `None` if it asked nothing."""
        if not self._plain and not self._streaming:
            return None
        return self._quiet + time.monotonic() - self._heard

    def use(self, said: Use) -> None:
        """The worker has so much in flight."""
        self._quiet, self._heard = said.quiet, time.monotonic()
        self._adjust(self._streaming, said.streams, streaming=True)
        self._adjust(self._plain, said.requests - said.streams, streaming=False)

    def withdraw(self) -> None:
        """Have the worker take no more, and wait for what it has in flight. Idempotent."""
        if self._held is None:
            self._held = Lease(self.resident)
            self._send(Withdrawn(self._number))

    def cut(self) -> None:
        """The engine is being stopped: end what is in flight."""
        self._send(Withdrawn(self._number, now=True))

    def end(self) -> None:
        """Nothing is in flight any more."""
        self._upstream.elsewhere.discard(self)
        for lease in (*self._plain, *self._streaming):
            lease.end()
        self._plain.clear()
        self._streaming.clear()
        if self._held is not None:
            self._held.end()

    def _adjust(self, leases: list[Lease], number: int, *, streaming: bool) -> None:
        while len(leases) < number:
            lease = Lease(self.resident)
            if streaming:
                lease.streaming()
            leases.append(lease)
        while len(leases) > max(0, number):
            leases.pop().end()


@dataclass(slots=True)
class Grant:
    """One resident that may be relayed by workers.

    Attributes:
        said: what the workers were told last.
        names: under which it answers, and for what.
    """

    resident: Resident
    said: Granted
    names: dict[tuple[str, Operation], None] = field(default_factory=dict)


class Shares:
    """All that one worker was granted."""

    def __init__(self, send: Send) -> None:
        self.send = send
        self.of: dict[int, Share] = {}

    def hear(self, said: Use | Cleared) -> None:
        """The worker says what it uses."""
        share = self.of.get(said.id)
        if share is None:
            return
        if isinstance(said, Use):
            share.use(said)
        else:
            del self.of[said.id]
            share.end()

    def end(self) -> None:
        """The worker is gone."""
        for share in self.of.values():
            share.end()
        self.of.clear()


class Granting:
    """Decides what is granted, and tells all workers. Made with the pool; lives as long."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._numbers = itertools.count(1)
        self._grants: dict[Resident, Grant] = {}
        self._lately: dict[int, Resident] = {}
        self._workers: set[Shares] = set()
        self._version = parts.registry.version
        parts.pool.heed_leaving(self._withdraw)
        parts.bus.subscribe(ModelLoaded, lambda _: self.refresh())

    def join(self, worker: Shares) -> None:
        """A worker has come: tell it everything."""
        self._workers.add(worker)
        self.refresh()
        for grant in self._grants.values():
            self._grant(worker, grant)

    def leave(self, worker: Shares) -> None:
        """It is gone."""
        self._workers.discard(worker)
        worker.end()

    def ask(self, worker: Shares, name: str, operation: Operation) -> None:
        """A worker has met a name that nobody has spoken of."""
        self.refresh()
        resident = self._meaning(name, operation)
        grant = None if resident is None else self._grants.get(resident)
        if grant is None or len(grant.names) >= _MOST_NAMES:
            worker.send(Refused(name, operation))
            return
        grant.names[name, operation] = None
        for one in self._workers:
            one.send(Named(grant.said.id, name, operation))

    def resident(self, number: int) -> Resident | None:
        """Whom a grant was for, unless that is long ago."""
        return self._lately.get(number)

    def refresh(self) -> None:
        """Tell the workers what has changed: who serves, and what names mean."""
        if not self._workers:
            return
        serving = [one for one in self._parts.pool.residents() if _grantable(one)]
        for resident in [one for one in self._grants if one not in serving]:
            self._withdraw(resident)
        anew = self._version != self._parts.registry.version
        if anew:
            self._version = self._parts.registry.version
            for worker in self._workers:
                worker.send(Anew())
        for resident in serving:
            known = self._grants.get(resident)
            names = {} if known is None or anew else known.names
            for name in self._names_of(resident) if not names else ():
                names[name] = None
            number = next(self._numbers) if known is None else known.said.id
            said = _granted(number, resident, tuple(names))
            if known is not None and not anew and said.context == known.said.context:
                continue
            grant = self._grants[resident] = Grant(resident, said, names)
            self._lately[number] = resident
            while len(self._lately) > _LATELY:
                del self._lately[next(iter(self._lately))]
            for worker in self._workers:
                self._grant(worker, grant)

    def _grant(self, worker: Shares, grant: Grant) -> None:
        number = grant.said.id
        if number not in worker.of:
            worker.of[number] = Share(number, grant.resident, worker.send)
        worker.send(grant.said)

    def _withdraw(self, resident: Resident) -> None:
        """It leaves, or is gone. Called by the pool before anything follows from that."""
        grant = self._grants.pop(resident, None)
        if grant is None:
            return
        for worker in self._workers:
            share = worker.of.get(grant.said.id)
            if share is not None:
                share.withdraw()

    def _names_of(self, resident: Resident) -> list[tuple[str, Operation]]:
        """What most clients call it, and ask of it."""
        usual = {resident.served_name, resident.key}
        return [
            (name, operation)
            for name in sorted(usual)
            for operation in resident.recipe.upstream.operations
            if self._meaning(name, operation) is resident
        ]

    def _meaning(self, name: str, operation: Operation) -> Resident | None:
        parts = self._parts
        try:
            spec = parts.registry.resolve(name)
            check_type(parts, Inference(operation, name, stream=False, body=b""))
        except LemonadeError:
            return None
        return parts.pool.warm(spec.canonical_name)


def _grantable(resident: Resident) -> bool:
    """Whether a request for it needs nothing that only the server has."""
    if resident.phase is not Phase.SERVING or resident.instance is None or resident.ending:
        return False
    how = resident.recipe.adapters
    return how is None or not how.scales or not resident.adapters


def _granted(number: int, resident: Resident, names: tuple[tuple[str, Operation], ...]) -> Granted:
    instance, manner = resident.instance, resident.recipe.upstream
    assert instance is not None
    return Granted(
        id=number,
        served_name=resident.served_name,
        recipe=GrantedRecipe(
            resident.recipe.title,
            GrantedManner(
                operations=dict(manner.operations),
                own_name=manner.own_name,
                old_limit=manner.old_limit,
                usage=manner.usage,
                limits=None if manner.limits is None else GrantedLimits(manner.limits.above),
                adapts=manner.adapts,
            ),
        ),
        context=resident.context,
        host=instance.upstream.endpoint.host,
        port=instance.upstream.endpoint.port,
        api_key=instance.upstream.api_key,
        names=names,
    )
