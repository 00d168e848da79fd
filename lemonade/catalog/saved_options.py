"""`SavedOptions`: load options kept per model, in `recipe_options.json`.

Keyed by canonical name (`user.X`). What the options mean and whether they are valid is planning's
business; here they are kept. Reading is in memory; what writes blocks.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from lemonade.core.inference import JsonObject
from lemonade.storage import changing, read_json, write_json

log = logging.getLogger(__name__)

_UNSET: Final = (None, "", "auto", -1)
_MEANT: Final = ("ctx_size", -1)
"""The one value that looks unset and is not: a context size chosen by the model."""


def is_unset(key: str, value: object) -> bool:
    """Whether the value means "nothing was said" (`null`, empty, `auto`, -1)."""
    return not isinstance(value, bool) and value in _UNSET and (key, value) != _MEANT


class SavedOptions:
    """The saved options of all models. Made by the composition root, lives as long as it."""

    def __init__(self, file: Path, builtin_names: Iterable[str] = ()) -> None:
        self._file = file
        self._writing = threading.Lock()
        self._all: Mapping[str, Mapping[str, Any]] = {}
        with changing(file):
            document = self._read()
            bare = [name for name in builtin_names if name in document]
            if bare:  # older versions kept built-in models under their bare names
                renamed = {f"builtin.{k}" if k in bare else k: v for k, v in document.items()}
                self._write(renamed)

    def get(self, canonical: str) -> JsonObject:
        """What is saved for the model; empty if nothing is."""
        return self._all.get(canonical, {})

    def put(self, canonical: str, options: JsonObject) -> JsonObject:
        """Replace what is saved; a key that is `null` keeps its saved value. Blocks."""
        with self._writing, changing(self._file):
            before = self._read().get(canonical, {})
            kept = {key: before[key] for key, v in options.items() if v is None and key in before}
            said = {key: value for key, value in options.items() if value is not None}
            return self._store(canonical, {**kept, **said})

    def merge(self, canonical: str, options: JsonObject) -> JsonObject:
        """Change single keys; an unset value erases its key. Blocks."""
        with self._writing, changing(self._file):
            merged = {**self._read().get(canonical, {}), **options}
            said = {key: value for key, value in merged.items() if not is_unset(key, value)}
            return self._store(canonical, said)

    def erase(self, canonical: str) -> None:
        """Forget what is saved for the model. Blocks."""
        with self._writing, changing(self._file):
            self._store(canonical, {})

    def _store(self, canonical: str, options: dict[str, Any]) -> JsonObject:
        document = dict(self._read())
        before = dict(document)
        document.pop(canonical, None)
        if options:
            document[canonical] = options
        if document != before:
            self._write(document)
        return options

    def _read(self) -> Mapping[str, Mapping[str, Any]]:
        document = read_json(self._file) or {}
        for name, value in document.items():
            if not isinstance(value, Mapping):
                log.error("The options of '%s' in %s are no object.", name, self._file)
        self._all = {k: dict(v) for k, v in document.items() if isinstance(v, Mapping)}
        return self._all

    def _write(self, document: JsonObject) -> None:
        write_json(self._file, document)
        self._read()
