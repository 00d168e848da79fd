"""How a child comes into being: the one place of the server that starts a program.

A child leads a session of its own, has the environment of its `ProcessSpec` and its id, reads
nothing (`/dev/null`) and writes stdout and stderr into one pipe, so that its lines keep their
order. It is killed by the kernel when the thread that forked it ends; that is why only the main
thread, which lives as long as the server, may spawn.

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
from typing import Final

from lemonade.core.errors import SpawnFailed
from lemonade.core.ids import ChildId
from lemonade.core.process import ProcessSpec
from lemonade.core.records import dataclass
from lemonade.supervisor.leaf import Leaf, enter
from lemonade.supervisor.limits import ready_limits
from lemonade.supervisor.processes import (
    CHILD_VARIABLE,
    Identity,
    ask_for_parent_death_signal,
    read_process,
)

log = logging.getLogger(__name__)

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


class Spawned:
    """A process of ours between its spawn and its collection.

    Made by `spawn`; ended by `collect`. Used from the event loop's thread only.

    Attributes:
        identity: pid and start time. The pid is also its group and its session.
        output: reading end of its output pipe, non-blocking.
        pipe_inode: what its descendants' writing ends of that pipe are recognised by.
        leaf: the cgroup it is in; `None` if it has none of its own.
    """

    def __init__(
        self, popen: subprocess.Popen[bytes], output: int, leaf: Leaf | None = None
    ) -> None:
        facts = read_process(popen.pid)
        self.identity = Identity(popen.pid, facts.start_ticks if facts is not None else 0)
        self.output = output
        self.leaf = leaf
        self.pipe_inode = os.fstat(output).st_ino
        self._popen = popen
        self._unwatch: Callable[[], None] = lambda: None

    @property
    def pid(self) -> int:
        """Its number, group and session."""
        return self.identity.pid

    @property
    def cgroup(self) -> str:
        """The folder of its own cgroup; empty if it has none."""
        return str(self.leaf.path) if self.leaf is not None else ""

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


def spawn(spec: ProcessSpec, child: ChildId, leaf: Leaf | None = None) -> Spawned:
    """Start the program of `spec`. Blocks for the milliseconds between fork and exec.

    Args:
        spec: what to start.
        child: in its environment, by which what it starts is recognised.
        leaf: the cgroup to make for it, if that can be had.

    Raises:
        SpawnFailed: there is no such program, a limit cannot be had, or the kernel refused.
        RuntimeError: called from another thread than the main one.
    """
    if threading.get_native_id() != os.getpid():
        raise RuntimeError("Children are spawned from the main thread: theirs ends with it.")
    limit = ready_limits(spec.limits, spec.name)
    try:
        reading, writing = os.pipe2(os.O_CLOEXEC)
    except OSError as error:
        raise _explained(spec, error) from error
    entrance = leaf.make(spec.limits.memory_bytes) if leaf is not None else None
    if entrance is None:
        leaf = None
    try:
        popen = subprocess.Popen(
            spec.argv,
            env={**spec.env, CHILD_VARIABLE: child},
            cwd=spec.cwd,
            stdin=subprocess.DEVNULL,
            stdout=writing,
            stderr=writing,
            start_new_session=True,
            close_fds=True,
            preexec_fn=before_exec(  # noqa: PLW1509
                os.getpid(), spec.stop.on_parent_death, entrance, limit
            ),
        )
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        _give_up(reading, leaf)
        raise _explained(spec, error) from error
    except BaseException:
        _give_up(reading, leaf)
        raise
    finally:
        os.close(writing)
        if entrance is not None:
            os.close(entrance)
    os.set_blocking(reading, False)
    try:
        return Spawned(popen, reading, leaf)
    except OSError as error:  # it cannot be told apart from others: nobody could end it later
        popen.kill()
        popen.wait()
        _give_up(reading, leaf)
        raise _explained(spec, error) from error


def _give_up(output: int, leaf: Leaf | None) -> None:
    os.close(output)
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
