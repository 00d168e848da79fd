"""Blocking work in threads that can be told to stop.

huggingface-hub blocks, so its calls run in a bounded number of threads. A thread cannot be
cancelled; here it is told to stop, what it waits for is cut, and the task that gave it the work
waits until it has let go of its files and locks.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Generic, TypeVar

T = TypeVar("T")

LETS_GO_WITHIN: Final = 5.0
"""How long a cancelled task waits for its thread, seconds. A thread that is in the middle of
asking the hub something can take longer; it changes nothing any more when it has its answer."""


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
    """A bounded number of threads. Made with the hub, ended with it."""

    def __init__(self, name: str, count: int) -> None:
        self._executor = ThreadPoolExecutor(max_workers=count, thread_name_prefix=name)

    async def run(self, work: Callable[[StopSignal], T]) -> T:
        """Do the work in a thread; cancelling the caller stops it.

        Raises:
            Whatever the work raises.
        """
        stop = StopSignal()
        future = asyncio.get_running_loop().run_in_executor(self._executor, work, stop)
        future.add_done_callback(_seen)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            stop.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LETS_GO_WITHIN):
                    await asyncio.wait([future])
            raise

    def close(self) -> None:
        """Take no more work; what has not begun never does."""
        self._executor.shutdown(wait=False, cancel_futures=True)


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


def _seen(future: asyncio.Future[T]) -> None:
    """Look at the error of work whose task is gone, so that nothing is said about it."""
    if not future.cancelled():
        future.exception()
