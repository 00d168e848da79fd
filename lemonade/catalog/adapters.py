"""`AdapterRegistry`: the adapters of every model, in `adapters.json`, and what they are called.

Keyed by the model's canonical name. What the files are and whether an engine takes them is others'
business. Look-ups are in memory; what writes blocks and says so.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from lemonade.catalog.model import ModelSpec
from lemonade.catalog.registry import ModelRegistry
from lemonade.core.errors import MalformedRequest, NameTaken, UnknownModel
from lemonade.core.inference import JsonObject
from lemonade.core.near import did_you_mean, near_names
from lemonade.core.records import dataclass
from lemonade.storage import changing, read_json, write_json

log = logging.getLogger(__name__)

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
_LATEST: Final = "latest"


@dataclass(frozen=True, slots=True)
class Adapter:
    """One adapter of one model.

    Attributes:
        name: unique among the model's; what stands after the colon in `model:name`.
        path: absolute, of a file or a folder.
        scale: by how much it is applied.
        rank: of its matrices; 0 when the file does not say.
        checkpoint: where it was fetched from, `owner/repo` or `owner/repo:variant`; empty if the
            path is the operator's own.
    """

    name: str
    path: Path
    scale: float = 1.0
    rank: int = 0
    checkpoint: str = ""


class AdapterFiles(ModelSpec):
    """What an adapter is to the cache: a model of whose repository the adapter alone is taken."""


class AdapterRegistry:
    """Made by the composition root, lives as long as it. Writers wait for each other."""

    def __init__(self, file: Path, models: ModelRegistry) -> None:
        self._file = file
        self._models = models
        self._writing = threading.Lock()
        self._all: Mapping[str, Mapping[str, Adapter]] = {}
        self._read()

    def of(self, canonical: str) -> Mapping[str, Adapter]:
        """The adapters of a model, by name."""
        return self._all.get(canonical, {})

    def all(self) -> tuple[tuple[ModelSpec, Adapter], ...]:
        """Every adapter with its model; those of models that are gone are left out."""
        specs = {spec.canonical_name: spec for spec in self._models.all()}
        return tuple(
            (specs[canonical], adapter)
            for canonical, table in self._all.items()
            if canonical in specs
            for adapter in table.values()
        )

    def split(self, name: str) -> tuple[str, Adapter | None]:
        """The model and the adapter that a client means by `base` or `base:adapter`.

        The name of a model goes before: a colon in it means nothing else.

        Raises:
            MalformedRequest: it is no name at all.
            UnknownModel: there is no such model, or it has no such adapter.
        """
        if ":" not in name:
            return name, None
        try:
            self._models.resolve(name)
        except UnknownModel as error:
            found = self._split(name.strip(), error)
            if found is None:
                raise
            return found
        return name, None

    def _split(self, name: str, error: UnknownModel) -> tuple[str, Adapter] | None:
        """The two parts; `None` if the first is no model."""
        base, _, word = name.rpartition(":")
        if word == _LATEST and ":" in base:
            base, _, word = base.rpartition(":")
        try:
            spec = self._models.resolve(base)
        except (UnknownModel, MalformedRequest):
            return None
        adapter = self.of(spec.canonical_name).get(word)
        if adapter is None:
            raise self.unknown(spec, word) from error
        return base, adapter

    def unknown(self, spec: ModelSpec, word: str) -> UnknownModel:
        """The error about an adapter that a model does not have."""
        model = self._models.public_name(spec)
        known = self.of(spec.canonical_name)
        near = tuple(f"{model}:{name}" for name in near_names(word, known))
        there = f"It has {', '.join(known)}." if known else "It has none."
        return UnknownModel(
            f"{model} has no adapter '{word}'.",
            remedy=f"{did_you_mean(near)} {there}".strip(),
            facts={"near": list(near), "requested": f"{model}:{word}", "model": model},
        )

    def check_name(self, spec: ModelSpec, name: str) -> None:
        """Whether an adapter of the model may be called that.

        Raises:
            MalformedRequest: it is no name.
            NameTaken: with the model's it would be the name of a model.
        """
        if not _NAME.match(name) or name == _LATEST:
            raise MalformedRequest(
                f"{name[:60]!a} cannot be an adapter's name.",
                remedy="It has letters, digits, dots, hyphens and underscores, at most 64, and is "
                "not 'latest'.",
            )
        whole = f"{self._models.public_name(spec)}:{name}"
        try:
            other = self._models.resolve(whole)
        except UnknownModel:
            return
        raise NameTaken(
            f"'{whole}' is the name of the model {self._models.public_name(other)}.",
            remedy="Choose another name for the adapter.",
        )

    def put(self, canonical: str, adapter: Adapter) -> None:
        """Add it, or replace the one of that name. Blocks."""
        with self._writing, changing(self._file):
            document = dict(self._read())
            entry = {"path": str(adapter.path), "scale": adapter.scale, "rank": adapter.rank}
            entry |= {"checkpoint": adapter.checkpoint} if adapter.checkpoint else {}
            document[canonical] = {**_table(document.get(canonical)), adapter.name: entry}
            self._write(document)

    def erase(self, canonical: str, name: str | None = None) -> None:
        """Forget one adapter of a model, or all. Blocks."""
        with self._writing, changing(self._file):
            document = dict(self._read())
            left = {} if name is None else _table(document.get(canonical))
            left.pop(name or "", None)
            document.pop(canonical, None)
            if left:
                document[canonical] = left
            if document != self._read():
                self._write(document)

    def _read(self) -> JsonObject:
        document = read_json(self._file) or {}
        everything: dict[str, Mapping[str, Adapter]] = {}
        for canonical, table in document.items():
            adapters = {}
            for name, entry in _table(table).items():
                adapter = _adapter(name, entry)
                if adapter is None:
                    log.error("The adapter '%s' of '%s' in %s is left out: it has no path.",
                              name, canonical, self._file)  # fmt: skip
                else:
                    adapters[name] = adapter
            if adapters:
                everything[canonical] = adapters
        self._all = everything
        return document

    def _write(self, document: JsonObject) -> None:
        write_json(self._file, document)
        self._read()


def _table(value: object) -> dict[str, Any]:
    return dict(value) if isinstance(value, Mapping) else {}


def _adapter(name: str, entry: object) -> Adapter | None:
    """What a hand may have written."""
    fields = _table(entry)
    path, scale, rank = fields.get("path"), fields.get("scale", 1.0), fields.get("rank", 0)
    if not _NAME.match(name) or not isinstance(path, str) or not Path(path).is_absolute():
        return None
    number = isinstance(scale, int | float) and not isinstance(scale, bool)
    whole = isinstance(rank, int) and not isinstance(rank, bool) and rank > 0
    checkpoint = fields.get("checkpoint")
    return Adapter(
        name,
        Path(path),
        float(scale) if number else 1.0,
        rank if whole else 0,
        checkpoint if isinstance(checkpoint, str) else "",
    )
