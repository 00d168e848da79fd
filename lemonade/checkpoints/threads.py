"""Blocking work in threads that can be told to stop.

huggingface-hub blocks, so its calls run in a bounded number of threads. A thread cannot be
cancelled; here it is told to stop, what it waits for is cut, and the task that gave it the work
waits until it has let go of its files and locks.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Final, Generic, TypeVar

T = TypeVar("T")

LETS_GO_WITHIN: Final = 2.0
"""How long a cancelled task waits for its thread, seconds. A thread that waits for bytes is cut
and ends at once; one that has asked something ends with the answer, and changes nothing then."""


class Stopped(Exception):
    """The work was told to stop. Never leaves the room."""


class StopSignal:
    """Tells one piece of work in a thread to stop. May be set from any thread, once or often."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._cut: Callable[[], None] | None = None

    def set(self) -> None:
        """Stop: cut what is waited for, and let every later `check` raise."""
        self._event.set()
        with self._lock:
            if self._cut is not None:
                self._cut()

    def check(self) -> None:
        """Nothing, while the work is wanted.

        Raises:
            Stopped: it is not.
        """
        if self._event.is_set():
            raise Stopped

    def pause(self, seconds: float) -> None:
        """Sleep, but wake up for a stop.

        Raises:
            Stopped: told to.
        """
        if self._event.wait(seconds):
            raise Stopped

    @contextlib.contextmanager
    def cutting(self, cut: Callable[[], None]) -> Iterator[None]:
        """While inside, a stop calls `cut`, which must make a blocked wait end at once."""
        with self._lock:
            self._cut = cut
        try:
            self.check()
            yield
        finally:
            with self._lock:
                self._cut = None


class Workers:
    """A bounded number of threads. Made with the hub, ended with it.

    The threads are daemons: one that waits for a hub that says nothing does not keep the program
    from ending, as those of an executor would.
    """

    def __init__(self, name: str, count: int) -> None:
        self._name = name
        self._free = asyncio.Semaphore(count)
        self._running: set[StopSignal] = set()

    async def run(self, work: Callable[[StopSignal], T], *, hold: bool = False) -> T:
        """Do the work in a thread; cancelling the caller stops it.

        Args:
            work: given a signal that it has to look at.
            hold: whether the work holds something that others wait for, so that a cancelled
                caller waits a moment until it has let go.

        Raises:
            Exception: whatever the work raises.
        """
        await self._free.acquire()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        stop = StopSignal()
        self._running.add(stop)

        def end(settle: Callable[[], None]) -> None:
            self._running.discard(stop)
            self._free.release()
            if not future.done():
                settle()
                future.exception()  # looked at, so that nothing is said if nobody waits any more

        def body() -> None:
            settle: Callable[[], None]
            try:
                settle = functools.partial(future.set_result, work(stop))
            except Exception as error:  # noqa: BLE001 - the caller's to handle, in its own task
                settle = functools.partial(future.set_exception, error)
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(end, settle)

        threading.Thread(target=body, name=self._name, daemon=True).start()
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            stop.set()
            if hold:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LETS_GO_WITHIN):
                        await asyncio.wait([future])
            raise

    def stop(self) -> None:
        """Stop all work."""
        for signal in tuple(self._running):
            signal.set()


class Latest(Generic[T]):
    """Carries values from a thread to a listener on the event loop; only the latest counts.

    At most one delivery is on its way at any time, however fast values come.
    """

    def __init__(self, listen: Callable[[T], None]) -> None:
        self._listen = listen
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._waiting: list[T] = []

    def __call__(self, value: T) -> None:
        """Hand over a value, from any thread."""
        with self._lock:
            on_its_way = bool(self._waiting)
            self._waiting = [value]
        if not on_its_way:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens any more
                self._loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        with self._lock:
            (value,), self._waiting = self._waiting, []
        self._listen(value)
