"""The owner of all children: starts them, notices what they start, and ends them all.

A supervisor is an async context manager that lives as long as the server. What it starts is
recorded before it counts, so that the next server can end what this one could not; what servers
before it have kept for it is taken over, and what they left behind is ended, before it starts
anything itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import secrets
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Final, Self

from lemonade.core.bus import Bus
from lemonade.core.errors import LemonadeError, ShuttingDown
from lemonade.core.events import ChildNotAdopted, ChildSpawned
from lemonade.core.ids import ChildId
from lemonade.core.process import ProcessSpec
from lemonade.supervisor.beside import Beside
from lemonade.supervisor.child import Child
from lemonade.supervisor.delegation import Delegation, claim, find_delegation
from lemonade.supervisor.grove import Grove
from lemonade.supervisor.guardian import Guardian
from lemonade.supervisor.health import Probe
from lemonade.supervisor.holding import DeviceLook, no_devices
from lemonade.supervisor.inheritance import Heir, Refused, take_over
from lemonade.supervisor.journal import Journal
from lemonade.supervisor.kin import Census
from lemonade.supervisor.ledger import Ledger, Owner
from lemonade.supervisor.ports import PortLease, Ports
from lemonade.supervisor.processes import become_subreaper
from lemonade.supervisor.reaper import Reaper
from lemonade.supervisor.spawn import spawn
from lemonade.supervisor.surroundings import Surroundings

log = logging.getLogger(__name__)

_NAME_LENGTH: Final = 60
_COLLECT_LIMIT: Final = 0.5


class Supervisor:
    """All children of this server.

    Enter and leave it in one task. While it is entered, nothing else may collect processes it has
    not started (`waitpid(-1)`): orphans of our children are re-parented to this process.

    Attributes:
        journal: what all children print, live and the last of it.
        delegation: where children get cgroups of their own, or why they do not.
        heirs: children that an earlier server has kept for this one; `adopt` or `decline` each.
        handed_over: after it was left, pipes of children that are left alone.
    """

    def __init__(  # noqa: PLR0913 - what a server decides about its children
        self,
        *,
        ledger_dir: Path,
        bus: Bus,
        watch_interval: float = 5.0,
        notice_interval: float = 1.0,
        orphan_grace: float = 1.0,
        guarded: bool = False,
        devices: DeviceLook = no_devices,
        delegation: Callable[[], Delegation] = find_delegation,
        keep: Callable[[], bool] = lambda: False,
        pipes: Mapping[ChildId, int] | None = None,
    ) -> None:
        """Set up, without doing anything yet.

        Args:
            ledger_dir: where children are recorded; servers may share it.
            bus: told of everything that happens to a child.
            watch_interval: least seconds between two probes of a ready child.
            notice_interval: seconds between two looks for new descendants.
            orphan_grace: seconds that an earlier server's processes get to end by themselves.
            guarded: have a guardian, from the first child on, that ends what the children have
                started if this process is killed. Needs a `/proc`.
            devices: tells what processes hold of devices' memory.
            delegation: finds where each child may have a cgroup of its own. May block.
            keep: whether children started now are to outlive this process if they can.
            pipes: of children that this process had before it became what it is; `None` if it
                was nothing else.
        """
        self.journal = Journal()
        self.heirs: list[Heir] = []
        self.handed_over: dict[ChildId, int] = {}
        self._bus = bus
        self._ledger = Ledger(ledger_dir)
        self._watch_interval = watch_interval
        self._notice_interval = notice_interval
        self._orphan_grace = orphan_grace
        self._guarded = guarded and sys.platform.startswith("linux")
        self._guardian: Guardian | None = None
        self._devices = devices
        self._find_delegation = delegation
        self.delegation = Delegation(None, "nobody has looked yet")
        self._keep = keep
        self._pipes = pipes
        self._tasks: dict[ChildId, asyncio.Task[None]] = {}
        self._children: dict[ChildId, Child] = {}
        self._ports = Ports()
        self._closing = False
        self._has_children = asyncio.Event()
        self._around: Surroundings | None = None
        self._group = asyncio.TaskGroup()

    @property
    def children(self) -> Mapping[ChildId, Child]:
        """Those that have not ended, oldest first."""
        return MappingProxyType(self._children)

    async def __aenter__(self) -> Self:
        if not become_subreaper():
            log.warning("Orphans of engines cannot be re-parented to this process.")
        beside = Beside()
        try:
            owner = await beside.proc(Owner.ourselves)
            grove = await beside.disk(self._settle, owner)
            self._reaper = Reaper(
                self._ledger, beside, self._bus, grace=self._orphan_grace, grove=grove
            )
            await self._take_over(beside, owner)
            await self._reaper.reap()
        except BaseException:
            beside.close()
            raise
        self._around = Surroundings(
            self._bus,
            self._ledger,
            beside,
            owner,
            self.journal,
            self._watch_interval,
            self._devices,
            self._keep,
            grove,
        )
        await self._group.__aenter__()
        self._noticing = self._group.create_task(self._notice_descendants(beside))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._around is not None
        self._closing = True
        try:
            await self._leave_alone()
            await self._stop_all()
        finally:
            self._noticing.cancel()
            try:
                if isinstance(error, asyncio.CancelledError):
                    # Perhaps the group's own way of saying that a task of it has failed.
                    await self._group.__aexit__(kind, error, trace)
                else:
                    await self._group.__aexit__(None, None, None)
            finally:
                await self._around.beside.disk(self._dismiss_guardian)
                self._around.beside.close()

    def doubt(self) -> None:
        """Have every child asked for its health at once: the machine has slept."""
        for child in self._children.values():
            child.doubt()

    def lease_port(self) -> PortLease:
        """A private port on the loopback that no other child gets until it is released.

        Raises:
            OSError: there is none.
        """
        return self._ports.lease()

    async def start(self, spec: ProcessSpec, probe: Probe) -> Child:
        """Start a child and record it. It is not ready yet: `await child.ready()`.

        A cancelled start ends when no process is left behind. Must be called from the main thread.

        Args:
            spec: what to start.
            probe: asked whether the child may be used.

        Raises:
            SpawnFailed: the program could not be started at all.
            OutOfDisk: the child could not be recorded, and was ended.
            BadConfigFile: likewise.
            ShuttingDown: the supervisor is on its way out.
        """
        number, spool = _child_id(spec.name), None
        if self._around is not None and self._keep():
            spool = await self._around.beside.disk(self._ledger.spool, number)
        if self._closing or self._around is None:
            raise ShuttingDown(
                "The server is shutting down and starts no engines.",
                remedy="Try again when it runs.",
            )
        grove = self._around.grove
        leaf = grove.leaf(number) if grove is not None else None
        spawned = spawn(spec, number, leaf, spool)
        try:
            child = Child(number, spec, probe, spawned, self._around)
            self._begin(child)
        except BaseException:  # nobody owns the process yet
            spawned.signal_group(signal.SIGKILL)
            spawned.collect(within=_COLLECT_LIMIT)
            if spawned.leaf is not None:
                spawned.leaf.remove()
            raise
        log.info("%s is starting (pid %d)", spec.name, spawned.pid)
        log.debug("%s: %s", spec.name, " ".join(spec.shown_argv()))
        backend = spec.labels.get("backend", "")
        self._bus.publish(
            ChildSpawned(child.id, spec.name, spawned.pid, spec.endpoint.port, backend)
        )
        try:
            await child.recorded()
        except asyncio.CancelledError:
            child.ask_to_stop(now=True)  # nobody will ever hold it
            # Its port and memory are somebody else's next; a disk that hangs may not hold us up.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(spec.stop.kill_within):
                    await child.ended()
            raise
        return child

    def _settle(self, owner: Owner) -> Grove | None:
        """Find out where children may have cgroups of their own. Blocks."""
        found = self.delegation = self._find_delegation()
        if found.base is None:
            log.debug("Engines have no cgroups of their own: %s.", found.reason)
            return None
        claim(found)
        log.debug("Engines have cgroups of their own in %s.", found.base)
        return Grove(found.base, self._ledger.directory, owner)

    async def adopt(self, heir: Heir, spec: ProcessSpec, probe: Probe) -> tuple[Child, PortLease]:
        """Look after one of the `heirs`. It may not be well: `await child.ready()`.

        Args:
            heir: taken over; not to be used otherwise any more.
            spec: what it was started from.
            probe: asked whether the child may be used.

        Raises:
            ShuttingDown: the supervisor is on its way out.
        """
        if self._closing or self._around is None:
            raise ShuttingDown("The server is shutting down.", remedy="Try again when it runs.")
        self.heirs.remove(heir)
        child = Child(heir.record.child, spec, probe, heir.process, self._around, heir)
        self._begin(child)
        await child.recorded()
        return child, self._ports.claim(spec.endpoint.port)

    async def decline(self, heir: Heir, reason: str) -> None:
        """End one of the `heirs`, which is of no use."""
        self.heirs.remove(heir)
        self._refuse(Refused(heir.record, reason))
        await self._reaper.decline(heir.record)
        heir.process.collect()

    def _begin(self, child: Child) -> None:
        task = self._group.create_task(self._own(child), name=f"child {child.id}")
        self._tasks[child.id] = task
        self._children[child.id] = child
        self._has_children.set()

    async def _take_over(self, beside: Beside, owner: Owner) -> None:
        try:
            self.heirs, refused = await beside.proc(take_over, self._ledger, owner, self._pipes)
        except (LemonadeError, OSError) as error:
            log.warning("What was kept cannot be taken over: %s", error)
            return
        for heir in self.heirs:
            name, pid = heir.record.name, heir.record.leader.pid
            log.info("%s was kept for this server and is to be taken over (pid %d)", name, pid)
        for one in refused:
            self._refuse(one)
            if one.record.owner == owner:  # the reaper leaves alone what is ours
                await self._reaper.decline(one.record)

    def _refuse(self, one: Refused) -> None:
        log.warning("%s is not taken over: %s", one.record.name, one.reason)
        self._bus.publish(ChildNotAdopted(one.record.child, one.record.name, one.reason))

    async def _leave_alone(self) -> None:
        """Let those go who stay; heirs that nobody wanted yet stay as they are."""
        for heir in self.heirs:
            heir.process.let_go()
        for child in tuple(self._children.values()):
            if child.stays and await child.prepare_to_leave():
                task = self._tasks[child.id]
                task.cancel()
                await asyncio.wait({task})
                if child.pipe is not None:
                    self.handed_over[child.id] = child.pipe
                log.info("%s goes on without us", child.spec.name)

    def _post_guardian(self) -> None:
        """Have one, also if somebody has ended the last one. Blocks; in the disk's thread only."""
        try:
            if self._guardian is not None:
                log.warning("The guardian of the engines was ended (pid %d).", self._guardian.pid)
                self._dismiss_guardian()
            self._guardian = Guardian(self._ledger.directory.absolute())
        except OSError as error:  # the next server ends what is left then
            log.warning("The engines have no guardian: %s", error)

    def _dismiss_guardian(self) -> None:
        """Blocks; in the disk's thread only, so that it comes after one that was being posted."""
        if self._guardian is not None:
            self._guardian.dismiss()
            self._guardian = None

    async def _own(self, child: Child) -> None:
        try:
            await child.run()
        finally:
            del self._children[child.id], self._tasks[child.id]
            if not self._children:
                self._has_children.clear()

    async def _notice_descendants(self, beside: Beside) -> None:
        census = Census()
        while True:
            await self._has_children.wait()
            if self._guarded and not (self._guardian is not None and self._guardian.alive):
                await beside.disk(self._post_guardian)
            try:
                children = tuple(self._children.values())
                looks = [child.look_for_kin() for child in children]
                losses = await beside.proc(census.show, looks)  # one turn beside, for all of them
                for child, lost in zip(children, losses, strict=True):
                    await child.take_note(lost=lost)
            except OSError as error:  # no descriptors, most likely: no reason to end anybody
                log.warning("What engines have started cannot be looked for: %s", error)
                census = Census()
            await asyncio.sleep(self._notice_interval)

    async def _stop_all(self) -> None:
        """End all children side by side. Cancelled, it does not ask them any more but goes on.

        This is the one place that finishes its work in spite of a cancellation; that is passed on
        afterwards. It is bounded, since the end of every child is.
        """
        interrupted: asyncio.CancelledError | None = None
        for child in tuple(self._children.values()):
            child.ask_to_stop()
        while self._children:
            child = next(iter(self._children.values()))
            try:
                await child.ended()
                await asyncio.sleep(0)  # its task takes it from the list
            except asyncio.CancelledError as error:
                interrupted = error
                for other in tuple(self._children.values()):
                    other.ask_to_stop(now=True)
        if interrupted is not None:
            raise interrupted


def _child_id(name: str) -> ChildId:
    """A file name for one run, readable, and unique in all servers that share a ledger."""
    word = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip(".-")[:_NAME_LENGTH]
    return ChildId(f"{word or 'child'}-{secrets.token_hex(4)}")
