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
from lemonade.catalog.model import ModelSpec, Origin
from lemonade.catalog.names import clean_name, split_origin
from lemonade.core.errors import UnknownModel
from lemonade.core.inference import JsonObject
from lemonade.core.near import did_you_mean, near_names
from lemonade.storage import read_json

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
        self._writing = threading.Lock()
        self._tables: dict[Origin, Mapping[str, ModelSpec]] = {
            "builtin": catalog.builtin_models(),
            "user": {},
            "extra": {},
        }
        self._reload(read_json(user_file) or {})

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
        prefixed = spec.origin != "builtin" and spec.is_collection
        return spec.name if alone and not prefixed else spec.canonical_name

    def all(self) -> tuple[ModelSpec, ...]:
        """Every model, the shadowed ones too."""
        return tuple(spec for origin in _PRECEDENCE for spec in self._tables[origin].values())

    def set_extra(self, specs: Sequence[ModelSpec]) -> None:
        """Replace what was found in the operator's folder."""
        self._tables["extra"] = MappingProxyType({spec.name: spec for spec in specs})

    def _find(self, name: str) -> ModelSpec | None:
        bare = self._bare(name)
        if bare is not None:
            return bare
        origin, rest = split_origin(name)
        return self._tables[origin].get(rest) if origin else None

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

    def _reload(self, document: JsonObject) -> None:
        pass
