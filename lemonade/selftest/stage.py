"""Where rounds happen: one place, the server that runs in it now, and what must be true of both.

A server is kept from round to round, as users keep theirs; one that was ended is replaced.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from lemonade.core.errors import LemonadeError, UnsupportedHere
from lemonade.core.inference import JsonObject
from lemonade.selftest.place import Place
from lemonade.selftest.server import PATIENCE, PrivateServer, eventually
from lemonade.selftest.traces import Trace, alive, end_all, living, open_files, resident_bytes
from lemonade.supervisor import LedgerEntry, inspect_ledger

_GUARDIAN: Final = "lemonade.supervisor.guardian"
_WORKER: Final = "lemonade.relay.worker"
_MORE_FILES: Final = 40
"""How many files a server may have open beyond what it had after its first round."""

_MORE_BYTES: Final = 256 << 20
"""Likewise of memory: floods of logs and thousands of engines may not stay in it."""

_LOOKS: Final = 4
_CLOSES_WITHIN: Final = 15.0


class Stage:
    """Made by `staged`; `close` leaves nothing."""

    def __init__(self, place: Place, workers: int = 0) -> None:
        self.place = place
        self._workers = workers
        self._server: PrivateServer | None = None

    @property
    def server(self) -> PrivateServer:
        """The one that runs, or ran last."""
        assert self._server is not None, "up() comes first"
        return self._server

    def up(self) -> PrivateServer:
        """The server, started if none runs.

        Raises:
            ServerUnreachable: it does not start.
        """
        if self._server is None or not self._server.alive:
            self._server = PrivateServer.start(self.place, self._workers)
        return self._server

    def down(self) -> bool:
        """End the server and all that carries the mark; whether asking was enough."""
        in_order = self._server is None or self._server.end(within=_CLOSES_WITHIN)
        if not eventually(lambda: not living(self.place.mark), _CLOSES_WITHIN):
            in_order = False
        eventually(lambda: not end_all(self.place.mark), _CLOSES_WITHIN)
        self._server = None
        return in_order

    def close(self) -> None:
        """End everything and delete the place. A Ctrl-C is not heard meanwhile."""
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            self.down()
        finally:
            self.place.remove()
            signal.signal(signal.SIGINT, before)

    # ---- what is

    def entries(self) -> tuple[LedgerEntry, ...]:
        """What the ledger says."""
        return inspect_ledger(self.place.ledger)

    def victim(self) -> LedgerEntry | None:
        """The engine that runs, or starts; the one whose place it took may still be ending."""
        running = (one for one in self.entries() if one.state == "served" and alive(one.leader))
        return max(running, key=_started, default=None)

    def workers(self) -> tuple[Trace, ...]:
        """The processes beside the server that relay."""
        return _workers(self.server, living(self.place.mark))

    def nothing_is_left(self) -> bool:
        """Whether no process of ours is visible any more, the server being gone.

        A process that is just becoming another program shows neither command line nor environment
        for a moment, as the guardian when it goes to work: one look is not enough.
        """
        looks = 0

        def nobody() -> bool:
            nonlocal looks
            looks = 0 if living(self.place.mark) else looks + 1
            return looks >= _LOOKS

        return eventually(nobody)

    def newest_incident(self) -> str:
        """The id of the last failure that was recorded."""
        folder = self.place.root / "cache" / "state" / "incidents"
        return max((path.stem for path in folder.glob("*.json")), default="")

    # ---- what must be

    def settled(self) -> tuple[str, ...]:
        """What is not as it must be, after it was given time to become so."""
        problems: tuple[str, ...] = ()

        def quiet() -> bool:
            nonlocal problems
            problems = tuple(self._problems())
            return not problems

        eventually(quiet, PATIENCE / 2)
        return problems

    def _problems(self) -> Iterator[str]:
        server = self.server
        if not server.alive:
            yield f"the server is not up: it ended with {server.status}"
            return
        try:
            with server.client() as client:
                health = client.health()
        except LemonadeError as error:
            yield f"the server is not up: {error}"
            return
        entries = self.entries()
        yield from _of_leases(health)
        yield from _of_workers(health)
        yield from _of_ledger(health, entries)
        yield from self._of_processes(entries)
        yield from _of_lives(server, health)
        yield from _of_growth(server)

    def _of_processes(self, entries: tuple[LedgerEntry, ...]) -> Iterator[str]:
        traces = living(self.place.mark)
        known = {self.server.pid}
        for entry in entries:
            known.add(entry.leader)
            if entry.record is not None:
                known |= {one.identity.pid for one in entry.record.descendants}
        guardians = [one for one in traces if _GUARDIAN in one.command]
        if len(guardians) > 1:
            yield f"there are {len(guardians)} guardians"
        workers = _workers(self.server, traces)
        if len(workers) != self._workers:
            yield f"there are {len(workers)} workers and not {self._workers}"
        for one in _unknown(traces, known | {one.pid for one in (*guardians, *workers)}):
            yield f"process {one} is alive and should not be"


@contextmanager
def staged(workers: int = 0) -> Iterator[Stage]:
    """A stage that is gone when the block is, and everything on it. In the main thread.

    Args:
        workers: of its servers.

    Raises:
        UnsupportedHere: there is no /proc to find processes in.
        OSError: there is no place for it.
    """
    if not sys.platform.startswith("linux"):
        raise UnsupportedHere(
            "The self-test finds its processes in /proc, which this system does not have.",
            remedy="`lemonade demo --once` shows whether everything works.",
        )
    stage = Stage(Place.make(), workers)
    try:
        yield stage
    finally:
        stage.close()


def _started(entry: LedgerEntry) -> int:
    return 0 if entry.record is None else entry.record.leader.start_ticks


def _of_leases(health: JsonObject) -> Iterator[str]:
    for row in health["all_models_loaded"]:
        if row["active_requests"] or row["is_streaming"]:
            yield f"{row['model_name']} has {row['active_requests']} leases and nobody asks it"
        if row["status"] != "ready":
            yield f"{row['model_name']} is not ready but {row['status']}"
    for row in health["models_loading"]:
        yield f"{row['model_name']} is still loading ({row['step']})"


def _of_workers(health: JsonObject) -> Iterator[str]:
    wanted, ready = health["workers"]["wanted"], health["workers"]["ready"]
    if ready != wanted:
        yield f"{ready} of {wanted} workers accept connections"


def _of_ledger(health: JsonObject, entries: tuple[LedgerEntry, ...]) -> Iterator[str]:
    served = {entry.leader for entry in entries if entry.state == "served"}
    loaded = {row.get("pid") for row in health["all_models_loaded"]}
    if served != loaded:
        yield f"the ledger has the engines {sorted(served)}, loaded are {sorted(map(str, loaded))}"
    for entry in entries:
        if entry.state != "served":
            yield f"the ledger says that {entry.name or entry.file.name} is {entry.state}"
        elif not alive(entry.leader):
            yield f"the ledger has {entry.name} ({entry.leader}), which is dead"
        for one in entry.record.descendants if entry.record is not None else ():
            if not alive(one.identity.pid):
                yield f"the ledger has process {one.identity.pid} of {entry.name}, which is dead"


def _of_lives(server: PrivateServer, health: JsonObject) -> Iterator[str]:
    """Every engine that was started has ended once, or is there."""
    names = ("child_starts", "child_stops", "child_crashes")
    try:
        starts, stops, crashes = (server.sum_of(f"lemonade_{name}") for name in names)
    except LemonadeError as error:
        yield str(error)
        return
    here = len(health["all_models_loaded"])
    if starts != stops + crashes + here:
        yield (
            f"{starts} engines were started, {stops} stopped, {crashes} crashed and {here} are "
            "loaded: that does not add up"
        )


def _of_growth(server: PrivateServer) -> Iterator[str]:
    files, memory = open_files(server.pid), resident_bytes(server.pid)
    server.files = server.files or files
    server.resident_bytes = server.resident_bytes or memory
    if files > server.files + _MORE_FILES:
        yield f"the server has {files} files open, and had {server.files} at first"
    if memory > server.resident_bytes + _MORE_BYTES:
        now, first = memory >> 20, server.resident_bytes >> 20
        yield f"the server has {now} MiB of memory, and had {first} MiB at first"


def _workers(server: PrivateServer, traces: tuple[Trace, ...]) -> tuple[Trace, ...]:
    ours = (one for one in traces if one.parent == server.pid)
    return tuple(one for one in ours if _WORKER in one.command)


def _unknown(traces: tuple[Trace, ...], known: set[int]) -> list[Trace]:
    """Those that are neither known nor below an engine; who has just been born is noticed soon."""
    return [one for one in traces if one.pid not in known]
