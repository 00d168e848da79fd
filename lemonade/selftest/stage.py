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
from lemonade.selftest.traces import Trace, alive, end_all, living, open_files
from lemonade.supervisor import LedgerEntry, inspect_ledger

_GUARDIAN: Final = "lemonade.supervisor.guardian"
_MORE_FILES: Final = 40
"""How many files a server may have open beyond what it had after its first round."""

_CLOSES_WITHIN: Final = 15.0


class Stage:
    """Made by `staged`; `close` leaves nothing."""

    def __init__(self, place: Place) -> None:
        self.place = place
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
            self._server = PrivateServer.start(self.place)
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
        """The engine that runs, or starts."""
        running = (one for one in self.entries() if one.state == "served" and alive(one.leader))
        return next(running, None)

    def nothing_is_left(self) -> bool:
        """Whether no process of ours becomes visible any more, the server being gone."""
        return eventually(lambda: not living(self.place.mark))

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
        yield from _of_ledger(health, entries)
        yield from self._of_processes(entries)
        files = open_files(server.pid)
        server.baseline = server.baseline or files
        if files > server.baseline + _MORE_FILES:
            yield f"the server has {files} files open, and had {server.baseline} at first"

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
        for one in _unknown(traces, known | {one.pid for one in guardians}):
            yield f"process {one} is alive and should not be"


@contextmanager
def staged() -> Iterator[Stage]:
    """A stage that is gone when the block is, and everything on it. In the main thread.

    Raises:
        UnsupportedHere: there is no /proc to find processes in.
        OSError: there is no place for it.
    """
    if not sys.platform.startswith("linux"):
        raise UnsupportedHere(
            "The self-test finds its processes in /proc, which this system does not have.",
            remedy="`lemonade demo --once` shows whether everything works.",
        )
    stage = Stage(Place.make())
    try:
        yield stage
    finally:
        stage.close()


def _of_leases(health: JsonObject) -> Iterator[str]:
    for row in health["all_models_loaded"]:
        if row["active_requests"] or row["is_streaming"]:
            yield f"{row['model_name']} has {row['active_requests']} leases and nobody asks it"
        if row["status"] != "ready":
            yield f"{row['model_name']} is not ready but {row['status']}"
    for row in health["models_loading"]:
        yield f"{row['model_name']} is still loading ({row['step']})"


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


def _unknown(traces: tuple[Trace, ...], known: set[int]) -> list[Trace]:
    """Those that are neither known nor below an engine; who has just been born is noticed soon."""
    return [one for one in traces if one.pid not in known]
