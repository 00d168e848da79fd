"""`Catalog`: everything that is declared, checked against each other, and how to look it up."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Self, TypeVar

from lemonade.catalog.backend import BackendSpec, PinSpec
from lemonade.catalog.builtin import MODELS_FILE, read_models
from lemonade.catalog.companions import check_files
from lemonade.catalog.families import FamilyRegistry
from lemonade.catalog.lock import read_lock
from lemonade.catalog.model import ModelSpec
from lemonade.catalog.reading import bad, read_toml, validated
from lemonade.catalog.recipe import RecipeSpec
from lemonade.catalog.sources import Sources
from lemonade.catalog.templates import check_backend, check_recipe, overlay_beside
from lemonade.catalog.trust import NOTHING_ASKED, Trust
from lemonade.core.errors import BadDescriptor, UnknownBackend, UnknownModel, UnknownRecipe
from lemonade.core.ids import BackendId
from lemonade.core.near import did_you_mean, near_names
from lemonade.core.sections import SectionSpec

log = logging.getLogger(__name__)

D = TypeVar("D", BackendSpec, RecipeSpec)


class Catalog:
    """The declared backends, recipes and models of some folders.

    Immutable: a change on disk is seen by loading another one.
    """

    def __init__(
        self,
        *,
        sources: Sources,
        recipes: Mapping[str, RecipeSpec],
        backends: Mapping[BackendId, BackendSpec],
        models: Mapping[str, ModelSpec],
        files: Mapping[str, Path],
        trust: Trust = NOTHING_ASKED,
    ) -> None:
        self.recipes = MappingProxyType(dict(recipes))
        self.backends = MappingProxyType(dict(backends))
        self._models = MappingProxyType(dict(models))
        self._sources = sources
        self._files = dict(files)
        self._trust = trust
        named = {recipe.families for recipe in self.recipes.values() if recipe.families}
        self._families = {file: self._read_families(file) for file in named}

    @classmethod
    def load(cls, roots: Sequence[Path], trust: Trust = NOTHING_ASKED) -> Self:
        """Read the folders, lowest first. Blocks.

        Raises:
            BadDescriptor: a file is wrong; the message names file, table and key. Or `trust` asks
                for a signature and it has none.
        """
        sources = Sources(roots)
        files: dict[str, Path] = {}
        recipes = _read(sources, "recipes", RecipeSpec, files, trust)
        backends = _read(sources, "backends", BackendSpec, files, trust)
        for recipe in recipes.values():
            _check_recipe(recipe, files[recipe.id], recipes.values())
        for backend in tuple(backends.values()):
            if backend.backend_id.recipe not in recipes:
                raise bad(
                    files[backend.id],
                    ("id",),
                    f"there is no recipe '{backend.backend_id.recipe}', only {_some(recipes)}",
                )
            path = files[backend.id]
            check_backend(backend, path)
            check_files(backend, path, complete=trust.covers(path))
            backends[backend.id] = _with_locks(backend, path)
        models: dict[str, ModelSpec] = {}
        for path in sources.documents(MODELS_FILE):
            models.update(read_models(path, recipes, trust.check))
        return cls(
            sources=sources,
            recipes=dict(sorted(recipes.items(), key=lambda item: (item[1].order, item[0]))),
            backends={spec.backend_id: spec for spec in backends.values()},
            models=models,
            files=files,
            trust=trust,
        )

    def recipe(self, name: str) -> RecipeSpec:
        """The recipe of that name.

        Raises:
            UnknownRecipe: this version has none.
        """
        found = self.recipes.get(name)
        if found is None:
            near = near_names(name, self.recipes)
            raise UnknownRecipe(
                f"This version has no recipe '{name}' yet.",
                remedy=did_you_mean(near) or f"It has {_some(self.recipes)}.",
                facts={"near": list(near), "requested": name},
            )
        return found

    def backend(self, id: BackendId) -> BackendSpec:  # noqa: A002 - it is one
        """The backend of that id.

        Raises:
            UnknownRecipe: this version does not have its recipe.
            UnknownBackend: the recipe has no such variant.
        """
        found = self.backends.get(id)
        if found is None:
            self.recipe(id.recipe)
            siblings = [str(spec.backend_id) for spec in self.backends_of(id.recipe)]
            near = near_names(str(id), siblings)
            raise UnknownBackend(
                f"There is no backend '{id}'.",
                remedy=did_you_mean(near) or f"{id.recipe} has {_some(siblings)}.",
                facts={"near": list(near), "requested": str(id)},
            )
        return found

    def backends_of(self, recipe: str) -> tuple[BackendSpec, ...]:
        """The recipe's backends, the preferred first; none if the recipe is not declared."""
        of_it = [spec for spec in self.backends.values() if spec.backend_id.recipe == recipe]
        return tuple(sorted(of_it, key=lambda spec: (spec.preference, spec.id)))

    def builtin_models(self) -> Mapping[str, ModelSpec]:
        """The models of `server_models.json`, by bare name."""
        return self._models

    def families(self, file: str) -> FamilyRegistry:
        """The registry of that name; an empty one if there is no such file.

        Raises:
            BadDescriptor: the file is wrong.
        """
        found = self._families.get(file) or self._read_families(file)
        if isinstance(found, BadDescriptor):
            raise BadDescriptor(found.message, remedy=found.remedy, facts=found.facts)
        return found

    def origin_file(self, id: str) -> Path:  # noqa: A002 - of a recipe or a backend
        """The file that declares the recipe or the backend (`recipe:variant`)."""
        return self._files[id]

    def overlay_dir(self, backend: BackendId) -> Path:
        """Where the files shipped beside the backend's descriptor are; it need not exist."""
        return overlay_beside(self._files[str(backend)])

    def shipped_model_file(self, name: str) -> Path:
        """The file, or the folder, of a model that is part of the package.

        Raises:
            UnknownModel: there is no such file.
        """
        for root in reversed(self._sources.roots):
            path = root / "models" / name
            if name not in ("", ".", "..") and not {"/", "\\"} & {*name} and path.exists():
                return path
        raise UnknownModel(
            f"No model file '{name}' came with this version.",
            remedy="Install Lemonade again, or pull another model.",
            facts={"near": [], "requested": name},
        )

    def sections(self) -> Mapping[str, SectionSpec]:
        """What `config.json` may say about each recipe, by name of the section."""
        return {
            recipe.section: SectionSpec(
                name=recipe.section,
                title=recipe.title,
                defaults=_setting_defaults(recipe),
                variants=tuple(
                    sorted(spec.backend_id.variant for spec in self.backends_of(recipe.id))
                ),
                selectable=recipe.selectable_backend,
            )
            for recipe in self.recipes.values()
        }

    def _read_families(self, file: str) -> FamilyRegistry | BadDescriptor:
        """A broken file fails the models that it is for, and neither the server nor the others.

        Raises:
            BadDescriptor: it may not be used, whatever is in it.
        """
        found = self._sources.documents(file)
        if not found:
            log.warning("There is no file %s; models get no arguments by family.", file)
            return FamilyRegistry.empty()
        with suppress(OSError):
            self._trust.check(found[-1], found[-1].read_bytes())
        try:
            return FamilyRegistry.read(found[-1], self._trust.check)
        except BadDescriptor as error:
            log.error("%s Models that it is for cannot be loaded.", error.message)
            remedy = "Correct it, and start the server again."
            return BadDescriptor(error.message, remedy=remedy, facts=error.facts)


def _read(
    sources: Sources, folder: str, kind: type[D], files: dict[str, Path], trust: Trust
) -> dict[str, D]:
    """The specs of a folder by id, higher roots replacing lower ones; notes each one's file."""
    specs: dict[str, D] = {}
    origin: dict[str, Path] = {}
    for root, path in sources.descriptors(folder):
        spec = validated(kind, read_toml(path, trust.check), path)
        name = spec.id
        if origin.get(name) == root:
            raise bad(path, ("id",), f"'{name}' is declared by {files[name].name} beside it too")
        if name in specs:
            log.info("%s replaces %s.", path, files[name])
        specs[name], origin[name], files[name] = spec, root, path
    return specs


def _with_locks(backend: BackendSpec, path: Path) -> BackendSpec:
    """The backend with the packages that files beside its descriptor name."""

    def read(pin: PinSpec, *where: str) -> PinSpec:
        if not pin.lock:
            return pin
        try:
            return pin.with_lock(read_lock(path.with_name(pin.lock)))
        except ValueError as error:
            raise bad(path, (*where, "pin", "provides"), str(error)) from error

    channels = {
        name: channel.model_copy(update={"pin": read(channel.pin, "channels", name)})
        for name, channel in backend.channels.items()
    }
    return backend.model_copy(update={"pin": read(backend.pin), "channels": channels})


def _check_recipe(recipe: RecipeSpec, path: Path, all_recipes: Iterable[RecipeSpec]) -> None:
    check_recipe(recipe, path)
    for other in all_recipes:
        if other.section == recipe.section and other.id < recipe.id:
            raise bad(path, ("section",), f"'{recipe.section}' belongs to recipe {other.id}")


def _setting_defaults(recipe: RecipeSpec) -> dict[str, object]:
    """The recipe's own, and for settings of options the option's default."""
    defaults: dict[str, object] = dict(recipe.settings)
    for option in recipe.option:
        if option.setting and option.type != "backend":
            defaults.setdefault(option.setting, "" if option.default is None else option.default)
    return defaults


def _some(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)[:8]) or "none"
