"""`Downloads`: fetches the files of models, one job a model however many ask for it.

All files of a repository are of one commit. Before the first byte it is known what is needed and
that there is room for it; the commit becomes the active one when everything is there.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from lemonade.catalog import SHIPPED_SOURCE, ModelSpec, RecipeSpec
from lemonade.checkpoints.adapter_offer import refuse_models
from lemonade.checkpoints.cache import ModelStore
from lemonade.checkpoints.failures import in_our_words, no_room
from lemonade.checkpoints.hub import Hub
from lemonade.checkpoints.layout import RepoCache
from lemonade.checkpoints.offers import LARGEST_MANIFEST, manifest_of, offer
from lemonade.checkpoints.placing import bytes_lacking
from lemonade.core.bus import Bus
from lemonade.core.errors import (
    CheckpointError,
    Incomplete,
    LemonadeError,
    MalformedRequest,
    UnsupportedRegistry,
)
from lemonade.core.events import ModelDownloaded
from lemonade.core.inference import JsonObject
from lemonade.core.progress import Progress, ProgressListener
from lemonade.core.records import dataclass
from lemonade.jobs import Job, Jobs, Kind, Status, TaskOwner
from lemonade.planning.checkpoint import (
    LAZY_ROLES,
    CheckpointPlan,
    RepoFile,
    RepoListing,
    plan_checkpoint,
    registry_of,
    split_checkpoint,
)

HUB: Final = "huggingface"
_OTHER_REGISTRIES: Final = {"modelscope": "ModelScope", "ms": "ModelScope"}


@dataclass(frozen=True, slots=True)
class _Errand:
    """A file to be fetched, and the listing it is from."""

    listing: RepoListing
    file: RepoFile


def _stopped(name: str, status: Status) -> LemonadeError:
    return Incomplete(
        f"The download of {name} was {status}.",
        remedy="Pull it again to continue; what is already here is kept.",
    )


_KIND: Final = Kind(
    type="model",
    stopped=_stopped,
    broken=lambda error: CheckpointError(f"The download failed: {error!r}."),
)


class Downloads(TaskOwner):
    """Owns all downloads of this server; an async context manager.

    Leaving it cancels what runs, and closes the hub. `jobs` are its downloads.
    """

    def __init__(
        self,
        hub: Hub,
        store: ModelStore,
        bus: Bus,
        *,
        recipes: Mapping[str, RecipeSpec] | None = None,
        kinds: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Nothing runs yet.

        Args:
            hub: where files come from.
            store: where they go.
            bus: hears of models that are complete.
            recipes: by name, in order of preference, for `variants`; the store's if not given.
            kinds: recipes for kinds of repository other than GGUF, for `variants`; what the
                recipes say of themselves if not given.
            clock: seconds; for how long finished downloads stay listed.
        """
        super().__init__()
        self._hub = hub
        self._store = store
        self._bus = bus
        self._recipes = store.recipes if recipes is None else recipes
        kinds_of = ((recipe.repo_kind, recipe.id) for recipe in self._recipes.values())
        declared = {kind: name for kind, name in kinds_of if kind}
        self._kinds = declared if kinds is None else kinds
        self.jobs: Jobs[None] = Jobs(_KIND, self._tasks, clock)

    async def download(
        self,
        spec: ModelSpec,
        recipe: RecipeSpec,
        listen: ProgressListener,
        *,
        do_not_upgrade: bool = False,
    ) -> None:
        """Have all files of a model here; joins a download of it that runs already.

        Cancelling leaves the download; it goes on while somebody else waits for it.

        Args:
            spec: the model.
            recipe: its recipe.
            listen: hears how far it is; the last call is marked complete.
            do_not_upgrade: be content with what is here if it is complete, and ask no hub.

        Raises:
            CheckpointError: the files cannot be had; those that came are kept.
        """
        await self._job(spec, recipe, do_not_upgrade=do_not_upgrade).wait(listen)

    def detach(
        self, spec: ModelSpec, recipe: RecipeSpec, *, do_not_upgrade: bool = False
    ) -> JsonObject:
        """Start a download that runs on its own, or let one that runs do so; its snapshot."""
        job = self._job(spec, recipe, do_not_upgrade=do_not_upgrade)
        job.detached = True
        return job.as_json()

    async def cancel(self, spec: ModelSpec) -> None:
        """End the download of a model, if one runs, and wait until it has ended."""
        job = self.jobs.get(spec.canonical_name)
        if job is not None:
            job.stop(Status.CANCELLED)
            await job.ended()

    async def delete(self, spec: ModelSpec, others: Sequence[ModelSpec]) -> None:
        """Remove a model's files, ending its download first; see `ModelStore.delete`.

        Raises:
            NotDeletable, CheckpointError: as there.
        """
        await self.cancel(spec)
        self.jobs.forget(_shown(spec))
        await self._store.delete(spec, others)

    async def variants(self, checkpoint: str, source: str = "") -> JsonObject:
        """What a repository offers.

        Args:
            checkpoint: `owner/repo`, with or without a variant, or its web page.
            source: the registry, if the checkpoint does not say.

        Raises:
            MalformedRequest: the two disagree, or the checkpoint names no repository.
            Offline, HubUnreachable, NotInRepository, GatedRepository: it cannot be asked.
            CheckpointError: it holds nothing this version can offer.
        """
        page = registry_of(checkpoint)
        said = {"hf": HUB, "ms": "modelscope"}.get(source.lower(), source.lower())
        if page and said and page != said:
            raise MalformedRequest(
                f"The address is on {page}, and the source says {said}.",
                remedy="Leave the source out.",
            )
        _refuse_other_registries(page or said)
        if said not in ("", HUB):
            raise MalformedRequest(
                f"There is no model source '{source}'.",
                remedy=f"Leave it out, or write {HUB}.",
            )
        repository, _ = split_checkpoint(checkpoint)
        parts = repository.split("/")
        if len(parts) != 2 or not all(part.strip(".") for part in parts):
            raise MalformedRequest(
                f"'{checkpoint}' does not name a repository.",
                remedy="Write owner/repo, as in unsloth/Qwen3-0.6B-GGUF.",
            )
        listing = await self._hub.listing(repository)
        manifest = manifest_of(listing)
        content = (
            await self._hub.read(listing, manifest, LARGEST_MANIFEST)
            if manifest is not None
            else None
        )
        return offer(listing, page or said or HUB, self._recipes, self._kinds, content)

    # ---- a job's work

    async def _end_all(self) -> None:
        self.jobs.stop_all()

    def _let_go(self) -> None:
        self._hub.close()

    def _job(self, spec: ModelSpec, recipe: RecipeSpec, *, do_not_upgrade: bool) -> Job[None]:
        async def work(job: Job[None]) -> None:
            try:
                await self._carry_out(job, spec, recipe, do_not_upgrade=do_not_upgrade)
            except OSError as error:
                main = spec.checkpoints.get("main", "")
                ours = in_our_words(error, main, self._hub.access.endpoint)
                raise ours or error from error

        return self.jobs.begin(spec.canonical_name, _shown(spec), work)

    async def _carry_out(
        self, job: Job[None], spec: ModelSpec, recipe: RecipeSpec, *, do_not_upgrade: bool
    ) -> None:
        local = spec.source != HUB and spec.source not in _OTHER_REGISTRIES
        if (do_not_upgrade or local) and not await self._lacks(spec, recipe):
            job.tell(Progress(file=spec.name, complete=True))
            return
        if local:
            shipped = spec.source == SHIPPED_SOURCE
            raise Incomplete(
                await self._lacks(spec, recipe),
                remedy="Install Lemonade again." if shipped else "Put the whole file there.",
            )
        _refuse_other_registries(spec.source)
        repositories = {
            role: split_checkpoint(checkpoint)[0]
            for role, checkpoint in spec.checkpoints.items()
            if role not in LAZY_ROLES
        }
        folders = {
            name: RepoCache.of(self._hub.cache_dir, name).folder for name in repositories.values()
        }
        async with self._store.holding(folders.values()):
            listings = {name: await self._hub.listing(name) for name in sorted(folders)}
            kind = self._store.kind(spec, recipe)
            plans = [
                plan_checkpoint(role, spec.checkpoints[role], listings[name], kind)
                for role, name in repositories.items()
            ]
            for plan in plans:
                await refuse_models(self._hub, plan, listings[plan.repository])
            last = await self._fetch(job, _errands(plans, listings))
            await asyncio.to_thread(self._store.remember, plans, HUB)
        if lacking := await self._lacks(spec, recipe):
            raise Incomplete(lacking, remedy="Pull it again.")
        self._bus.publish(ModelDownloaded(spec.canonical_name))
        job.tell(last)

    async def _fetch(self, job: Job[None], errands: Sequence[_Errand]) -> Progress:
        """Fetch file by file; the report of the end, to be told when all is settled."""
        total = sum(errand.file.size_bytes for errand in errands)
        await asyncio.to_thread(_check_room, self._hub.cache_dir, errands)
        report = Progress(file="", total_files=len(errands), total_download_size=total)
        for index, errand in enumerate(errands, start=1):

            def tell(here: int, before: int, errand: _Errand = errand, index: int = index) -> None:
                nonlocal report
                report = Progress(
                    file=errand.file.path,
                    file_index=index,
                    total_files=len(errands),
                    bytes_downloaded=here,
                    bytes_total=max(here, errand.file.size_bytes),
                    total_download_size=total,
                    bytes_previously_downloaded=before,
                )
                job.tell(report)

            await self._hub.fetch(errand.listing, errand.file, tell)
        return replace(report, complete=True)

    async def _lacks(self, spec: ModelSpec, recipe: RecipeSpec) -> str:
        return await asyncio.to_thread(self._store.missing, spec, recipe)


def _shown(spec: ModelSpec) -> str:
    return spec.name if spec.origin == "builtin" else spec.canonical_name


def _refuse_other_registries(source: str) -> None:
    name = _OTHER_REGISTRIES.get(source)
    if name is not None:
        raise UnsupportedRegistry(
            f"Models from {name} cannot be fetched by this version.",
            remedy="Choose one on Hugging Face, or fetch the files yourself and register them "
            "by path.",
        )


def _errands(
    plans: Sequence[CheckpointPlan], listings: Mapping[str, RepoListing]
) -> tuple[_Errand, ...]:
    """The files of all plans, each once."""
    errands: dict[tuple[str, str], _Errand] = {}
    for plan in plans:
        for file in plan.files:
            errand = _Errand(listings[plan.repository], file)
            errands.setdefault((plan.repository, file.path), errand)
    return tuple(errands.values())


def _check_room(cache_dir: Path, errands: Sequence[_Errand]) -> None:
    """Whether everything that is lacking fits on the disk.

    Raises:
        OutOfDisk: it does not; nothing has been fetched.
    """
    needed = sum(bytes_lacking(cache_dir, errand.listing, (errand.file,)) for errand in errands)
    place = cache_dir
    while not place.exists() and place != place.parent:
        place = place.parent
    free = shutil.disk_usage(place).free
    if needed > free:
        raise no_room(needed, free, str(cache_dir))
