"""`Configuration`: the live settings, where each came from, and the file they are kept in.

Layers, lowest first: what Lemonade and its recipes default to, the file LEMONADE_DEFAULTS_PATH
names, `config.json`, changes that were not to be kept, and the command line.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from lemonade.config.changes import normalise
from lemonade.config.checking import (
    Sections,
    default_document,
    settings_from,
    sort_out,
    unknown_setting,
)
from lemonade.config.keys import AT_START, NOT_YET
from lemonade.config.migration import migrate
from lemonade.config.sections import BUILTIN, check_paths, pin_key
from lemonade.config.settings import (
    CONFIG_VERSION,
    NOT_SETTABLE,
    Settings,
    all_fields,
    effect_of,
)
from lemonade.config.tree import Tree, leaves, merge, nested, prune, without
from lemonade.core.errors import BadConfigFile, BadSetting, LemonadeError, UnknownSetting
from lemonade.core.inference import JsonObject
from lemonade.storage import Directories, changing, expanded, read_json, write_json

log = logging.getLogger(__name__)

CONFIG_FILE: Final = "config.json"
_VERSION: Final = "config_version"
_YES: Final = ("1", "true", "True", "TRUE")


class Configuration:
    """The one owner of the settings. Made by the composition root, lives as long as the server.

    `settings` is replaced as a whole: readers keep what they have or take the new one. Changes
    may come from any thread; they wait for each other.
    """

    def __init__(
        self,
        directories: Directories,
        environ: Mapping[str, str],
        *,
        overrides: Mapping[str, object] | None = None,
        sections: Sections | None = None,
    ) -> None:
        """Read all layers. Blocks.

        Args:
            directories: where `config.json` is.
            environ: the server's environment.
            overrides: from the command line, by dotted key; `None` means not given.
            sections: of the recipes there are.

        Raises:
            BadSetting: a value cannot be; the message names the key and the file.
            BadConfigFile: a file is there and cannot be read.
        """
        self.file: Final = directories.config / CONFIG_FILE
        self._sections: Final = dict(sections or {})
        self._environ = environ
        self._changing = threading.Lock()
        self._defaults = default_document(self._sections)
        site = environ.get("LEMONADE_DEFAULTS_PATH", "")
        self._site_name = f"file {site}"
        self._site = self._known(_read_site(site), site)
        self._raw = self._read_file()
        self._session: Tree = {}
        self._overrides: Tree = {}
        self._settings = Settings()
        self._origins: Mapping[str, str] = {}
        if environ.get("LEMONADE_CI_MODE", "") in _YES:
            self._overrides = {"log_level": "debug"}
        for key, value in (overrides or {}).items():
            if value is not None:
                self._overrides = merge(self._overrides, nested(key, value))
        self._take(self._raw, self._session, self._overrides)

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self._settings

    @property
    def origins(self) -> Mapping[str, str]:
        """For each dotted key, who decided it: `default`, `file …`, `api` or `flag`."""
        return self._origins

    def snapshot(self) -> dict[str, Any]:
        """Every setting in force, nested."""
        return self._settings.document()

    def defaults(self) -> dict[str, Any]:
        """What Lemonade and its recipes default to, whatever is decided here."""
        return default_document(self._sections)

    def binary_pin(self, section: str, variant: str) -> str:
        """Which executable a variant uses: `builtin`, `latest`, a version or a path.

        `LEMONADE_<SECTION>_<VARIANT>_BIN` wins over `<section>.<variant>_bin`.
        """
        key = pin_key(variant)
        name = f"LEMONADE_{section}_{key}".upper().replace("-", "_")
        chosen = self._environ.get(name) or self._settings.section(section).get(key)
        return str(chosen or BUILTIN)

    def update(self, changes: JsonObject, *, persist: bool) -> tuple[dict[str, Any], str]:
        """Change settings, all or none. Blocks when it persists.

        Args:
            changes: nested, or flat as `llamacpp_args`.
            persist: whether `config.json` follows.

        Returns:
            The changes in the document's own form, and a message for people (may be empty).

        Raises:
            UnknownSetting: a key is no setting; nothing is changed.
            BadSetting: a value cannot be; nothing is changed.
        """
        updated, message = normalise(changes, self._sections)
        self._refuse_unknown(updated)
        _check_texts(updated)
        for name in self._sections:
            check_paths(name, updated.get(name, {}))
        _check_folder(updated.get("extra_models_dir"))
        _check_port(updated, "")
        with self._changing:
            settings_from(merge(self.snapshot(), updated), self._sections, "")
            overrides = without(
                self._overrides, {"broadcast": None} if "broadcast" in updated else {}
            )
            if persist:
                with changing(self.file):
                    raw = self._pruned(merge(self._on_disk(), updated))
                    self._take(raw, without(self._session, updated), overrides)
                    message = _sentences(message, self._save(raw))
            else:
                self._take(self._raw, merge(self._session, updated), overrides)
            message = _sentences(message, _later(updated))
            hidden = [key for key, _ in leaves(updated) if self._origins.get(key) == "flag"]
        if hidden:
            told = f"{', '.join(hidden)} stays as the command line says until the next start."
            message = _sentences(message, told)
        return updated, message

    def _take(self, raw: Tree, session: Tree, overrides: Tree) -> None:
        """Put the layers together; if that fails, everything stays as it was."""
        known, _ = sort_out(raw, self._sections)
        layers = (
            ("default", self._defaults, ""),
            (self._site_name, self._site, f" in {self._site_name.removeprefix('file ')}"),
            (f"file {self.file}", known, f" in {self.file}"),
            ("api", session, ""),
            ("flag", overrides, " on the command line"),
        )
        merged: Tree = {}
        origins: dict[str, str] = {}
        settings = Settings()
        for origin, layer, where in layers:
            if not layer:
                continue
            if origin != "flag":
                _check_port(layer, where)
            merged = merge(merged, layer)
            settings = settings_from(merged, self._sections, where)
            origins.update((key, origin) for key, _ in leaves(layer))
        self._raw, self._session, self._overrides = raw, session, overrides
        self._settings, self._origins = settings, origins

    def _refuse_unknown(self, updated: Tree) -> None:
        _, unknown = sort_out(updated, self._sections)
        for key in unknown:
            raise unknown_setting(key, self._sections)
        for key in NOT_SETTABLE & updated.keys():
            raise UnknownSetting(
                f"Unknown config key: '{key}'.",
                remedy="Lemonade keeps it; it is not set by hand.",
                facts={"key": key, "near": []},
            )

    def _known(self, document: JsonObject, file: str) -> Tree:
        known, unknown = sort_out(document, self._sections)
        for key in unknown:
            error = unknown_setting(key, self._sections)
            log.warning("%s has an unknown key, which is kept: '%s'. %s", file, key, error.remedy)
        return known

    def _read_file(self) -> Tree:
        document = read_json(self.file)
        if document is None:
            return {}
        migrated, notes = migrate(document)
        self._known(migrated, str(self.file))
        for note in notes:
            log.warning("%s: %s", self.file, note)
        if notes:
            self._save(migrated)
        return migrated

    def _on_disk(self) -> Tree:
        """The file as it is now: people edit it, and servers that share the folder write it."""
        try:
            document = read_json(self.file)
        except LemonadeError:
            document = None
        return self._raw if document is None else migrate(document)[0]

    def _pruned(self, raw: Tree) -> Tree:
        base = merge(self._defaults, self._site)
        rest = prune({key: value for key, value in raw.items() if key != _VERSION}, base)
        # Without the version, the next start would take the file for an old one and migrate it.
        return {_VERSION: raw.get(_VERSION, CONFIG_VERSION), **rest} if rest else {}

    def _save(self, raw: Tree) -> str:
        """Write the file; answers why it could not, as the change stands all the same."""
        if not raw and not self.file.exists():
            return ""
        try:
            write_json(self.file, raw)
        except LemonadeError as error:
            log.error("The settings are in force, but not saved: %s", error)
            return f"The change is in force, but could not be saved: {error.message}"
        return ""


def _read_site(name: str) -> JsonObject:
    """The file of an operator who ships defaults; not ours, so it is never renamed."""
    path = Path(name)
    if not name or not path.exists():
        return {}
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BadConfigFile(
            f"{path} cannot be used: {error}.",
            remedy="Repair it, or unset LEMONADE_DEFAULTS_PATH.",
            facts={"path": name},
        ) from error
    if not isinstance(document, dict):
        raise BadConfigFile(f"{path} must hold a JSON object.", facts={"path": name})
    return document


def _check_port(layer: JsonObject, where: str) -> None:
    if layer.get("port") == 0:
        raise BadSetting(
            f"'port'{where} cannot be 0: it must be from 1 to 65535.",
            remedy="Give --port 0 to take a free one for one run.",
            facts={"key": "port"},
        )


def _check_texts(updated: Tree) -> None:
    for key, value in leaves(updated):
        if isinstance(value, str) and "\0" in value:  # no path and no argument can hold it
            raise BadSetting(f"'{key}' holds a NUL character.", facts={"key": key})


def _check_folder(name: object) -> None:
    if not isinstance(name, str) or not name:
        return
    path = expanded(name)
    try:
        if not path.exists():
            return
        next(path.iterdir(), None)
    except OSError as error:
        raise BadSetting(
            f"'extra_models_dir' cannot be '{name}': {error.strerror or error}.",
            remedy="Name a folder that the server may read.",
            facts={"key": "extra_models_dir"},
        ) from error


def _later(updated: Tree) -> str:
    """What the client should know about settings that are not felt while the server runs."""
    effects = {key: effect_of(field) for key, field in all_fields()}
    changed = [key for key, _ in leaves(updated)]
    at_start = [key for key in changed if effects.get(key) == AT_START]
    not_yet = [key for key in changed if effects.get(key) == NOT_YET]
    return _sentences(
        f"To be felt at the next start: {', '.join(at_start)}." if at_start else "",
        f"Kept, but nothing in this version follows from it: {', '.join(not_yet)}."
        if not_yet
        else "",
    )


def _sentences(*parts: str) -> str:
    return " ".join(part for part in parts if part)
