"""Removing what a model has in the hub cache, and nothing that another model uses.

A repository that no other registered model names goes as a whole. Of one that others name, only
the files that no other's checkpoint selects go, then contents that no snapshot links to any more,
directories that became empty, and references to commits that are gone. Blocks; runs in a thread.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

from lemonade.checkpoints.layout import RepoCache, files_in
from lemonade.checkpoints.records import Records
from lemonade.core.errors import CheckpointError, NotDeletable, NotInRepository
from lemonade.core.records import dataclass
from lemonade.planning.checkpoint import (
    ADAPTER_KINDS,
    COMPANIONS,
    FileKind,
    RepoFile,
    select_files,
)
from lemonade.storage import FileLock

_RANDOM_PART: Final = re.compile(r"\.[0-9a-f]{8}\Z")


@dataclass(frozen=True, slots=True)
class Use:
    """What a role of a model takes of a repository in the hub cache."""

    folder: str
    variant: str
    kind: FileKind

    @property
    def is_whole(self) -> bool:
        """Whether it is all files, rather than some."""
        return self.kind == "repository" and self.variant in ("", "*")

    @property
    def is_noted(self) -> bool:
        """Whether a note of the variant is one of this use."""
        return self.kind not in ADAPTER_KINDS


class Removal:
    """Removes from one hub cache."""

    def __init__(
        self, hub_cache: Path, records: Records, is_complete: Callable[[Use], bool]
    ) -> None:
        """Set it up.

        Args:
            hub_cache: where.
            records: what we know of selections; kept in step.
            is_complete: whether a use of a whole repository has all it needs. One that has not
                could be anybody's files, and keeps none.
        """
        self._hub_cache = hub_cache
        self._records = records
        self._is_complete = is_complete

    def remove(self, mine: Iterable[Use], others: Iterable[Use]) -> None:
        """Remove what is used by `mine` alone.

        Raises:
            NotDeletable: another process is downloading there.
            CheckpointError: a file cannot be removed.
        """
        mine, others = tuple(mine), tuple(others)
        for folder in sorted({use.folder for use in mine}):
            cache = RepoCache(self._hub_cache, folder)
            ours = [use for use in mine if use.folder == folder]
            theirs = [use for use in others if use.folder == folder]
            try:
                self._remove_from(cache, ours, theirs)
            except OSError as error:
                raise CheckpointError(
                    f"{error.filename or cache.root} cannot be removed: "
                    f"{error.strerror or error}.",
                    remedy="Check its owner and permissions.",
                    facts={"path": str(error.filename or cache.root)},
                ) from error

    def _remove_from(self, cache: RepoCache, ours: Sequence[Use], theirs: Sequence[Use]) -> None:
        if any(use.is_whole and self._is_complete(use) for use in theirs):
            return
        theirs = [use for use in theirs if not use.is_whole]
        for partial in cache.incomplete():
            _take_partial(cache, partial)
        if not theirs:
            self._remove_all(cache)
            return
        dropped = self._unlink(cache, ours, theirs)
        _drop_unused_blobs(cache, dropped)
        _prune(cache)
        for use in set(ours) - set(theirs):
            if use.is_noted:
                self._records.remove(cache.folder, use.variant)
        left = {file.path for snapshot in cache.snapshots() for file in files_in(snapshot)}
        if left <= set(COMPANIONS):
            self._remove_all(cache)

    def _unlink(self, cache: RepoCache, ours: Sequence[Use], theirs: Sequence[Use]) -> list[Path]:
        """Remove our files from all snapshots; returns the contents they linked to."""
        contents = []
        for snapshot in cache.snapshots():
            files = files_in(snapshot)
            drop = self._paths(cache, snapshot, files, ours)
            drop -= self._paths(cache, snapshot, files, theirs)
            for path in sorted(drop):
                pointer = snapshot / path
                if pointer.is_symlink():
                    contents.append(_first_hop(pointer))
                pointer.unlink(missing_ok=True)
        return contents

    def _paths(
        self, cache: RepoCache, snapshot: Path, files: Sequence[RepoFile], uses: Iterable[Use]
    ) -> set[str]:
        """What the uses select of a snapshot, by our notes and by what is there."""
        paths: set[str] = set()
        for use in uses:
            record = self._records.of(cache.folder, use.variant) if use.is_noted else None
            if record is not None and record.revision == snapshot.name:
                paths.update(record.files)
            try:
                chosen = select_files(files, use.variant, kind=use.kind, where=cache.folder)
            except NotInRepository:
                continue
            paths.update(file.path for file in chosen)
        return paths

    def _remove_all(self, cache: RepoCache) -> None:
        contents = list(cache.blobs.iterdir()) if cache.blobs.is_dir() else []
        shared = [_first_hop(blob) for blob in contents if blob.is_symlink()]
        # Without its reference a repository is not used, even if the rest should fail.
        for part in (cache.root / "refs", cache.root, cache.lock("any").parent):
            if part.exists():
                shutil.rmtree(part)
        self._records.remove(cache.folder)
        for content in shared:
            _sweep(cache.hub_cache, content)


def _take_partial(cache: RepoCache, partial: Path) -> None:
    """Remove what is half fetched, unless somebody is at it."""
    etag = _RANDOM_PART.sub("", partial.name.removesuffix(".incomplete"))
    path = cache.lock(etag)
    lock = FileLock(path)
    if path.exists() and not lock.acquire():
        raise NotDeletable(
            f"Another process is downloading into {cache.root}.",
            remedy="Wait for it, or stop it, then try again.",
            facts={"path": str(cache.root)},
        )
    try:
        partial.unlink(missing_ok=True)
    finally:
        lock.release()


def _drop_unused_blobs(cache: RepoCache, contents: Iterable[Path]) -> None:
    linked = {
        _first_hop(Path(parent, name))
        for snapshot in cache.snapshots()
        for parent, _, names in os.walk(snapshot)
        for name in names
        if Path(parent, name).is_symlink()
    }
    for content in set(contents) - linked:
        if content.parent != cache.blobs:
            continue  # a link to somewhere else is not ours to follow
        shared = _first_hop(content) if content.is_symlink() else None
        content.unlink(missing_ok=True)
        if shared is not None:
            _sweep(cache.hub_cache, shared)


def _prune(cache: RepoCache) -> None:
    """Remove empty directories, and references to commits that are gone."""
    snapshots = cache.root / "snapshots"
    for parent, _, _ in os.walk(snapshots, topdown=False):
        if Path(parent) != snapshots and not any(Path(parent).iterdir()):
            Path(parent).rmdir()
    refs = cache.root / "refs"
    for parent, _, names in os.walk(refs):
        for name in names:
            ref = Path(parent, name)
            if not cache.snapshot(ref.read_text(encoding="utf-8").strip()).is_dir():
                ref.unlink()


def _first_hop(link: Path) -> Path:
    """Where a link leads, without following further links there."""
    return Path(os.path.normpath(link.parent / link.readlink()))


def _sweep(hub_cache: Path, content: Path) -> None:
    """Let huggingface-hub remove a content shared between repositories if nobody links to it."""
    if content.parent.parent != hub_cache / "blobs":
        return
    try:
        # There is no public way to it. Where this one is gone, the content stays until
        # `hf cache prune`.
        from huggingface_hub.utils._shared_blobs import sweep_shared_blob
    except ImportError:
        return
    sweep_shared_blob(content, cache_dir=hub_cache)
