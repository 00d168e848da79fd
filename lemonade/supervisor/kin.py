"""Whose process is this: the family of one child, recognised by what a process cannot shed.

A descendant may rename itself, start another session, lose its parent and rewrite what it shows as
its environment. It is recognised by any one of six things: it is in the child's session, which
is named after a pid that we have not given back; it has been noted before, by pid and start time;
its parent is family; it is an orphan that can still write to the child's output, or has kept the
child's random id in its environment; or it is in the cgroup that was made for the child, where
there is one. Names and command lines are never asked.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from lemonade.core.records import dataclass
from lemonade.supervisor.leaf import Leaf
from lemonade.supervisor.processes import (
    Identity,
    ProcessFacts,
    carries,
    executable_of,
    holds_output,
    pids,
    read_process,
    reap_adopted,
    scan,
    send_signal,
)

_INIT: Final = 1
_A_MOMENT: Final = 0.1


@dataclass(frozen=True, slots=True, order=True)
class Descendant:
    """A process noted as family, and the program it ran when it was noticed."""

    identity: Identity
    executable: str | None


class Family:
    """What is known of the descendants of one child.

    Its leader is the process we spawned, and it is asked about only until that one has been
    collected: then the numbers mean nothing any more. Changed in one thread only (`Beside.proc`).
    """

    def __init__(
        self,
        leader: Identity,
        mark: str,
        child: str,
        leaf: Leaf | None = None,
        *,
        known: Iterable[Descendant] = (),
        executables: Iterable[str] = (),
    ) -> None:
        """Begin with what is known of it.

        Args:
            leader: the process that was spawned.
            mark: its output, as `/proc/PID/fd` shows it.
            child: its id, which is in its environment.
            leaf: the cgroup that was made for it.
            known: descendants that were noted before.
            executables: programs that the leader was seen to run before.
        """
        self.leader = leader
        self.leaf = leaf
        self._mark = mark
        self._child = child
        self._noted = {one.identity.pid: one for one in known}
        self._executables = dict.fromkeys(executables)
        self._programs: dict[int, str] = {}
        self._ever: set[int] = {leader.pid, *self._noted}

    def descendants(self) -> tuple[Descendant, ...]:
        """Those that were alive when last looked at, by pid."""
        return tuple(sorted(self._noted.values()))

    def departed(self) -> tuple[int, ...]:
        """The numbers of all that ever belonged to it and that nobody has now. Looks at each."""
        return tuple(pid for pid in sorted(self._ever) if _is_nobodys(pid))

    def program_of(self, pid: int) -> str:
        """What one that ever belonged to it ran when it was noticed; empty if nobody knows."""
        return self._programs.get(pid, "")

    def executables(self) -> tuple[str, ...]:
        """Every program the leader has been seen to run; a launcher becomes another."""
        return tuple(self._executables)

    def note(self, newcomers: Iterable[ProcessFacts]) -> bool:
        """Recognise kin among processes not looked at before.

        Also forgets, and collects, descendants that have ended. Tells whether there were any.
        """
        self._observe_leader()
        before = set(self._noted)
        for pid, known in tuple(self._noted.items()):
            facts = read_process(pid)
            if facts is None or facts.identity != known.identity:
                del self._noted[pid]
            elif facts.dead:
                self._bury(facts)
        known_now = {facts.pid: facts for facts in newcomers}
        for facts in self._recognise(known_now):
            if facts.dead:
                self._bury(facts)
            else:
                self._take_down(facts)
        self._ever |= self._noted.keys()
        return not before <= self._noted.keys()

    def living(self) -> tuple[ProcessFacts, ...]:
        """Every descendant that is alive now; the dead that were re-parented to us are collected.

        Looks at all processes. The leader is not among them.
        """
        table = scan()
        for pid, known in tuple(self._noted.items()):
            facts = table.get(pid)
            if facts is None or facts.identity != known.identity:
                del self._noted[pid]
        alive = []
        for facts in self._recognise(table):
            if facts.dead:
                self._bury(facts)
                continue
            alive.append(facts)
            if facts.pid not in self._noted:
                self._take_down(facts)
        self._ever |= self._noted.keys()
        return tuple(sorted(alive, key=lambda facts: facts.pid))

    def _observe_leader(self) -> None:
        executable = executable_of(self.leader.pid)
        if executable is not None:
            self._executables[executable] = None
            self._programs[self.leader.pid] = executable

    def _take_down(self, facts: ProcessFacts) -> None:
        executable = executable_of(facts.pid)
        self._noted[facts.pid] = Descendant(facts.identity, executable)
        self._programs[facts.pid] = executable or ""

    def _bury(self, facts: ProcessFacts) -> None:
        self._noted.pop(facts.pid, None)
        if facts.parent == os.getpid():
            reap_adopted(facts.pid)

    def end_leaf(self) -> None:
        """SIGKILL to all in its cgroup, if it has one: what forks does not get away."""
        if self.leaf is not None:
            self.leaf.kill()

    def kill_known(self) -> None:
        """SIGKILL to all that are known, and to all in its cgroup, without a look."""
        self.end_leaf()
        for known in self.descendants():
            send_signal(known.identity, signal.SIGKILL)

    def leave_leaf(self) -> None:
        """Remove its cgroup, if nobody is in it any more in a moment."""
        if self.leaf is not None:
            self.leaf.remove(within=_A_MOMENT)

    def _inside(self, candidates: dict[int, ProcessFacts]) -> frozenset[int]:
        """Who is in its cgroup; `candidates` are completed by those that are missing.

        It is looked at last: a number that has changed hands meanwhile is nobody's any more, since
        signals are sent to identities.
        """
        if self.leaf is None:
            return frozenset()
        inside = self.leaf.pids()
        missing = inside - candidates.keys() - {self.leader.pid}
        if not missing:  # as every second while nothing happens
            return inside
        for pid in missing:
            if (facts := read_process(pid)) is not None:
                candidates[pid] = facts
        return self.leaf.pids()

    def _recognise(self, candidates: dict[int, ProcessFacts]) -> list[ProcessFacts]:
        """The family among `candidates`, parents' children included, the leader excluded."""
        own = os.getpid()
        inside = self._inside(candidates)
        strangers = [
            facts
            for facts in candidates.values()
            if facts.pid not in (own, self.leader.pid)
            and facts.start_ticks >= self.leader.start_ticks
        ]
        family = [
            facts for facts in strangers if facts.pid in inside or self._has_a_mark(facts, own)
        ]
        found = {facts.pid for facts in family}
        parents = found | self._noted.keys() | {self.leader.pid}
        grown = True
        while grown:
            children = [
                facts for facts in strangers if facts.parent in parents and facts.pid not in found
            ]
            family += children
            found.update(facts.pid for facts in children)
            parents |= found
            grown = bool(children)
        return family

    def _has_a_mark(self, facts: ProcessFacts, own: int) -> bool:
        if facts.session == self.leader.pid:
            return True
        known = self._noted.get(facts.pid)
        if known is not None and known.identity == facts.identity:
            return True
        if facts.dead or facts.parent not in (own, _INIT):
            return False
        return holds_output(facts.pid, self._mark) or carries(facts.pid, self._child)


def _is_nobodys(pid: int) -> bool:
    facts = read_process(pid)
    return facts is None or facts.dead


class Census:
    """Tells apart the processes that were here at the last look from those that are new.

    Looking at all of them every second would cost more than it finds; a directory listing and the
    few newcomers cost next to nothing. A number that came back between two looks is missed here
    and found by the whole scan that every stop makes.
    """

    def __init__(self) -> None:
        self._known: frozenset[int] = frozenset()

    def newcomers(self) -> list[ProcessFacts]:
        """The facts of processes not seen by the previous call. Blocks."""
        present = frozenset(pids())
        arrived = present - self._known
        self._known = present
        return [facts for pid in sorted(arrived) if (facts := read_process(pid)) is not None]

    def show(self, looks: Iterable[Callable[[Sequence[ProcessFacts]], bool]]) -> list[bool]:
        """Have each look at the newcomers, and return what it says. Blocks."""
        newcomers = self.newcomers()
        return [look(newcomers) for look in looks]
