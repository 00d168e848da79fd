"""`Foresight`: what a model that is not here yet says about itself, asked of the hub.

Only `explain` asks: a load fetches the same files with the rest. What is asked for is the list of
a repository's files and two small ones among them, within a limit, and kept for a while. A hub
that cannot be asked is no error: it leaves a note of what is not known.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final, TypeVar

from lemonade.catalog import ModelSpec, RecipeSpec
from lemonade.checkpoints.cache import ModelStore
from lemonade.checkpoints.config_json import LARGEST_CONFIG, parse_config, read_facts
from lemonade.checkpoints.hub import Hub
from lemonade.checkpoints.layout import RepoCache
from lemonade.core.errors import HubUnreachable, LemonadeError, Offline
from lemonade.core.inference import JsonObject
from lemonade.core.records import dataclass
from lemonade.planning.checkpoint import (
    LAZY_ROLES,
    RepoListing,
    plan_checkpoint,
    split_checkpoint,
)
from lemonade.planning.checkpoint_facts import (
    CONFIG,
    QUANTISATION,
    CheckpointFacts,
    with_quantisation,
)
from lemonade.planning.transformers_config import is_quantised

K = TypeVar("K")
V = TypeVar("V")

_HUB: Final = "huggingface"
_ANSWERS_WITHIN: Final = 10.0
"""Seconds for all questions together: somebody sits before the answer."""
_FRESH: Final = 300.0
"""How long nobody asks again, seconds."""
_MOST_KEPT: Final = 64
_SHORT: Final = 7
"""Of a commit's name."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """A repository as it was seen."""

    at: float
    listing: RepoListing


class Foresight:
    """Made by the composition root. Nothing is asked before somebody asks it."""

    def __init__(
        self,
        hub: Hub,
        store: ModelStore,
        *,
        within: float = _ANSWERS_WITHIN,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._hub = hub
        self._store = store
        self._within = within
        self._clock = clock
        self._seen: dict[str, _Seen] = {}
        self._contents: dict[tuple[str, str, str], JsonObject | None] = {}

    async def of(
        self,
        spec: ModelSpec,
        recipe: RecipeSpec,
        files: Mapping[str, tuple[Path, ...]] | None,
    ) -> CheckpointFacts:
        """What is known of a model's checkpoint.

        Args:
            spec: the model.
            recipe: its recipe; one that does not plan with a configuration asks for nothing.
            files: where it is on this disk; `None` if it is not.
        """
        if recipe.context is None:
            return CheckpointFacts()
        role = recipe.checkpoints[0]
        if files is not None:
            main = files.get(role, ())
            return await asyncio.to_thread(read_facts, main[0]) if main else CheckpointFacts()
        if spec.source != _HUB or role not in spec.checkpoints:
            return _unknown(f"{spec.checkpoints.get(role, spec.name)} is not here.")
        try:
            async with asyncio.timeout(self._within):
                return await self._of_hub(spec, recipe, role)
        except TimeoutError:
            endpoint = self._hub.access.endpoint
            why = f"the hub {endpoint} has not answered within {self._within:g} s."
        except LemonadeError as error:
            why = error.message
        return await asyncio.to_thread(self._half_here, spec.checkpoints[role], why)

    async def _of_hub(self, spec: ModelSpec, recipe: RecipeSpec, role: str) -> CheckpointFacts:
        kind = self._store.kind(spec, recipe)
        wanted = {
            name: (checkpoint, await self._listing(split_checkpoint(checkpoint)[0]))
            for name, checkpoint in spec.checkpoints.items()
            if name not in LAZY_ROLES
        }
        plans = {
            name: plan_checkpoint(name, checkpoint, listing, kind)
            for name, (checkpoint, listing) in wanted.items()
        }
        main, (_, listing) = plans[role], wanted[role]
        sizes = {(p.repository, f.path): f.size_bytes for p in plans.values() for f in p.files}
        where = f"{main.repository} on the hub (commit {main.revision[:_SHORT]})"
        folder = main.primary.rpartition("/")[0] if main.primary else main.variant.strip("*/")
        inside = f"{folder}/" if folder else ""
        config, said_in = await self._content(listing, inside + CONFIG), inside + CONFIG
        if config is not None and not is_quantised(config):
            beside = await self._content(listing, inside + QUANTISATION)
            said_in = inside + QUANTISATION if beside is not None else said_in
            config = with_quantisation(config, beside)
        return CheckpointFacts(
            config=config,
            config_from=f"{inside}{CONFIG} of {where}",
            quantisation_from=f"{said_in} of {where}",
            files=tuple(file.path for file in main.files),
            size_bytes=sum(sizes.values()),
            files_from=f"the files of {where}",
            note=""
            if config is not None
            else f"not known: there is no {inside}{CONFIG} that can be read in {where}.",
        )

    def _half_here(self, checkpoint: str, why: str) -> CheckpointFacts:
        """What a download that has not ended has brought of it; blocks."""
        repository, variant = split_checkpoint(checkpoint)
        for snapshot in RepoCache.of(self._store.hub_cache, repository).snapshots():
            known = read_facts(snapshot / variant.strip("*/"), looking=False)
            if known.config is not None:
                lacking = f"not known: format and size of the checkpoint: {why}"
                return replace(known, files_from="", note=lacking)
        return _unknown(why)

    async def _listing(self, repository: str) -> RepoListing:
        """As it was a moment ago; where the hub cannot be asked, as it was when it could."""
        seen = self._seen.get(repository)
        now = self._clock()
        if seen is not None and now - seen.at < _FRESH:
            return seen.listing
        try:
            listing = await self._hub.listing(repository)
        except (Offline, HubUnreachable):
            if seen is None:
                raise
            return seen.listing
        self._seen.pop(repository, None)
        _keep(self._seen, repository, _Seen(now, listing))
        return listing

    async def _content(self, listing: RepoListing, path: str) -> JsonObject | None:
        """A small file of a commit, which never changes."""
        file = next((one for one in listing.files if one.path == path), None)
        if file is None or file.size_bytes > LARGEST_CONFIG:
            return None
        key = (listing.repository, listing.revision, path)
        if key not in self._contents:
            content = parse_config(await self._hub.read(listing, path, LARGEST_CONFIG))
            _keep(self._contents, key, content)
        return self._contents[key]


def _keep(kept: dict[K, V], key: K, value: V) -> None:
    """Remember it, and forget what has been known longest."""
    kept[key] = value
    while len(kept) > _MOST_KEPT:
        del kept[next(iter(kept))]


def _unknown(why: str) -> CheckpointFacts:
    return CheckpointFacts(
        note=f"not known: quantisation, type, size and shape of the checkpoint: {why}"
    )
