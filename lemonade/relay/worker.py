"""A worker: a process beside the server that accepts on its port and relays what it may.

It holds grants for loaded models and asks their engines itself. A connection with anything else
goes to the server, and stays there. Nothing is decided here, and nothing outlives the server: when
the channel ends, so does the worker.

    python -m lemonade.relay.worker CHANNEL HANDING LISTENING...

The words are descriptors that it inherits.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Final

from lemonade.core.errors import LemonadeError, UpstreamError
from lemonade.core.inference import Inference
from lemonade.dialects import read_inference
from lemonade.relay.client import Client
from lemonade.relay.counting import Over
from lemonade.relay.entrance import Entrance, Entry
from lemonade.relay.exchange import Chance, Exchange, Patience, see_through
from lemonade.relay.fitting import fit_now
from lemonade.relay.grants import Grants, HeldRight
from lemonade.relay.handing import Hander
from lemonade.relay.messages import (
    Channel,
    End,
    Explained,
    Finished,
    Granted,
    Logged,
    Ping,
    Pong,
    Puzzled,
    Ready,
    Settings,
    ToWorker,
    Welcome,
)
from lemonade.relay.reception import BACKLOG, Reception
from lemonade.relay.target import Right, Target
from lemonade.relay.welcome import REQUEST_ID, RequestIds

log = logging.getLogger(__name__)

_EXPLAIN_SECONDS: Final = 4.0
"""How long the server may take to say why an engine was lost."""


class Worker(Reception):
    """Accepts, relays, and hands on. Owns the tasks of what has to wait."""

    def __init__(
        self,
        welcome: Welcome,
        channel: Channel[ToWorker],
        way: socket.socket,
        tasks: asyncio.TaskGroup,
    ) -> None:
        super().__init__(Entrance(welcome.access))
        self.ids = RequestIds()
        self.grants = Grants(channel.send, self._later)
        self._patience = welcome.patience
        self._channel = channel
        self._tasks = tasks
        self._hander = Hander(way, self._later)
        self._tickets = itertools.count(1)
        self._puzzles: dict[int, asyncio.Future[Explained]] = {}

    def hear(self, message: ToWorker) -> None:
        """The server says something."""
        match message:
            case Settings():
                self._patience = message.patience
            case Ping():
                self._channel.send(Pong())
            case Explained():
                waiting = self._puzzles.pop(message.ticket, None)
                if waiting is not None and not waiting.done():
                    waiting.set_result(message)
            case _:
                self.grants.hear(message)

    def open(self, client: Client, entry: Entry, body: bytes) -> Exchange | None:
        """An exchange, if a grant covers the request."""
        started = time.monotonic()
        assert entry.operation is not None
        try:
            wanted = read_inference(entry.operation, body)
            held = self.grants.find(wanted.model, wanted.operation)
            if held is None:
                return None
            adapts = held.grant.recipe.upstream.adapts
            fitted = fit_now(wanted, held.grant) if adapts else (wanted.body, None)
        except LemonadeError:
            return None
        if fitted is None:
            return None
        chance = Chance(wanted, held.grant, HeldRight(held), fitted)
        return Exchange(self, client, entry, body, chance, started)

    def help(self, client: Client) -> None:
        """Nobody here helps: the connection goes."""

    def part_with(self, client: Client, data: bytes) -> None:
        """Pass a connection on to the server."""
        lost = client.asked_before
        handle = client.transport.get_extra_info("socket")
        try:
            descriptor = os.dup(handle.fileno())
            self._hander.hand(descriptor, lost.id if isinstance(lost, Granted) else 0, data)
        except OSError as error:  # too many are open
            log.warning("A connection could not be passed on: %s", error)
        finally:
            client.transport.abort()  # ours only: the descriptor keeps the connection

    # ---- for exchanges

    @property
    def patience(self) -> Patience:
        """As the settings are now."""
        return self._patience

    def step_of(self, model: str) -> str:
        """What a request is waiting for."""
        return "waiting for the engine"

    def spawn(self, exchange: Exchange, deed: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
        """Do something that waits, on behalf of an exchange."""
        return self._tasks.create_task(see_through(exchange, deed))

    def forget(self, exchange: Exchange) -> None:
        """It is over; its client kept it."""

    def count(self, over: Over) -> None:
        """Tell the server, where everybody is told."""
        self._channel.send(Finished(over.request_id, over.event()), urgent=False)

    def passes_on(self, target: Target) -> bool:
        """The server asks again: it loads the model first."""
        return True

    async def again(self, wanted: Inference, target: Target, right: Right) -> Chance:
        """Never asked."""
        raise AssertionError("unreachable: the server asks again")

    async def explain(self, error: UpstreamError, target: Target) -> None:
        """Ask the server what it knows."""
        assert isinstance(target, Granted)
        ticket = next(self._tickets)
        waiting = self._puzzles[ticket] = self.loop.create_future()
        self._channel.send(Puzzled(ticket, target.id))
        try:
            async with asyncio.timeout(_EXPLAIN_SECONDS):
                known = await waiting
        except TimeoutError:
            self._puzzles.pop(ticket, None)
            return
        if known.incident:
            error.facts["incident"] = known.incident
            error.remedy = known.remedy

    def _later(self, deed: Coroutine[Any, Any, None]) -> None:
        self._tasks.create_task(deed)


class _Lines(logging.Handler):
    """What is logged here stands in the server's log."""

    def __init__(self, channel: Channel[ToWorker]) -> None:
        super().__init__()
        self._channel = channel

    def emit(self, record: logging.LogRecord) -> None:
        """Send a line."""
        text = self.format(record)
        self._channel.send(Logged(record.levelno, record.name, text, REQUEST_ID.get()))


async def _serve(channel_end: int, handing_end: int, listening: Sequence[int]) -> None:
    loop = asyncio.get_running_loop()
    first: asyncio.Future[ToWorker] = loop.create_future()
    end: asyncio.Future[float] = loop.create_future()
    worker: Worker | None = None
    early: list[ToWorker] = []

    def hear(message: ToWorker) -> None:
        if isinstance(message, End):
            if not end.done():
                end.set_result(message.seconds)
        elif worker is not None:
            worker.hear(message)
        elif not first.done():
            first.set_result(message)
        else:
            early.append(message)

    def ended() -> None:
        if not end.done():
            end.set_result(0.0)
        if not first.done():
            first.cancel()

    channel: Channel[ToWorker] = Channel(ToWorker, hear, ended)
    await loop.create_unix_connection(lambda: channel, sock=socket.socket(fileno=channel_end))
    welcome = await first
    assert isinstance(welcome, Welcome)
    logging.getLogger().addHandler(_Lines(channel))
    logging.getLogger().setLevel(logging.INFO)
    way = socket.socket(fileno=handing_end)
    way.settimeout(0)
    async with asyncio.TaskGroup() as tasks:
        worker = Worker(welcome, channel, way, tasks)
        for message in early:
            worker.hear(message)
        servers = []
        for one in listening:
            accepting = socket.socket(fileno=one)
            servers.append(
                await loop.create_server(worker.accept, sock=accepting, backlog=BACKLOG)
            )
        channel.send(Ready())
        _settle_memory()
        seconds = await end
        for server in servers:
            server.close()
        await worker.wind_up(seconds)
        worker.shut()
        await worker.grants.aclose()
    channel.close()
    way.close()


def _settle_memory() -> None:
    """As `gateway.process.settle_memory`; nobody waits for this start, so it collects first."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 50, 100)


def main(words: Sequence[str]) -> int:
    """Serve until the channel ends."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the server says when it is over
    channel, handing, *listening = map(int, words)
    try:
        import uvloop
    except ImportError:
        factory = None
    else:
        factory = uvloop.Loop
    with asyncio.Runner(loop_factory=factory) as runner:
        try:
            runner.run(_serve(channel, handing, listening))
        except asyncio.CancelledError:  # the server was gone before it said anything
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
