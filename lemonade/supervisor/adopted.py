"""A process that is served and was not started by us, or by what we were before.

It does what `Spawned` does for one of our own. Its end is seen through a pidfd, or by looking
where the kernel offers none. With what it ended is known only if it is our child all the same,
because this process is the one that started it and has become another program since.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import time
from collections.abc import Callable
from typing import Final

from lemonade.supervisor.beside import Beside
from lemonade.supervisor.leaf import Leaf
from lemonade.supervisor.logs import Output, PipeReader
from lemonade.supervisor.processes import Identity, is_alive
from lemonade.supervisor.spawn import Ending, Reader
from lemonade.supervisor.spool import Spool, SpoolReader

_POLL_INTERVAL: Final = 0.2
_COLLECT_INTERVAL: Final = 0.01


def open_process(identity: Identity) -> int | None:
    """A descriptor for exactly this process; `None` where the kernel offers none. Blocks.

    Raises:
        ProcessLookupError: it is gone.
    """
    try:
        descriptor = os.pidfd_open(identity.pid)
    except ProcessLookupError:
        raise
    except (AttributeError, OSError):  # another system, an old kernel, or a sandbox without it
        descriptor = None
    # Taken first and looked at after: once they agree, it cannot come to mean another process.
    if is_alive(identity):
        return descriptor
    if descriptor is not None:
        os.close(descriptor)
    raise ProcessLookupError(f"process {identity.pid} is gone")


class Adopted:
    """See `Spawned`. Used from the event loop's thread only.

    Attributes:
        identity: pid and start time.
        mark: by what its descendants' output is recognised.
        spool: file it writes to; `None` for a pipe.
        leaf: the cgroup it is in, which `leaf_of` has made; `None` if it has none of its own.
    """

    def __init__(
        self,
        identity: Identity,
        descriptor: int | None,
        *,
        mark: str,
        spool: Spool | None,
        pipe: int | None,
        leaf: Leaf | None = None,
        leaf_of: Identity | None = None,
    ) -> None:
        """Take charge of it.

        Args:
            identity: of the process, proven.
            descriptor: its pidfd, ours from now on.
            mark: by what its descendants' output is recognised.
            spool: file it writes to.
            pipe: or the reading end of its pipe, ours from now on.
            leaf: the cgroup it is in.
            leaf_of: the server that made that.
        """
        self.identity = identity
        self.mark = mark
        self.spool = spool
        self.leaf = leaf
        self.leaf_of = leaf_of
        self._descriptor = descriptor
        self._pipe = pipe
        self._over = False
        self._unwatch: Callable[[], None] = lambda: None

    @property
    def pid(self) -> int:
        """Its number, group and session."""
        return self.identity.pid

    def reader(self, output: Output, beside: Beside) -> Reader:
        """Who carries what it prints to its `Output`."""
        if self._pipe is not None:
            pipe, self._pipe = self._pipe, None
            return PipeReader(pipe, output)
        assert self.spool is not None
        return SpoolReader(self.spool, output, beside)

    def ending(self) -> Ending | None:
        """How it ended, as far as that is known; `None` while it runs."""
        with contextlib.suppress(ChildProcessError):
            info = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
            if info is None:
                return None
            exited = info.si_code == os.CLD_EXITED
            return Ending(info.si_status, None) if exited else Ending(None, info.si_status)
        return None if self._runs() else Ending(None, None)

    def _runs(self) -> bool:
        if self._over:
            return False
        if self._descriptor is None:
            return is_alive(self.identity)
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        return not poll.poll(0)

    def watch(self, on_exit: Callable[[], None]) -> None:
        """Call `on_exit` once from the event loop when the process has ended."""
        loop = asyncio.get_running_loop()
        descriptor = self._descriptor
        if descriptor is None:
            self._look(loop, on_exit)
            return

        def forget() -> None:
            self._unwatch = lambda: None
            loop.remove_reader(descriptor)

        def ended() -> None:
            forget()
            on_exit()

        loop.add_reader(descriptor, ended)
        self._unwatch = forget

    def _look(self, loop: asyncio.AbstractEventLoop, on_exit: Callable[[], None]) -> None:
        if self.ending() is not None:
            on_exit()
            return
        handle = loop.call_later(_POLL_INTERVAL, self._look, loop, on_exit)
        self._unwatch = handle.cancel

    def signal_group(self, number: int) -> None:
        """Signal it, and every process that is still in its group.

        Only while it runs itself: as long as it does, the group's number is its own.
        """
        if not self._runs():
            return
        with contextlib.suppress(OSError):
            os.killpg(self.pid, number)
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(self._descriptor, number)

    def collect(self, *, within: float = 0.0) -> bool:
        """Give its number back to the kernel if that is for us to do; `False` if it runs.

        Args:
            within: seconds to wait for its end, holding up the caller.
        """
        self._unwatch()
        limit = time.monotonic() + within
        while self._runs():
            if time.monotonic() >= limit:
                return False
            time.sleep(_COLLECT_INTERVAL)
        if not self._over:
            self._over = True
            with contextlib.suppress(OSError):
                os.waitpid(self.pid, os.WNOHANG)
            self._close()
        return True

    def let_go(self) -> None:
        """It goes on without us."""
        self._unwatch()
        self._close()

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        if self._pipe is not None:  # nobody has read what it prints
            os.close(self._pipe)
            self._pipe = None
        if self.spool is not None:
            self.spool.close()
