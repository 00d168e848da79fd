"""What the next server must know of our children if this one dies: one JSON file a child.

The file is written before the child counts as started, amended as descendants are noticed, and
removed when nothing of the child is left. It holds identities, never a secret: no environment, and
of the command line only the program. What a child that may be taken over needs besides stands in a
second file (`kept`). Everything here blocks.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Any, Final

from lemonade.core.ids import ChildId
from lemonade.core.inference import JsonObject
from lemonade.core.records import dataclass
from lemonade.storage import write_json
from lemonade.supervisor.kept import SUFFIX, Kept, NewerRecord
from lemonade.supervisor.kin import Descendant
from lemonade.supervisor.processes import Identity, boot_id, own_identity, pid_namespace

SCHEMA: Final = 1
_SPOOL: Final = ".out"


@dataclass(frozen=True, slots=True)
class Owner:
    """The server a record belongs to.

    Attributes:
        identity: the server's process.
        boot: boot the start times count from.
        namespace: the world its pids are numbers of.
        user: whom it runs as.
    """

    identity: Identity
    boot: str
    namespace: str
    user: int

    @classmethod
    def ourselves(cls) -> Owner:
        """This server."""
        return cls(own_identity(), boot_id(), pid_namespace(), os.geteuid())


@dataclass(frozen=True, slots=True)
class Record:
    """One child, as its file tells it.

    Attributes:
        child: which run of which child; the name of the file.
        name: the model, for people.
        owner: the server that started it.
        leader: the process that was spawned; its pid is also its session.
        executables: programs the leader has been seen to run.
        executable_root: the directory its program was to lie under.
        argv0: the program it was started with.
        port: where it listens.
        labels: words for people.
        descendants: processes noticed below it.
        cgroup: folder of the cgroup that was made for it; empty if it has none of its own.
        cgroup_of: the server that made it, if that was another one than the owner.
    """

    child: ChildId
    name: str
    owner: Owner
    leader: Identity
    executables: tuple[str, ...]
    executable_root: str
    argv0: str
    port: int
    labels: Mapping[str, str] = field(default_factory=dict)
    descendants: tuple[Descendant, ...] = ()
    cgroup: str = ""
    cgroup_of: Identity | None = None

    def as_json(self) -> JsonObject:
        """The content of the file."""
        return {
            "schema": SCHEMA,
            "child": self.child,
            "name": self.name,
            "pid": self.leader.pid,
            "start_ticks": self.leader.start_ticks,
            "session": self.leader.pid,
            "executables": list(self.executables),
            "executable_root": self.executable_root,
            "argv0": self.argv0,
            "port": self.port,
            "cgroup": self.cgroup,
            **({"cgroup_of": _both(self.cgroup_of)} if self.cgroup_of is not None else {}),
            "labels": dict(self.labels),
            "boot": self.owner.boot,
            "namespace": self.owner.namespace,
            "user": self.owner.user,
            "owner": {
                "pid": self.owner.identity.pid,
                "start_ticks": self.owner.identity.start_ticks,
            },
            "descendants": [
                {
                    "pid": known.identity.pid,
                    "start_ticks": known.identity.start_ticks,
                    "executable": known.executable,
                }
                for known in self.descendants
            ],
        }

    @classmethod
    def from_json(cls, value: JsonObject) -> Record:
        """Read a record back.

        Raises:
            NewerRecord: it is of a version we do not know yet.
            ValueError: it is not one.
        """
        try:
            schema = value["schema"]
            if isinstance(schema, int) and schema > SCHEMA:
                raise NewerRecord(f"a newer Lemonade wrote it (schema {schema})")
            if schema != SCHEMA:
                raise ValueError(f"its schema is {schema!r}")
            return cls(
                child=ChildId(str(value["child"])),
                name=str(value["name"]),
                owner=Owner(
                    _identity(value["owner"]),
                    str(value["boot"]),
                    str(value["namespace"]),
                    int(value["user"]),
                ),
                leader=_identity(value),
                executables=tuple(str(path) for path in value["executables"]),
                executable_root=str(value["executable_root"]),
                argv0=str(value["argv0"]),
                port=int(value["port"]),
                labels={str(key): str(text) for key, text in value["labels"].items()},
                descendants=tuple(
                    Descendant(_identity(known), known["executable"])
                    for known in value["descendants"]
                ),
                cgroup=str(value.get("cgroup", "")),
                cgroup_of=_identity(value["cgroup_of"]) if "cgroup_of" in value else None,
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{type(error).__name__}: {error}") from error


def _both(identity: Identity) -> JsonObject:
    return {"pid": identity.pid, "start_ticks": identity.start_ticks}


def _identity(value: Mapping[str, Any]) -> Identity:
    pid, start = int(value["pid"]), int(value["start_ticks"])
    if pid <= 1 or start < 0:  # never to be signalled, whatever a file says
        raise ValueError(f"pid {pid} cannot be a child's")
    return Identity(pid, start)


class Ledger:
    """The directory of records. Several servers may share it; each touches its own files."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def write(self, record: Record) -> None:
        """Write or replace the child's record, readable by its owner only.

        Raises:
            OutOfDisk: there is no space.
            BadConfigFile: the directory cannot be written.
        """
        write_json(self._path(record.child), record.as_json(), mode=0o600)

    def remove(self, child: ChildId) -> None:
        """Nothing of the child is left.

        Raises:
            OSError: the file cannot be removed.
        """
        self.drop(self._path(child).name)

    def drop(self, file: str) -> None:
        """Remove a file, which need not be a record, with what belongs to it.

        Raises:
            OSError: it cannot be removed.
        """
        path = self.directory / file
        path.with_suffix(SUFFIX).unlink(missing_ok=True)
        path.unlink(missing_ok=True)
        for end in ("", ".read", ".old"):
            path.with_suffix(f"{_SPOOL}{end}").unlink(missing_ok=True)

    def keep(self, kept: Kept) -> None:
        """Write or replace what the next server needs to take the child over.

        Raises:
            OutOfDisk: there is no space.
            BadConfigFile: the directory cannot be written.
        """
        write_json(self._path(kept.child).with_suffix(SUFFIX), kept.as_json(), mode=0o600)

    def forget(self, child: ChildId) -> None:
        """The child is not to be taken over any more.

        Raises:
            OSError: the file cannot be removed.
        """
        self._path(child).with_suffix(SUFFIX).unlink(missing_ok=True)

    def kept(self, child: ChildId) -> Kept | None:
        """What is needed to take the child over, if that is wanted and can be read."""
        try:
            return Kept.from_json(json.loads(self._path(child).with_suffix(SUFFIX).read_bytes()))
        except (OSError, ValueError, RecursionError):
            return None

    def owner(self, child: ChildId) -> Owner | None:
        """Whose a child is now, if that can be read."""
        try:
            return Record.from_json(json.loads(self._path(child).read_bytes())).owner
        except (OSError, ValueError, RecursionError):
            return None

    def spool(self, child: ChildId) -> Path:
        """The file to which the child writes if it is to outlive us; without links."""
        return Path(os.path.realpath(self._path(child).with_suffix(_SPOOL)))

    def _path(self, child: ChildId) -> Path:
        return self.directory / f"{child}.json"
