"""Every declaration that is wrong, not only the first: for those who ask what is wrong here.

A server stops at the first; whoever repairs files wants the whole list.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from lemonade.catalog.backend import BackendSpec
from lemonade.catalog.builtin import MODELS_FILE
from lemonade.catalog.catalog import Catalog
from lemonade.catalog.reading import read_object, read_toml, validated
from lemonade.catalog.recipe import RecipeSpec
from lemonade.catalog.sources import Sources, shipped
from lemonade.catalog.trust import NOTHING_ASKED, Trust
from lemonade.core.errors import BadConfigFile, BadDescriptor
from lemonade.core.records import dataclass


@dataclass(frozen=True, slots=True)
class CatalogReview:
    """What is declared.

    Attributes:
        catalog: of all folders; of those that were shipped if a file elsewhere is wrong; `None` if
            even those cannot be used.
        roots: the folders that were looked into, lowest first.
        broken: what is wrong, keys to trust included; each names its file.
        overlays: files outside the shipped folder, which add to what is in it or replace it.
    """

    catalog: Catalog | None
    roots: tuple[Path, ...]
    broken: tuple[BadDescriptor | BadConfigFile, ...]
    overlays: tuple[Path, ...]


def review_catalog(
    roots: Sequence[Path], trust: Callable[[], Trust] = lambda: NOTHING_ASKED
) -> CatalogReview:
    """Read the folders, lowest first; `trust` says whose declarations are believed. Blocks."""
    found = Sources(roots)
    broken: tuple[BadDescriptor | BadConfigFile, ...] = ()
    catalog = None
    try:
        keys = trust()
    except BadConfigFile as error:
        broken, keys = (error,), NOTHING_ASKED
    broken += _broken_files(found, keys)
    if not broken:
        try:
            catalog = Catalog.load(roots, keys)
        except BadDescriptor as error:  # each file is sound, and they contradict each other
            broken = (error,)
    if catalog is None:
        try:
            catalog = Catalog.load([shipped()])
        except BadDescriptor:
            catalog = None
    return CatalogReview(catalog, tuple(roots), broken, _overlays(found))


def _broken_files(found: Sources, trust: Trust) -> tuple[BadDescriptor, ...]:
    broken = []
    kinds: tuple[tuple[str, type[RecipeSpec | BackendSpec]], ...] = (
        ("recipes", RecipeSpec),
        ("backends", BackendSpec),
    )
    for folder, kind in kinds:
        for _, path in found.descriptors(folder):
            try:
                validated(kind, read_toml(path, trust.check), path)
            except BadDescriptor as error:
                broken.append(error)
    for path in found.documents(MODELS_FILE):
        try:
            read_object(path, trust.check)
        except BadDescriptor as error:
            broken.append(error)
    return tuple(broken)


def _overlays(found: Sources) -> tuple[Path, ...]:
    own = shipped()
    files = [
        path
        for folder in ("recipes", "backends")
        for root, path in found.descriptors(folder)
        if root != own
    ]
    return (*files, *(path for path in found.documents(MODELS_FILE) if path.parent != own))
