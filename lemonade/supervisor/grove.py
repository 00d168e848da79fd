"""Where the leaves of children stand, and whose each is.

A leaf stands below the cgroup that its server is in. Its name says which ledger, which server and
which child it belongs to, so that no server touches another's, and what a dead server has left is
known without asking anybody. Everything here blocks, for moments.
"""

from __future__ import annotations

from collections.abc import Collection
from hashlib import blake2s
from pathlib import Path
from typing import Final

from lemonade.core.cgroups import cgroup_mounts
from lemonade.core.ids import ChildId
from lemonade.supervisor.leaf import Leaf
from lemonade.supervisor.ledger import Owner, Record
from lemonade.supervisor.processes import Identity, is_alive

_PREFIX: Final = "lemonade"


class Grove:
    """Where one server makes a leaf for each of its children."""

    def __init__(self, base: Path, ledger: Path, owner: Owner) -> None:
        """Nothing is made yet.

        Args:
            base: the cgroup that leaves are made in.
            ledger: whose children these are; servers that share it clear up after each other.
            owner: this server.
        """
        self.base = base
        self._owner = owner
        self._realm = realm_of(ledger, owner)

    def leaf(self, child: ChildId) -> Leaf:
        """The leaf of a child; not made yet."""
        return Leaf(self.base / _name(self._realm, self._owner.identity, child))

    def leftovers(self, recorded: Collection[str], only: Identity | None) -> tuple[Leaf, ...]:
        """Leaves of dead servers of our ledger, but for the children that it still records.

        Args:
            recorded: children that are somebody's business.
            only: the one server whose leaves are asked for; `None` is every one.
        """
        found = []
        for path in sorted(self.base.glob(f"{_PREFIX}.{self._realm}.*")):
            server, child = _parts(path.name)
            if server is None or child in recorded or only not in (None, server):
                continue
            if not is_alive(server):
                found.append(Leaf(path))
        return tuple(found)


def realm_of(ledger: Path, owner: Owner) -> str:
    """A word for a ledger, and the world that the numbers in it are of."""
    words = f"{ledger.resolve()}\0{owner.namespace}\0{owner.user}"
    return blake2s(words.encode(), digest_size=4).hexdigest()


def recorded_leaf(record: Record, mountinfo: str | None = None) -> Leaf | None:
    """The leaf that a record names; `None` if it names none, or what cannot be its own.

    What a file says is not believed: ending a cgroup that is not the child's would end others.
    """
    path = Path(record.cgroup)
    if not record.cgroup or not path.is_absolute() or ".." in path.parts:
        return None
    words = path.name.split(".", 2)
    maker = record.cgroup_of or record.owner.identity
    if words[0] != _PREFIX or _parts(path.name) != (maker, record.child):
        return None
    try:
        mounts = mountinfo or Path("/proc/self/mountinfo").read_text()
    except OSError:
        return None
    seen = any(path.is_relative_to(point) for _, point in cgroup_mounts(mounts))
    return Leaf(path) if seen and (path / "cgroup.procs").exists() else None


def _name(realm: str, server: Identity, child: ChildId) -> str:
    return f"{_PREFIX}.{realm}.{server.pid}-{server.start_ticks}.{child}"


def _parts(name: str) -> tuple[Identity | None, str]:
    """The server and the child that a leaf is named after."""
    words = name.split(".", 3)
    pid, dash, ticks = words[2].partition("-") if len(words) == 4 else ("", "", "")
    if not dash or not pid.isdecimal() or not ticks.isdecimal():
        return None, ""
    return Identity(int(pid), int(ticks)), words[3]
