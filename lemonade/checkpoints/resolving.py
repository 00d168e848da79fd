"""From a checkpoint to complete files on this disk, without asking anybody.

Where the files are, by `source`: in the package, in the hub cache, or where an absolute path says.
What is not complete is an `Incomplete` whose message is the sentence that says what is lacking.

In the hub cache the active snapshot counts first, then what was fetched by us, then older
snapshots. A GGUF variant is complete when all parts its names announce are there. A whole
repository is complete when everything we noted is there; if we noted nothing, when it holds
weights and a configuration, no index names a file that is not there, and nothing is half fetched.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from lemonade.catalog import EXTRA_SOURCE, LOCAL_SOURCE, SHIPPED_SOURCE, UPLOADED_SOURCE
from lemonade.checkpoints.gguf_header import is_gguf_file
from lemonade.checkpoints.layout import RepoCache, files_in
from lemonade.checkpoints.records import Record, Records
from lemonade.core.errors import Incomplete, LemonadeError, NotInRepository
from lemonade.planning.checkpoint import (
    ADAPTER_KINDS,
    FileKind,
    RepoFile,
    primary_of,
    select_files,
    split_checkpoint,
)
from lemonade.planning.gguf import family_of, is_gguf, is_weights, missing_parts

_WEIGHTS: Final = (".safetensors", ".bin", ".onnx", ".gguf", ".pt", ".pth", ".ckpt")
_CONFIGURATIONS: Final = ("config.json", "genai_config.json", "index.json", "model_index.json")
_INDEX: Final = ".index.json"

Whole = Callable[[Path], bool]
"""Whether a file that is there is what its name says."""


class Resolver:
    """Finds complete files. Holds no state of its own; blocks for as long as a few look-ups."""

    def __init__(
        self, hub_cache: Path, shipped: Callable[[str], Path], records: Records, whole: Whole
    ) -> None:
        self._hub_cache = hub_cache
        self._shipped = shipped
        self._records = records
        self._whole = whole

    def resolve(self, role: str, checkpoint: str, source: str, kind: FileKind) -> tuple[Path, ...]:
        """The files of a role, the one an engine is given first.

        A whole repository is its snapshot's directory.

        Raises:
            Incomplete: not all of them are there.
        """
        try:
            return self._resolve(role, checkpoint, source, kind)
        except OSError as error:  # no folder of ours to look into, or a name no file can have
            raise Incomplete(
                f"{checkpoint} cannot be looked at: {error.strerror or error}."
            ) from error

    def _resolve(
        self, role: str, checkpoint: str, source: str, kind: FileKind
    ) -> tuple[Path, ...]:
        if source == SHIPPED_SOURCE:
            return self._checked([self._shipped_file(checkpoint)])
        if source in (LOCAL_SOURCE, EXTRA_SOURCE):
            return self._local(Path(checkpoint), "", kind)
        if source == UPLOADED_SOURCE:
            place, variant = split_checkpoint(checkpoint)
            return self._local(self._hub_cache / place, variant, kind)
        return self._cached(role, checkpoint, source, kind)

    def whole_repository(self, folder: str) -> Path:
        """The directory of a repository in the hub cache that is there with all its files.

        Raises:
            Incomplete: it is not.
        """
        cache = RepoCache(self._hub_cache, folder)
        snapshots = cache.usable()
        if not snapshots:
            raise Incomplete(f"{folder} has not been downloaded.")
        return self._whole_repository(cache, snapshots, self._records.of(folder, ""), folder)

    def _shipped_file(self, name: str) -> Path:
        try:
            return self._shipped(name)
        except LemonadeError as error:
            raise Incomplete(error.message, remedy=error.remedy) from error

    def _local(self, path: Path, variant: str, kind: FileKind) -> tuple[Path, ...]:
        if path.is_file():
            if not is_gguf(path.name):
                if kind == "gguf" and not _begins_like_gguf(path):
                    raise Incomplete(f"{path} is no GGUF file that can be read.")
                return (path,)
            siblings = family_of(path.name, [each.name for each in path.parent.iterdir()])
            return self._family(path.parent, siblings)
        if not path.is_dir():
            raise Incomplete(f"{path} is not there.")
        files = files_in(path)
        if kind == "repository" and not variant:
            return (path,)
        if variant:
            chosen = [file.path for file in _select(files, variant, kind, str(path))]
        else:
            # A folder without a variant is its first model.
            weights = [file.path for file in files if is_weights(file.path)]
            if not weights:
                raise Incomplete(f"There is no GGUF model in {path}.")
            chosen = list(family_of(weights[0], weights))
        return self._family(path, chosen)

    def _cached(self, role: str, checkpoint: str, source: str, kind: FileKind) -> tuple[Path, ...]:
        repository, variant = split_checkpoint(checkpoint)
        cache = RepoCache.of(self._hub_cache, repository, source)
        snapshots = cache.usable()
        if not snapshots:
            raise Incomplete(f"{repository} has not been downloaded.")
        record = None if kind in ADAPTER_KINDS else self._records.of(cache.folder, variant)
        if kind == "repository" and not variant:
            return (self._whole_repository(cache, snapshots, record, repository),)
        if role != "main":
            kind = "repository"  # an auxiliary role names one file by its path
        first_problem: Incomplete | None = None
        for snapshot in _in_order(cache, snapshots, record):
            try:
                return self._in_snapshot(snapshot, variant, kind, repository, record)
            except Incomplete as error:
                first_problem = first_problem or error
        raise first_problem or Incomplete(f"{repository} has not been downloaded.")

    def _in_snapshot(
        self, snapshot: Path, variant: str, kind: FileKind, where: str, record: Record | None
    ) -> tuple[Path, ...]:
        if record is not None and record.revision == snapshot.name:
            if lacking := _lacking(snapshot, record):
                raise Incomplete(f"{where} lacks {lacking}.")
            chosen = list(record.files)
        else:
            chosen = [file.path for file in _select(files_in(snapshot), variant, kind, where)]
        files = self._family(snapshot, _primary_first(chosen, variant, kind))
        folder = snapshot / variant
        # An engine that takes repositories takes a folder of one like a whole one.
        return (folder,) if kind in ("repository", "peft") and folder.is_dir() else files

    def _whole_repository(
        self, cache: RepoCache, snapshots: Sequence[Path], record: Record | None, where: str
    ) -> Path:
        if record is not None and cache.snapshot(record.revision) in snapshots:
            snapshot = cache.snapshot(record.revision)
            lacking = _lacking(snapshot, record)
            if not lacking:
                return snapshot
            if snapshot == snapshots[0]:
                raise Incomplete(f"{where} lacks {lacking}.")
        snapshot = snapshots[0]
        files = [file.path for file in files_in(snapshot)]
        if not any(path.endswith(_WEIGHTS) for path in files):
            raise Incomplete(f"No weights of {where} are in {snapshot}.")
        if not any(path.rpartition("/")[2] in _CONFIGURATIONS for path in files):
            raise Incomplete(f"No configuration of {where} is in {snapshot}.")
        for path in files:
            for named in _named_by_index(snapshot, path):
                if named not in files:
                    raise Incomplete(f"{where} lacks {named}.")
        if cache.incomplete():
            raise Incomplete(f"A download of {where} has not ended.")
        self._checked([snapshot / path for path in files])
        return snapshot

    def _family(self, directory: Path, names: Sequence[str]) -> tuple[Path, ...]:
        lacking = missing_parts(names)
        if lacking:
            raise Incomplete(f"{directory} lacks {', '.join(lacking)}.")
        return self._checked([directory / name for name in names])

    def _checked(self, paths: Sequence[Path]) -> tuple[Path, ...]:
        for path in paths:
            try:
                whole = self._whole(path)
            except OSError as error:
                raise Incomplete(f"{path} cannot be read: {error.strerror or error}.") from error
            if not whole:
                raise Incomplete(f"{path} is damaged: it does not start like a GGUF file.")
        return tuple(paths)


def _begins_like_gguf(path: Path) -> bool:
    try:
        return is_gguf_file(path)
    except OSError:
        return False


def _select(
    files: Sequence[RepoFile], variant: str, kind: FileKind, where: str
) -> tuple[RepoFile, ...]:
    try:
        return select_files(files, variant, kind=kind, where=where)
    except NotInRepository as error:
        shown = f"{where}:{variant}" if variant else where
        raise Incomplete(f"{shown} has not been downloaded.") from error


def _primary_first(paths: Sequence[str], variant: str, kind: FileKind) -> list[str]:
    primary = primary_of(paths, variant, kind)
    return sorted(paths, key=lambda path: (path != primary, path))


def _in_order(
    cache: RepoCache, snapshots: Sequence[Path], record: Record | None
) -> Sequence[Path]:
    """The active snapshot, the one we fetched into, the others."""
    ours = cache.snapshot(record.revision) if record is not None else None
    rest = sorted(snapshots[1:], key=lambda snapshot: snapshot != ours)
    return [snapshots[0], *rest]


def _lacking(snapshot: Path, record: Record) -> str:
    """What we noted and is not there as it was; empty if nothing is."""
    for path, size in record.files.items():
        try:
            here = (snapshot / path).stat().st_size
        except OSError:
            return path
        if size and here != size:
            return f"{size - here} bytes of {path}"
    return ""


def _named_by_index(snapshot: Path, path: str) -> set[str]:
    """The files an index of sharded weights names, relative to the snapshot."""
    if not path.endswith(_INDEX):
        return set()
    try:
        document = json.loads((snapshot / path).read_bytes())
        named = set(document["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return set()
    folder = path.rpartition("/")[0]
    return {f"{folder}/{name}" if folder else name for name in named if isinstance(name, str)}
