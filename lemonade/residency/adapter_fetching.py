"""An adapter that is in a hub's repository: fetched as models are, into the same cache.

To the cache it is a model of its own with one checkpoint, which nobody can ask for anything. Its
files are of one commit, and go when the adapter is deleted, unless somebody else uses them. What
else is in the repository is left there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from lemonade.catalog import Adapter, AdapterFiles, ModelSpec, RecipeSpec
from lemonade.checkpoints import Downloads, ModelStore
from lemonade.core.errors import HubUnreachable, Incomplete, Offline
from lemonade.core.progress import Progress


def as_model(spec: ModelSpec, adapter: Adapter) -> ModelSpec:
    """What a model's adapter is to the cache."""
    return AdapterFiles(
        name=f"{spec.name}:{adapter.name}",
        origin=spec.origin,
        recipe=spec.recipe,
        checkpoints={"main": adapter.checkpoint},
    )


class AdapterFetching:
    """Made by the composition root for the `Fitter`."""

    def __init__(self, downloads: Downloads, store: ModelStore) -> None:
        self._downloads = downloads
        self._store = store

    async def fetched(self, spec: ModelSpec, recipe: RecipeSpec, adapter: Adapter) -> Adapter:
        """The adapter with the path where it is now; as it is if it came from no hub.

        Where the hub cannot be asked, what is here already is used.

        Raises:
            CheckpointError: it cannot be had.
        """
        if not adapter.checkpoint:
            return adapter
        wanted = as_model(spec, adapter)
        try:
            await self._downloads.download(wanted, recipe, _unheard)
        except (Offline, HubUnreachable):
            if await self._path(wanted, recipe) is None:
                raise
        path = await self._path(wanted, recipe)
        if path is None:
            raise Incomplete(f"{adapter.checkpoint} has not been downloaded whole.")
        return replace(adapter, path=path)

    async def drop(self, spec: ModelSpec, adapter: Adapter, others: Iterable[ModelSpec]) -> None:
        """Remove what was fetched for it and nobody else uses.

        Args:
            spec: its model.
            adapter: forgotten by now.
            others: every model that is registered, and the other adapters as such.

        Raises:
            CheckpointError: a file cannot be removed.
        """
        if adapter.checkpoint:
            await self._downloads.delete(as_model(spec, adapter), tuple(others))

    async def _path(self, wanted: ModelSpec, recipe: RecipeSpec) -> Path | None:
        files = await asyncio.to_thread(self._store.files, wanted, recipe)
        return files["main"][0] if files and files["main"] else None


def _unheard(_: Progress) -> None:
    """Who waits for it asks the list of downloads."""
