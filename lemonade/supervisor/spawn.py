"""How a child comes into being: the one place of the server that starts a program.

A child leads a session of its own, has the environment of its `ProcessSpec` and its id, reads
nothing (`/dev/null`) and writes stdout and stderr into one pipe, so that its lines keep their
order. It is killed by the kernel when the thread that forked it ends; that is why only the main
thread, which lives as long as the server, may spawn. One that is to outlive the server writes to a
file instead, and the kernel is not asked to kill it.

The child is not collected before the sweep is over: as long as it is a zombie its pid, its group
and its session cannot come to mean somebody else's.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

from lemonade.core.errors import SpawnFailed
from lemonade.core.ids import ChildId
from lemonade.core.process import ProcessSpec
from lemonade.core.records import dataclass
from lemonade.supervisor.beside import Beside
from lemonade.supervisor.leaf import Leaf, enter
from lemonade.supervisor.limits import ready_limits
from lemonade.supervisor.logs import Output, PipeReader
from lemonade.supervisor.processes import (
    CHILD_VARIABLE,
    Identity,
    ask_for_parent_death_signal,
    read_process,
)
from lemonade.supervisor.spool import Spool, SpoolReader, open_spool

log = logging.getLogger(__name__)

_OUTLIVE: Final = {"LEMONADE_OUTLIVE_SERVER": "1"}
"""Tells an engine that would end with its parent by itself not to."""

_POLL_INTERVAL: Final = 0.05
"""Seconds between two looks at a child where the kernel offers no descriptor for it."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a process ended: by a status or by a signal; neither if somebody else collected it."""

    status: int | None
    signal: int | None

    def by(self, number: int) -> bool:
        """Whether that signal ended it, or what it had started: shells say 128 and the number."""
        return self.signal == number or self.status == 128 + number


class Reader(Protocol):
    """Carries what a child prints to its `Output`."""

    async def run(self) -> None:
        """Do so until cancelled."""

    async def drain(self) -> None:
        """Take what is there."""

    def finish(self) -> None:
        """Let go of it, and close the `Output`."""

    def let_go(self) -> int | None:
        """The same, for a child that goes on; what is to be handed to the next reader."""


class Process(Protocol):
    """A process that is served: `Spawned`, or one that was taken over.

    Attributes:
        identity: pid and start time.
        mark: its output, as its descendants' descriptors show it.
        spool: file it writes to; `None` for a pipe.
        leaf: the cgroup it is in; `None` if it has none of its own.
        leaf_of: the server that made that, if it was not this one.
    """

    identity: Identity
    mark: str
    spool: Spool | None
    leaf: Leaf | None
    leaf_of: Identity | None

    @property
    def pid(self) -> int:
        """Its number, group and session."""
        ...

    def reader(self, output: Output, beside: Beside) -> Reader:
        """Who carries what it prints to its `Output`."""
        ...

    def ending(self) -> Ending | None:
        """How it ended; `None` while it runs."""
        ...

    def watch(self, on_exit: Callable[[], None]) -> None:
        """Call `on_exit` once from the event loop when it has ended."""
        ...

    def signal_group(self, number: int) -> None:
        """Signal every process that is still in its group."""
        ...

    def collect(self, *, within: float = 0.0) -> bool:
        """Give its number back to the kernel; `False` if it has not ended."""
        ...

    def let_go(self) -> None:
        """It goes on without us."""
        ...


class Spawned:
    """A process of ours between its spawn and its collection.

    Made by `spawn`; ended by `collect`. Used from the event loop's thread only.

    Attributes:
        identity: pid and start time. The pid is also its group and its session.
        mark: its output, as its descendants' descriptors show it.
        spool: file it writes to; `None` for a pipe.
        output: reading end of its output pipe, non-blocking; -1 where there is a file.
        leaf: the cgroup it is in; `None` if it has none of its own.
    """

    def __init__(
        self,
        popen: subprocess.Popen[bytes],
        output: int,
        leaf: Leaf | None = None,
        spool: Path | None = None,
    ) -> None:
        facts = read_process(popen.pid)
        self.identity = Identity(popen.pid, facts.start_ticks if facts is not None else 0)
        self.output = output
        self.leaf = leaf
        self.leaf_of: Identity | None = None
        self.mark = f"pipe:[{os.fstat(output).st_ino}]" if spool is None else str(spool)
        self.spool = None if spool is None else Spool(spool)
        self._popen = popen
        self._unwatch: Callable[[], None] = lambda: None

    @property
    def pid(self) -> int:
        """Its number, group and session."""
        return self.identity.pid

    def reader(self, output: Output, beside: Beside) -> Reader:
        """Who carries what it prints to its `Output`."""
        if self.spool is None:
            return PipeReader(self.output, output)
        return SpoolReader(self.spool, output, beside)

    def ending(self) -> Ending | None:
        """How it ended; `None` while it runs. Does not collect it."""
        try:
            info = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        except ChildProcessError:
            return Ending(None, None)
        if info is None:
            return None
        if info.si_code == os.CLD_EXITED:
            return Ending(info.si_status, None)
        return Ending(None, info.si_status)

    def watch(self, on_exit: Callable[[], None]) -> None:
        """Call `on_exit` once from the event loop when the process has ended."""
        loop = asyncio.get_running_loop()
        try:
            descriptor = os.pidfd_open(self.pid)
        except (AttributeError, OSError):  # an old kernel, another system, or a strict sandbox
            self._poll(loop, on_exit)
            return

        def forget() -> None:
            self._unwatch = lambda: None
            loop.remove_reader(descriptor)
            os.close(descriptor)

        def ended() -> None:
            if self.ending() is not None:
                forget()
                on_exit()

        loop.add_reader(descriptor, ended)
        self._unwatch = forget

    def _poll(self, loop: asyncio.AbstractEventLoop, on_exit: Callable[[], None]) -> None:
        if self.ending() is not None:
            on_exit()
            return
        handle = loop.call_later(_POLL_INTERVAL, self._poll, loop, on_exit)
        self._unwatch = handle.cancel

    def signal_group(self, number: int) -> None:
        """Signal every process that is still in its group."""
        if self._popen.returncode is not None:  # the group's number is no longer ours
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    def collect(self, *, within: float = 0.0) -> bool:
        """Give its number back to the kernel; `False` if it has not ended.

        Args:
            within: seconds to wait for that, holding up the caller.
        """
        self._unwatch()
        try:
            self._popen.wait(within)
        except subprocess.TimeoutExpired:
            return False
        return True

    def let_go(self) -> None:
        """It goes on without us."""
        self._unwatch()
        self._popen.returncode = 0  # or it would be complained that nobody has waited for it


def spawn(
    spec: ProcessSpec, child: ChildId, leaf: Leaf | None = None, spool: Path | None = None
) -> Spawned:
    """Start the program of `spec`. Blocks for the milliseconds between fork and exec.

    Args:
        spec: what to start.
        child: in its environment, by which what it starts is recognised.
        leaf: the cgroup to make for it, if that can be had.
        spool: file its output goes to, in an absolute path without links: then it may outlive us.

    Raises:
        SpawnFailed: there is no such program, a limit cannot be had, or the kernel refused.
        RuntimeError: called from another thread than the main one.
    """
    if threading.get_native_id() != os.getpid():
        raise RuntimeError("Children are spawned from the main thread: theirs ends with it.")
    limit = ready_limits(spec.limits, spec.name)
    try:
        reading, writing = _pipe() if spool is None else (-1, open_spool(spool))
    except OSError as error:
        raise _explained(spec, error) from error
    entrance = leaf.make(spec.limits.memory_bytes) if leaf is not None else None
    if entrance is None:
        leaf = None
    try:
        popen = subprocess.Popen(
            spec.argv,
            env={**spec.env, CHILD_VARIABLE: child, **(_OUTLIVE if spool is not None else {})},
            cwd=spec.cwd,
            stdin=subprocess.DEVNULL,
            stdout=writing,
            stderr=writing,
            start_new_session=True,
            close_fds=True,
            preexec_fn=before_exec(  # noqa: PLW1509
                os.getpid(), 0 if spool is not None else spec.stop.on_parent_death, entrance, limit
            ),
        )
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        _give_up(reading, leaf, spool)
        raise _explained(spec, error) from error
    except BaseException:
        _give_up(reading, leaf, spool)
        raise
    finally:
        os.close(writing)
        if entrance is not None:
            os.close(entrance)
    try:
        return Spawned(popen, reading, leaf, spool)
    except OSError as error:  # it cannot be told apart from others: nobody could end it later
        popen.kill()
        popen.wait()
        _give_up(reading, leaf, spool)
        raise _explained(spec, error) from error


def _pipe() -> tuple[int, int]:
    reading, writing = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(reading, False)
    return reading, writing


def _give_up(output: int, leaf: Leaf | None, spool: Path | None) -> None:
    if spool is None:
        os.close(output)
    else:
        spool.unlink(missing_ok=True)
    if leaf is not None:
        leaf.remove()


def before_exec(
    parent: int, death_signal: int, entrance: int | None, limit: Callable[[], None]
) -> Callable[[], None]:
    """What the forked process does before it becomes the program.

    Only the forking thread exists there, so nothing may be waited for.
    """

    def prepare() -> None:
        ask_for_parent_death_signal(death_signal)
        if os.getppid() != parent:  # it ended before the kernel was asked
            os.kill(os.getpid(), signal.SIGKILL)
        enter(entrance)
        limit()

    return prepare


def _explained(spec: ProcessSpec, error: Exception) -> SpawnFailed:
    program = Path(spec.argv[0])
    number = error.errno if isinstance(error, OSError) else None
    why, remedy = _reason(spec, program, number, error)
    return SpawnFailed(
        f"{spec.name}: {why}.",
        remedy=remedy,
        facts={"executable": str(program), "errno": number, "last_lines": []},
    )


def _reason(
    spec: ProcessSpec, program: Path, number: int | None, error: Exception
) -> tuple[str, str]:
    reinstall = "Install the backend again, or correct the path that was configured for it."
    match number:
        case errno.ENOENT | errno.ENOTDIR if spec.cwd is not None and not spec.cwd.is_dir():
            return f"the working directory {spec.cwd} does not exist", reinstall
        case errno.ENOENT | errno.ENOTDIR if not program.exists():
            return f"the executable {program} does not exist", reinstall
        case errno.ENOENT:
            return (
                f"the interpreter or loader that {program} names does not exist",
                "The program was built for another system, or what it is run with was removed. "
                + reinstall,
            )
        case errno.EACCES if program.is_dir():
            return f"{program} is a directory", reinstall
        case errno.EACCES | errno.EPERM:
            return (
                f"the executable {program} may not be executed",
                f"Run `chmod +x {program}`, and check that its file system is not mounted noexec.",
            )
        case errno.ENOEXEC | errno.ELIBBAD:
            return (
                f"{program} is not a program for this machine",
                "It may be damaged or built for another processor. " + reinstall,
            )
        case errno.ETXTBSY:
            return (
                f"the executable {program} is still being written",
                "Wait for its installation to end, then try again.",
            )
        case errno.E2BIG:
            return "its command line is too long", "Shorten the extra arguments of the model."
        case errno.EAGAIN | errno.ENOMEM | errno.EMFILE | errno.ENFILE:
            return (
                f"the system will not start another process ({error})",
                "Unload a model, or raise the limits on processes, memory and open files.",
            )
        case _:
            return f"{program} could not be started ({error})", reinstall
