"""Placement on this machine, through the supervisor."""

from __future__ import annotations

import logging
from collections.abc import Callable

from lemonade.core.errors import SpawnFailed, WouldNotDie
from lemonade.core.inference import JsonObject
from lemonade.core.logs import LogRecord
from lemonade.core.process import DeviceHold, Endpoint, ExitReport, ProcessSpec, StartStep
from lemonade.core.records import dataclass
from lemonade.residency.placement import Instance, PortLease
from lemonade.supervisor import Child, Heir, Phase, Probe, Supervisor
from lemonade.supervisor import PortLease as SupervisorPortLease
from lemonade.upstream import Upstream, http_probe

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LocalPort:
    """A port leased from the supervisor."""

    lease: SupervisorPortLease

    @property
    def endpoint(self) -> Endpoint:
        """The loopback and the leased port."""
        return Endpoint("127.0.0.1", self.lease.port)

    def release(self) -> None:
        """Give the port back."""
        self.lease.release()


class LocalInstance:
    """A supervised child with its connections."""

    def __init__(self, child: Child, upstream: Upstream, api_key: str) -> None:
        self._child = child
        self._upstream = upstream
        self._api_key = api_key

    @property
    def spec(self) -> ProcessSpec:
        """What it was started from."""
        return self._child.spec

    @property
    def upstream(self) -> Upstream:
        """Its connections."""
        return self._upstream

    @property
    def pid(self) -> int | None:
        """Its process id."""
        return self._child.pid

    @property
    def healthy(self) -> bool:
        """Whether its last probe passed."""
        return self._child.phase is Phase.READY

    @property
    def ending(self) -> bool:
        """Whether its process has ended or was told to; what it started may still be there."""
        return self._child.phase not in (Phase.STARTING, Phase.READY, Phase.UNHEALTHY)

    async def cpu_seconds(self) -> float:
        """How long it and its descendants have computed."""
        return (await self._child.holdings.effort()).cpu_seconds

    async def device_memory(self) -> tuple[DeviceHold, ...]:
        """What it and its descendants hold of devices now."""
        try:
            return await self._child.holdings.of_devices()
        except OSError:  # it is ending just now
            return ()

    def heed_steps(self, listen: Callable[[StartStep], None]) -> None:
        """Tell where its start is."""
        self._child.heed_steps(listen)

    async def ready(self) -> None:
        """Return when the probe has passed."""
        await self._child.ready()

    async def stands_still(self, patience: float) -> None:
        """Return when neither it nor anything below it works."""
        await self._child.stands_still(patience)

    def give_up(self, why: str, word: str) -> None:
        """Kill it."""
        self._child.give_up(why, word)

    async def ended(self) -> ExitReport:
        """Return when nothing of it is left."""
        report = await self._child.ended()
        await self._upstream.aclose()
        return report

    async def stop(self, *, now: bool = False) -> ExitReport:
        """Close the connections first: an engine with an open stream may not notice SIGTERM.

        A child that will not die is an operator's business; the report names the survivors.
        """
        await self._upstream.aclose()
        try:
            return await self._child.stop(now=now)
        except WouldNotDie as error:
            log.error("%s", error)
            return await self._child.ended()

    async def keep(self, facts: JsonObject | None) -> None:
        """With its key, which only we know."""
        await self._child.keep(facts and {**facts, "api_key": self._api_key})

    async def stay(self, why: str, *, hand_over: bool) -> bool:
        """Close its connections; the supervisor does not end it."""
        stays = self._child.stay(hand_over=hand_over)
        if stays:
            await self._upstream.aclose(why)
        return stays

    def tail(self, lines: int) -> tuple[str, ...]:
        """The last lines of its output."""
        return self._child.tail(lines)

    def records(self) -> tuple[LogRecord, ...]:
        """What is kept of its output."""
        return self._child.records()


class LocalPlacement:
    """Starts engines as children of this process."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor

    def lease_endpoint(self) -> PortLease:
        """Reserve a loopback port.

        Raises:
            SpawnFailed: there is none, or no descriptor to look for one with.
        """
        try:
            return LocalPort(self._supervisor.lease_port())
        except OSError as error:
            raise SpawnFailed(
                f"No private port can be had for an engine: {error.strerror or error}.",
                remedy="Unload a model or close connections, or raise the limit on open files.",
            ) from error

    async def start(self, spec: ProcessSpec, *, api_key: str) -> Instance:
        """Spawn it; see `Placement.start`."""
        child = await self._supervisor.start(spec, _probe(spec, api_key))
        return LocalInstance(child, Upstream(spec.endpoint, api_key=api_key), api_key)

    async def adopt(
        self, heir: Heir, spec: ProcessSpec, *, api_key: str
    ) -> tuple[Instance, PortLease]:
        """Look after an engine that an earlier server has started; it may not be well.

        Raises:
            ShuttingDown: the supervisor is on its way out.
        """
        child, port = await self._supervisor.adopt(heir, spec, _probe(spec, api_key))
        upstream = Upstream(spec.endpoint, api_key=api_key)
        return LocalInstance(child, upstream, api_key), LocalPort(port)

    async def decline(self, heir: Heir, reason: str) -> None:
        """End such an engine, which is of no use."""
        await self._supervisor.decline(heir, reason)


def _probe(spec: ProcessSpec, api_key: str) -> Probe:
    return http_probe(
        spec.endpoint,
        spec.probe.path,
        api_key=api_key,
        timeout=spec.probe.timeout,
        dead_status=spec.probe.dead_status,
    )
