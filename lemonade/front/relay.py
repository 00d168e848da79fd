"""`Relay`: which requests can be answered from here, and with what."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

from lemonade.config import Settings
from lemonade.core.errors import LemonadeError, UpstreamError
from lemonade.core.events import RequestAskedAgain, RequestFinished
from lemonade.core.inference import Inference
from lemonade.dialects import read_inference
from lemonade.gateway import Parts, check_type, choose_adapter, explain, fit, settled
from lemonade.jobs import TaskOwner
from lemonade.relay import (
    REQUEST_ID,
    Accounts,
    Chance,
    Client,
    Entry,
    Exchange,
    Over,
    Patience,
    RequestIds,
    Right,
    Target,
    fit_now,
    see_through,
)
from lemonade.residency import Lease, Resident

_KNOWN: Final = 1024
"""How many names of models are remembered."""


class Relay(TaskOwner):
    """Opens exchanges. Owns the tasks of those that have to wait for something.

    A model is looked up by the name a client wrote, under which it stays known until the registry
    changes. Whatever is not plain is left to the gateway, which explains what is wrong with it.
    """

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self.parts = parts
        self.ids = RequestIds()
        self._keys: dict[tuple[str, str], str] = {}
        self._version = -1
        self._settings = parts.configuration.settings
        self._patience = _patience(self._settings)
        self._exchanges: set[Exchange] = set()
        self._accounts = Accounts(asyncio.get_running_loop(), self._publish)

    async def _end_all(self) -> None:
        for exchange in tuple(self._exchanges):
            exchange.abandon()
        self._accounts.settle()

    def open(self, client: Client, entry: Entry, body: bytes) -> Exchange | None:
        """An exchange for a whole request, not begun yet; `None` if it has to go elsewhere."""
        started = time.monotonic()
        operation = entry.operation
        assert operation is not None
        try:
            wanted = read_inference(operation, body)
            resident = self._warm(wanted)
            if resident is None:
                return None
            wanted = choose_adapter(wanted, resident, None)
            fitted = (
                fit_now(wanted, resident)
                if resident.recipe.upstream.adapts
                else (wanted.body, None)
            )
        except LemonadeError:
            return None
        if fitted is None:
            return None
        if client.asked_before is not None:
            self.parts.bus.publish(RequestAskedAgain(wanted.model, operation))
        chance = Chance(wanted, resident, Lease(resident), fitted)
        exchange = Exchange(self, client, entry, body, chance, started)
        self._exchanges.add(exchange)
        return exchange

    def spawn(self, exchange: Exchange, deed: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
        """Do something that waits, on behalf of an exchange."""
        return self._tasks.create_task(see_through(exchange, deed))

    def forget(self, exchange: Exchange) -> None:
        """It is over."""
        self._exchanges.discard(exchange)

    @property
    def patience(self) -> Patience:
        """As the settings are now."""
        settings = self.parts.configuration.settings
        if settings is not self._settings:  # a change makes new ones
            self._settings = settings
            self._patience = _patience(settings)
        return self._patience

    def step_of(self, model: str) -> str:
        """What a request for that model is waiting for."""
        return self.parts.pool.step_of(model)

    def count(self, over: Over) -> None:
        """Tell everybody that a request is over, soon."""
        self._accounts.add(over)

    async def explain(self, error: UpstreamError, target: Target) -> None:
        """Name the incident, if there is one."""
        assert isinstance(target, Resident)
        await explain(error, target)

    def passes_on(self, target: Target) -> bool:
        """Nobody else loads models."""
        return False

    async def again(self, wanted: Inference, target: Target, right: Right) -> Chance:
        """Wait for whoever loads the model again.

        Raises:
            LemonadeError: it could not be loaded.
        """
        assert isinstance(target, Resident)
        target.lost += 1
        self.parts.bus.publish(RequestAskedAgain(wanted.model, wanted.operation))
        right.end()
        await settled(target)
        lease = await self.parts.pool.lease(wanted.model)
        try:
            resident = lease.resident
            wanted = choose_adapter(wanted, resident, None)
            fitted = (
                await fit(wanted, lease)
                if resident.recipe.upstream.adapts
                else (wanted.body, None)
            )
        except BaseException:
            lease.end()
            raise
        return Chance(wanted, resident, lease, fitted)

    def _publish(self, request_id: str, event: RequestFinished) -> None:
        REQUEST_ID.set(request_id)
        self.parts.bus.publish(event)

    def _warm(self, wanted: Inference) -> Resident | None:
        """The resident that can answer at once.

        Raises:
            LemonadeError: there is no such model, or it does not do that.
        """
        registry = self.parts.registry
        if registry.version != self._version or len(self._keys) > _KNOWN:
            self._keys.clear()
            self._version = registry.version
        known = wanted.model, wanted.operation
        key = self._keys.get(known)
        if key is None:
            spec = registry.resolve(wanted.model)
            check_type(self.parts, wanted)
            key = self._keys[known] = spec.canonical_name
        return self.parts.pool.warm(key)


def _patience(settings: Settings) -> Patience:
    return Patience(
        float(settings.global_timeout),
        settings.heartbeat_after_s,
        settings.heartbeat_every_s,
    )
