"""`Workers`: relay processes beside the server, on the same port.

Each has a listening socket of its own for every address; the kernel deals the connections out.
While a worker is not there, because it starts or has crashed, the server accepts on its sockets
itself. A worker that crashes is replaced, sooner or later depending on how long it lived; one that
hangs is ended, and replaced likewise.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import socket
from collections.abc import Sequence
from typing import Final, Self

from lemonade.core.errors import ConnectionLost
from lemonade.front.granting import Granting, Shares
from lemonade.front.listener import Listener
from lemonade.front.pulse import ASK_LOOKS, LOOK_EVERY, Pulse
from lemonade.gateway import Parts, explain, settled
from lemonade.jobs import TaskOwner
from lemonade.relay import (
    REQUEST_ID,
    Ask,
    Channel,
    Cleared,
    End,
    Explained,
    Finished,
    FromWorker,
    Logged,
    Moved,
    Patience,
    Ping,
    Pong,
    Puzzled,
    Ready,
    Settings,
    Taker,
    Use,
    Welcome,
    read_rest,
)
from lemonade.supervisor import Helper

log = logging.getLogger(__name__)

_PROGRAM: Final = "lemonade.relay.worker"

_LIVED: Final = 10.0
"""Seconds after which a worker that ends is replaced as if it were the first."""

_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 30.0

_END_SECONDS: Final = 2.0
"""How long a worker may take to be gone when its channel has ended."""


class Workers(TaskOwner):
    """Starts, feeds and ends the workers. Made after the listener, and left before it."""

    def __init__(
        self,
        parts: Parts,
        listener: Listener,
        sets: Sequence[Sequence[socket.socket]],
        *,
        shutdown_seconds: float,
    ) -> None:
        super().__init__()
        self._parts = parts
        self._listener = listener
        self._sets = sets
        self._seconds = shutdown_seconds
        self._granting = Granting(parts)
        self._running: dict[int, Running] = {}
        self._closing = asyncio.Event()
        self._said = listener.relay.patience
        parts.crew.wanted = len(sets)

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        for number, sockets in enumerate(self._sets, start=1):
            self._tasks.create_task(self._keep(number, sockets), name=f"worker {number}")
        if self._sets:
            self._tasks.create_task(self._look(), name="look after workers")
        return self

    async def _end_all(self) -> None:
        self._closing.set()
        for one in self._running.values():
            one.end(self._seconds)

    def turn_away(self, seconds: float) -> None:
        """Have them accept nothing more, and give answers under way so many seconds."""
        self._closing.set()
        for one in self._running.values():
            one.end(seconds)

    def hurry(self) -> None:
        """Kill all of them: somebody is impatient."""
        self._closing.set()
        for one in self._running.values():
            one.helper.kill()

    async def _keep(self, number: int, sockets: Sequence[socket.socket]) -> None:
        """One worker after another, until the server ends."""
        loop = asyncio.get_running_loop()
        pause = 0.0
        while not self._closing.is_set():
            instead = await self._listener.listen([one.dup() for one in sockets])
            try:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._closing.wait()
                if self._closing.is_set():
                    return
                began = loop.time()
                how = await self._run(number, sockets, instead)
            finally:
                for server in instead:
                    server.close()
            if self._closing.is_set():
                return
            lived = loop.time() - began
            pause = 0.0 if lived > _LIVED else min(2 * pause, _LONGEST_PAUSE)
            pause = max(pause, _FIRST_PAUSE)
            log.error("Worker %d %s after %.1f s; a new one is started", number, how, lived)

    async def _run(
        self, number: int, sockets: Sequence[socket.socket], instead: Sequence[asyncio.Server]
    ) -> str:
        """One worker, from its start to its end; how it ended."""
        try:
            running = await Running.start(self, number, sockets, instead)
        except OSError as error:
            return f"could not be started ({error.strerror or error})"
        self._running[number] = running
        try:
            if self._closing.is_set():
                running.end(self._seconds)
            await running.gone.wait()
            how = await running.helper.ended(_END_SECONDS)
            return running.hung or how
        finally:
            del self._running[number]
            running.close()
            self._granting.leave(running.shares)
            self.count()

    def count(self) -> None:
        """Note how many are ready."""
        self._parts.crew.ready = sum(one.ready for one in self._running.values())

    async def _look(self) -> None:
        """See what changes unseen: settings and names, and whether workers hang."""
        for number in itertools.count(1):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY):
                    await self._closing.wait()
            if self._closing.is_set():
                return
            for one in self._running.values():
                one.look(ask=number % ASK_LOOKS == 0)
            self._granting.refresh()
            patience = self._listener.relay.patience
            if patience != self._said:
                self._said = patience
                for one in self._running.values():
                    one.channel.send(Settings(patience))

    # ---- for the workers

    @property
    def patience(self) -> Patience:
        """As the workers know it."""
        return self._said

    @property
    def parts(self) -> Parts:
        """Of the server."""
        return self._parts

    @property
    def granting(self) -> Granting:
        """What is granted."""
        return self._granting

    def take(self, sock: socket.socket, moved: Moved, more: socket.socket | None) -> None:
        """A connection comes from a worker."""
        self._tasks.create_task(self._take(sock, moved, more))

    async def _take(self, sock: socket.socket, moved: Moved, more: socket.socket | None) -> None:
        early = moved.early
        lost = self._granting.resident(moved.lost) if moved.lost else None
        try:
            if more is not None:
                early = await read_rest(more)
            if lost is not None:
                lost.lost += 1
                await settled(lost)
            client = self._listener.accept(early, lost)
            loop = asyncio.get_running_loop()
            await loop.connect_accepted_socket(lambda: client, sock)
        except OSError:  # whoever it was has left
            sock.close()
            return
        client.start()

    def explain(self, running: Running, question: Puzzled) -> None:
        """A worker wants to know why it lost an engine."""
        self._tasks.create_task(self._explain(running, question))

    async def _explain(self, running: Running, question: Puzzled) -> None:
        resident = self._granting.resident(question.id)
        error = ConnectionLost("")
        if resident is not None:
            await explain(error, resident)
        incident = str(error.facts.get("incident", ""))
        running.channel.send(
            Explained(question.ticket, incident, error.remedy if incident else "")
        )


class Running:
    """One worker process, and the ways to it.

    Attributes:
        gone: set when its end of the channel is.
        ready: whether it accepts connections.
        hung: how it was ended, as a verb, if it had to be; empty otherwise.
    """

    def __init__(
        self,
        owner: Workers,
        number: int,
        helper: Helper,
        instead: Sequence[asyncio.Server],
        way: socket.socket,
    ) -> None:
        self.helper = helper
        self.gone = asyncio.Event()
        self.ready = False
        self.hung = ""
        self.channel: Channel[FromWorker] = Channel(FromWorker, self._hear, self.gone.set)
        self.shares = Shares(self.channel.send)
        self._owner = owner
        self._number = number
        self._instead = instead
        self._taker = Taker(way, owner.take)
        self._pulse = Pulse()

    @classmethod
    async def start(
        cls,
        owner: Workers,
        number: int,
        sockets: Sequence[socket.socket],
        instead: Sequence[asyncio.Server],
    ) -> Running:
        """Start a process that inherits what it needs.

        Raises:
            OSError: it could not be started.
        """
        channel, its_channel = socket.socketpair()
        way, its_way = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        with its_channel, its_way:
            inherited = [one.fileno() for one in (its_channel, its_way, *sockets)]
            try:
                helper = Helper(_PROGRAM, [str(one) for one in inherited], inherited)
            except OSError:
                channel.close()
                way.close()
                raise
        running = cls(owner, number, helper, instead, way)
        channel.settimeout(0)
        loop = asyncio.get_running_loop()
        await loop.create_unix_connection(lambda: running.channel, sock=channel)
        running.channel.send(Welcome(owner.parts.access, owner.patience))
        owner.granting.join(running.shares)
        log.debug("Worker %d is process %d", number, helper.pid)
        return running

    def look(self, *, ask: bool) -> None:
        """Kill it if it hangs; what follows is as if it had died.

        Args:
            ask: whether it is time to ask it again.
        """
        if self.hung or not (ask or self._pulse.asked):
            return
        seen = self.helper.look()
        if seen is None:  # it is not to blame
            return
        if not self._pulse.asked:
            self._pulse.ask(seen)
            self.channel.send(Ping())
        elif did := self._pulse.hangs(seen):
            self.hung = f"hung and was ended (process {self.helper.pid} {did})"
            self.helper.kill()

    def end(self, seconds: float) -> None:
        """Have it end in order, or else be killed."""
        self.channel.send(End(seconds))
        asyncio.get_running_loop().call_later(seconds + _END_SECONDS, self.helper.kill)

    def close(self) -> None:
        """It is gone."""
        self.ready = False
        self.channel.close()
        self._taker.close()

    def _hear(self, message: FromWorker) -> None:
        owner = self._owner
        match message:
            case Ready():
                self.ready = True
                owner.count()
                for server in self._instead:
                    server.close()
            case Pong():
                self._pulse.answer()
            case Ask():
                owner.granting.ask(self.shares, message.name, message.operation)
            case Use() | Cleared():
                self.shares.hear(message)
            case Finished():
                requests = owner.parts.crew.requests
                requests[self._number] = requests.get(self._number, 0) + 1
                REQUEST_ID.set(message.request_id)
                owner.parts.bus.publish(message.event)
            case Puzzled():
                owner.explain(self, message)
            case Logged():
                REQUEST_ID.set(message.request_id)
                logging.getLogger(message.name).log(message.level, "%s", message.text)
