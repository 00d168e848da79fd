"""Which files a checkpoint stood for when it was fetched.

A snapshot shows what is there, not what belongs to it: somebody may have fetched one half of a
repository, and another tool the other. So what was selected is noted here, in a document of ours
beside the other state: nothing of ours is put into the hub cache, which other tools share.
The record is a help, not the truth: every file it names is looked at before it counts, and
without it completeness is judged by what is there.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from lemonade.core.inference import JsonObject
from lemonade.core.records import dataclass
from lemonade.planning.checkpoint import CheckpointPlan
from lemonade.storage import changing, read_json, write_json

FILE_NAME: Final = "checkpoints.json"


@dataclass(frozen=True, slots=True)
class Record:
    """The files of a checkpoint at one commit: path to size, without companions."""

    revision: str
    files: Mapping[str, int]


class Records:
    """The document. Reading is in memory after the first; who writes reads again before."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / FILE_NAME
        self._lock = threading.Lock()
        self._table: dict[str, dict[str, Record]] | None = None

    def of(self, folder: str, variant: str) -> Record | None:
        """What was selected for a variant of a repository, if we fetched it. May block once."""
        with self._lock:
            return self._read().get(folder, {}).get(variant)

    def add(self, entries: Iterable[tuple[str, CheckpointPlan]]) -> None:
        """Note plans that were carried out, each with its repository's folder. Blocks.

        Raises:
            OutOfDisk, BadConfigFile: the document cannot be written.
        """
        with self._lock, changing(self._path):
            table = {folder: dict(known) for folder, known in self._read_again().items()}
            for folder, plan in entries:
                sizes = {file.path: file.size_bytes for file in plan.files}
                record = Record(plan.revision, {path: sizes[path] for path in plan.essential})
                table.setdefault(folder, {})[plan.variant] = record
            self._write(table)

    def remove(self, folder: str, variant: str | None = None) -> None:
        """Forget one variant, or the whole repository. Blocks.

        Raises:
            OutOfDisk, BadConfigFile: the document cannot be written.
        """
        with self._lock, changing(self._path):
            table = {name: dict(known) for name, known in self._read_again().items()}
            known = table.get(folder)
            if known is None:
                return
            if variant is None:
                del table[folder]
            else:
                known.pop(variant, None)
                if not known:
                    del table[folder]
            self._write(table)

    def _read_again(self) -> dict[str, dict[str, Record]]:
        """What is in the file now: other servers that share the directory write it too."""
        self._table = None
        return self._read()

    def _read(self) -> dict[str, dict[str, Record]]:
        if self._table is None:
            document = read_json(self._path) or {}
            repositories = document.get("repositories")
            self._table = _parse(repositories) if isinstance(repositories, Mapping) else {}
        return self._table

    def _write(self, table: dict[str, dict[str, Record]]) -> None:
        if table == self._table:
            return
        write_json(
            self._path,
            {
                "repositories": {
                    folder: {
                        variant: {"revision": record.revision, "files": dict(record.files)}
                        for variant, record in sorted(known.items())
                    }
                    for folder, known in sorted(table.items())
                }
            },
        )
        self._table = table


def _parse(repositories: JsonObject) -> dict[str, dict[str, Record]]:
    """What can be read of the document; the rest is as if it had never been noted."""
    table: dict[str, dict[str, Record]] = {}
    for folder, known in repositories.items():
        if not isinstance(known, Mapping):
            continue
        for variant, row in known.items():
            record = _record(row)
            if record is not None:
                table.setdefault(folder, {})[variant] = record
    return table


def _record(row: object) -> Record | None:
    if not isinstance(row, Mapping):
        return None
    revision, files = row.get("revision"), row.get("files")
    if not isinstance(revision, str) or "/" in revision or not isinstance(files, Mapping):
        return None
    if not files or not all(isinstance(size, int) for size in files.values()):
        return None
    if any(path.startswith("/") or ".." in path.split("/") for path in files):
        return None
    return Record(revision, dict(files))
