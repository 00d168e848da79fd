"""`ModelStore`: which models are complete on this disk, how large they are, and their removal.

Never asks a hub. A model is complete when each of its roles is; roles that an engine fetches by
itself when it needs them do not count.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final, TypeVar

from lemonade.catalog import (
    EXTRA_SOURCE,
    LOCAL_SOURCE,
    SHIPPED_SOURCE,
    UPLOADED_SOURCE,
    AdapterFiles,
    ModelSpec,
    RecipeSpec,
)
from lemonade.checkpoints.extra import models_in
from lemonade.checkpoints.gguf_header import context_length, is_gguf_file
from lemonade.checkpoints.layout import RepoCache, files_in
from lemonade.checkpoints.records import Records
from lemonade.checkpoints.removal import Removal, Use
from lemonade.checkpoints.resolving import Resolver
from lemonade.core.errors import Incomplete, NotDeletable, NotInRepository
from lemonade.planning.checkpoint import (
    LAZY_ROLES,
    CheckpointPlan,
    FileKind,
    split_checkpoint,
)
from lemonade.planning.gguf import is_gguf

T = TypeVar("T")

_DELETE_WAITS: Final = 10.0
"""How long a removal waits for a download into the same repository, seconds."""

_NOT_FETCHED: Final = (SHIPPED_SOURCE, LOCAL_SOURCE, EXTRA_SOURCE, UPLOADED_SOURCE)


class ModelStore:
    """The models' files on this disk. Lives as long as the server.

    Look-ups may be made from any thread; they block as long as a few directories take to list.
    """

    def __init__(
        self,
        hub_cache: Path,
        *,
        shipped: Callable[[str], Path],
        recipes: Mapping[str, RecipeSpec],
        state: Path,
    ) -> None:
        """Nothing is looked at yet.

        Args:
            hub_cache: the hub cache.
            shipped: the file of a model that is part of the package, by its name.
            recipes: by name, in order of preference.
            state: directory for a document about what was fetched.
        """
        self.hub_cache = hub_cache
        self.recipes = recipes
        self._records = Records(state)
        self._headers = _Remembered(is_gguf_file)
        self._contexts = _Remembered(context_length)
        self._resolver = Resolver(hub_cache, shipped, self._records, self._is_whole)
        self._locks: dict[str, asyncio.Lock] = {}

    def files(
        self, spec: ModelSpec, recipe: RecipeSpec | None = None
    ) -> Mapping[str, tuple[Path, ...]] | None:
        """The files of every role, the one an engine is given first; `None` if any is lacking.

        A role that takes a whole repository is its directory. A collection, which has no files of
        its own, has no roles.
        """
        try:
            return self._files(spec, recipe)
        except Incomplete:
            return None

    def missing(self, spec: ModelSpec, recipe: RecipeSpec | None = None) -> str:
        """A sentence about what is lacking; empty if nothing is."""
        try:
            self._files(spec, recipe)
        except Incomplete as error:
            return error.message
        return ""

    def size_on_disk(self, spec: ModelSpec, recipe: RecipeSpec | None = None) -> int:
        """Bytes of a complete model, all parts of it; 0 if it is not complete."""
        files = self.files(spec, recipe) or {}
        paths = {path for role in files.values() for path in role}
        try:
            return sum(
                sum(file.size_bytes for file in files_in(path))
                if path.is_dir()
                else path.stat().st_size
                for path in paths
            )
        except OSError:  # it is being deleted
            return 0

    def context_length(self, spec: ModelSpec, recipe: RecipeSpec | None = None) -> int | None:
        """The longest context in tokens the model was made for, if it is here and says so."""
        files = (self.files(spec, recipe) or {}).get("main", ())
        if not files or not is_gguf(files[0].name):
            return None
        try:
            return self._contexts.of(files[0])
        except OSError:
            return None

    def scan_extra(self, directory: Path) -> tuple[ModelSpec, ...]:
        """The models in a folder of the operator's. Blocks as long as it takes to walk it."""
        recipe = next((r.id for r in self.recipes.values() if r.files == "gguf"), None)
        return models_in(directory, recipe) if recipe is not None else ()

    def check_deletable(self, spec: ModelSpec) -> None:
        """Refuse what is not ours to delete.

        Raises:
            NotDeletable: its files are part of the package, or the operator's.
        """
        if spec.source == SHIPPED_SOURCE:
            raise NotDeletable(
                f"{spec.name} is part of Lemonade itself.",
                remedy="It takes about a megabyte, and goes when Lemonade is uninstalled.",
            )
        if spec.source == EXTRA_SOURCE:
            path = spec.checkpoints.get("main", "")
            raise NotDeletable(
                f"{spec.name} is yours: it lies at {path}, in the folder of extra models.",
                remedy="Remove it there.",
                facts={"path": path},
            )

    async def delete(self, spec: ModelSpec, others: Sequence[ModelSpec]) -> None:
        """Remove the model's files, except those that others use. It need not be complete.

        Files at a path of the operator's own are left where they are.

        Args:
            spec: the model.
            others: every other model that is registered.

        Raises:
            NotDeletable: its files are part of the package or the operator's, or are being
                downloaded.
            CheckpointError: a file cannot be removed.
        """
        self.check_deletable(spec)
        mine = self._uses(spec)
        theirs = [use for other in others for use in self._uses(other)]
        removal = Removal(self.hub_cache, self._records, self._has_whole)
        try:
            async with asyncio.timeout(_DELETE_WAITS) as waiting:
                async with self.holding(use.folder for use in mine):
                    waiting.reschedule(None)
                    await asyncio.to_thread(removal.remove, mine, theirs)
        except TimeoutError:
            raise NotDeletable(
                f"A download into the repository of {spec.name} is running.",
                remedy="Cancel it or wait for it, then try again.",
            ) from None

    @asynccontextmanager
    async def holding(self, folders: Iterable[str]) -> AsyncIterator[None]:
        """Be the only one of this server at work in these repositories' folders."""
        async with AsyncExitStack() as stack:
            for folder in sorted(set(folders)):  # in one order, so that nobody waits in a circle
                await stack.enter_async_context(self._locks.setdefault(folder, asyncio.Lock()))
            yield

    def remember(self, plans: Iterable[CheckpointPlan], source: str) -> None:
        """Note what was fetched and make its commit the active one. Blocks.

        Raises:
            OutOfDisk, BadConfigFile: our note cannot be written.
            OSError: the cache cannot.
        """
        plans = tuple(plans)
        caches = [RepoCache.of(self.hub_cache, plan.repository, source) for plan in plans]
        noted = [one for one in zip(caches, plans, strict=True) if one[1].noted]
        self._records.add((cache.folder, plan) for cache, plan in noted)
        for cache, plan in zip(caches, plans, strict=True):
            cache.write_ref(plan.revision)

    def kind(self, spec: ModelSpec, recipe: RecipeSpec | None = None) -> FileKind:
        """How the model's checkpoint selects files."""
        recipe = recipe or self.recipes.get(spec.recipe)
        if isinstance(spec, AdapterFiles):
            peft = recipe is not None and recipe.adapters and recipe.adapters.format == "peft"
            return "peft" if peft else "gguf-adapter"
        return recipe.files if recipe is not None else "repository"

    def _files(self, spec: ModelSpec, recipe: RecipeSpec | None) -> Mapping[str, tuple[Path, ...]]:
        kind = self.kind(spec, recipe)
        return {
            role: self._resolver.resolve(role, checkpoint, spec.source, kind)
            for role, checkpoint in spec.checkpoints.items()
            if role not in LAZY_ROLES
        }

    def _uses(self, spec: ModelSpec) -> list[Use]:
        if spec.source in _NOT_FETCHED:
            return []
        kind = self.kind(spec)
        uses = []
        for role, checkpoint in spec.checkpoints.items():
            repository, variant = split_checkpoint(checkpoint)
            folder = RepoCache.of(self.hub_cache, repository, spec.source).folder
            uses.append(Use(folder, variant, kind if role == "main" else "repository"))
        return uses

    def _has_whole(self, use: Use) -> bool:
        try:
            self._resolver.whole_repository(use.folder)
        except (Incomplete, NotInRepository):
            return False
        return True

    def _is_whole(self, path: Path) -> bool:
        """Whether a file is there and, for GGUF, begins like one."""
        if is_gguf(path.name):
            return self._headers.of(path)
        path.stat()
        return True


class _Remembered(dict[Path, tuple[tuple[int, ...], T]]):
    """What a look into a file said, for as long as it is that file, unchanged."""

    def __init__(self, look: Callable[[Path], T]) -> None:
        super().__init__()
        self._look = look
        self._lock = threading.Lock()

    def of(self, path: Path) -> T:
        """The answer for this file.

        Raises:
            OSError: it is not there or cannot be read.
        """
        stat = path.stat()
        stamp = (stat.st_dev, stat.st_ino, stat.st_ctime_ns, stat.st_mtime_ns, stat.st_size)
        with self._lock:
            known = self.get(path)
        if known is None or known[0] != stamp:
            known = (stamp, self._look(path))
            with self._lock:
                self[path] = known
        return known[1]
