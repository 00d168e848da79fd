"""`ModelRegistry`: every model there is, by every name it may be asked for.

Three registries in one: built-in models, the user's own (`user_models.json`), and those found in
the operator's folder. Look-ups are in memory and quick; what writes or re-reads the file blocks
and says so.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final

from lemonade.catalog.catalog import Catalog
from lemonade.catalog.labels import with_mode
from lemonade.catalog.model import ModelSpec, Origin
from lemonade.catalog.names import clean_name, own_name, split_origin
from lemonade.catalog.reading import bad, validated
from lemonade.catalog.registration import (
    Entry,
    differences,
    differs,
    read_definition,
    says_labels,
)
from lemonade.core.errors import LemonadeError, UnknownModel
from lemonade.core.inference import JsonObject
from lemonade.core.near import did_you_mean, near_names
from lemonade.storage import changing, read_json, write_json

log = logging.getLogger(__name__)

_LATEST: Final = ":latest"
_PRECEDENCE: Final[tuple[Origin, ...]] = ("user", "extra", "builtin")
"""Who gets the bare name when several registries know it."""


class ModelRegistry:
    """The models of this server. Made by the composition root, lives as long as it.

    Readers see the old tables or the new ones, never half: each change replaces a whole table.
    Writers may be called from any thread; they wait for each other.
    """

    def __init__(self, catalog: Catalog, user_file: Path) -> None:
        self._catalog = catalog
        self._file = user_file
        self.version = 0
        """Counts the changes: what was resolved holds as long as it stays."""
        self._writing = threading.Lock()
        self._tables: dict[Origin, Mapping[str, ModelSpec]] = {
            "builtin": catalog.builtin_models(),
            "user": {},
            "extra": {},
        }
        self._read()

    def resolve(self, name: str) -> ModelSpec:
        """The model a client means: `X`, `user.X`, `extra.X`, `builtin.X`, any with `:latest`.

        Raises:
            MalformedRequest: it is no name at all.
            UnknownModel: nobody has that name; `facts["near"]` lists similar ones.
        """
        cleaned = clean_name(name)
        spec = self._find(cleaned)
        if spec is None and cleaned.endswith(_LATEST):
            spec = self._find(cleaned.removesuffix(_LATEST))
        if spec is None:
            raise self._unknown(cleaned)
        return spec

    def public_name(self, spec: ModelSpec) -> str:
        """The name it is listed under: bare for whoever wins it, prefixed for the others.

        Collections that are not built in keep their prefix even when they win.
        """
        winner = self._bare(spec.name)
        alone = winner is None or winner.origin == spec.origin
        prefixed = (spec.origin != "builtin" and spec.is_collection) or (
            split_origin(spec.name)[0] is not None
        )
        return spec.name if alone and not prefixed else spec.canonical_name

    def all(self) -> tuple[ModelSpec, ...]:
        """Every model, the shadowed ones too."""
        return tuple(spec for origin in _PRECEDENCE for spec in self._tables[origin].values())

    def set_extra(self, specs: Sequence[ModelSpec]) -> None:
        """Replace what was found in the operator's folder."""
        self._tables["extra"] = MappingProxyType({spec.name: spec for spec in specs})
        self.version += 1

    def register(
        self, definition: JsonObject, *, default_source: str = "huggingface", replace: bool = False
    ) -> tuple[ModelSpec, bool]:
        """Register `definition["model_name"]`, or say again what is registered. Blocks.

        Args:
            definition: a pull's or a registration's body.
            default_source: the hub to fetch from if the definition does not say.
            replace: whether another definition under this name is overwritten.

        Returns:
            The model, and whether the name is new.

        Raises:
            MalformedRequest: a field is missing or wrong.
            UnknownRecipe: this version does not have its recipe.
            DefinitionDiffers: the name means something else already.
        """
        name = own_name(definition.get("model_name") or definition.get("model"))
        with self._writing, changing(self._file):
            document = self._read()
            known = document.get(name)
            known = known if isinstance(known, Mapping) else None
            entry = read_definition(
                name,
                definition,
                recipe=self._catalog.recipe,
                default_source=default_source,
                known=known,
            )
            if known is not None and not replace:
                if parts := differences(known, entry):
                    raise differs(name, parts)
                entry = _updated(known, entry, definition)
            spec = self._spec(name, entry)
            if entry != known:
                self._write({**document, name: entry})
            return spec, known is None

    def remove(self, name: str) -> bool:
        """Forget a model of the user's; its files are others' business. Blocks.

        Returns:
            Whether it was one. Built-in models stay.

        Raises:
            UnknownModel: nobody has that name.
        """
        spec = self.resolve(name)
        if spec.origin != "user":
            return False
        with self._writing, changing(self._file):
            document = self._read()
            self._write({key: value for key, value in document.items() if key != spec.name})
        return True

    def set_size(self, name: str, gb: float) -> None:
        """Note what a model really takes (units of 1e9 bytes); kept on disk for the user's own.

        Blocks.

        Raises:
            UnknownModel: nobody has that name.
        """
        spec = self.resolve(name)
        if spec.size_gb == gb:
            return
        if spec.origin != "user":
            table = {**self._tables[spec.origin], spec.name: _resized(spec, gb)}
            self._tables[spec.origin] = MappingProxyType(table)
            self.version += 1
            return
        with self._writing, changing(self._file):
            document = self._read()
            if isinstance(entry := document.get(spec.name), Mapping):
                self._write({**document, spec.name: {**entry, "size": gb}})

    def refresh(self) -> None:
        """Read the file again; somebody else may have written it. Blocks."""
        with self._writing:
            self._read()

    def _find(self, name: str) -> ModelSpec | None:
        origin, rest = split_origin(name)
        # First the prefix: a file called `user.x.gguf` must not take the place of `user.x`.
        named = self._tables[origin].get(rest) if origin else None
        return named or self._bare(name)

    def _bare(self, name: str) -> ModelSpec | None:
        for origin in _PRECEDENCE:
            if spec := self._tables[origin].get(name):
                return spec
        return None

    def _unknown(self, name: str) -> UnknownModel:
        near = near_names(split_origin(name)[1], [spec.name for spec in self.all()])
        remedy = f"{did_you_mean(near)} `lemonade list` shows every model there is.".strip()
        return UnknownModel(
            f"There is no model '{name}'.",
            remedy=remedy,
            facts={"near": list(near), "requested": name},
        )

    def _read(self) -> JsonObject:
        """The file as it is now; the table follows it."""
        document = read_json(self._file) or {}
        table: dict[str, ModelSpec] = {}
        for name, entry in document.items():
            try:
                table[name] = self._spec(own_name(f"user.{name}"), entry)
            except LemonadeError as error:
                log.error("The model '%s' in %s is left out: %s", name, self._file, error.message)
        self._tables["user"] = MappingProxyType(table)
        self.version += 1
        return document

    def _write(self, document: JsonObject) -> None:
        write_json(self._file, document)
        self._read()

    def _spec(self, name: str, entry: object) -> ModelSpec:
        if not isinstance(entry, Mapping):
            raise bad(self._file, (name,), "it must be an object")
        data = {"suggested": True, **entry, "name": name, "origin": "user"}
        spec = validated(ModelSpec, data, self._file, (name,))
        recipe = self._catalog.recipes.get(spec.recipe)
        if recipe is None:
            return spec
        try:
            labels = with_mode(spec.labels, recipe.modes, recipe.id)
        except ValueError as error:
            raise bad(self._file, (name, "labels"), str(error)) from error
        return spec.model_copy(update={"labels": labels})


def _updated(known: JsonObject, entry: Entry, definition: JsonObject) -> Entry:
    """The entry as it was, with what the same definition says anew."""
    labels = entry["labels"] if says_labels(definition) else known.get("labels", entry["labels"])
    return {**known, **entry, "labels": labels}


def _resized(spec: ModelSpec, gb: float) -> ModelSpec:
    return spec.model_copy(update={"size_gb": gb})
