"""A look at the settings' files that changes none of them, for those who ask what is wrong.

A server repairs what it can while it reads: it puts a broken file aside and brings an old one up
to date. Here everything is only named.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from lemonade.config.checking import (
    Sections,
    default_document,
    settings_from,
    sort_out,
    unknown_setting,
)
from lemonade.config.configuration import CONFIG_FILE
from lemonade.config.migration import migrate
from lemonade.config.settings import Settings
from lemonade.config.tree import Tree, merge
from lemonade.core.errors import BadSetting
from lemonade.core.inference import JsonObject
from lemonade.core.records import dataclass
from lemonade.storage import Directories


@dataclass(frozen=True, slots=True)
class UnknownKey:
    """A key that is no setting; `remedy` names those that look like it."""

    file: Path
    key: str
    remedy: str


@dataclass(frozen=True, slots=True)
class BrokenFile:
    """A file whose settings do not count.

    Attributes:
        reason: as a sentence.
        remedy: as a sentence; may be empty.
        fatal: whether a server refuses to start with it.
    """

    file: Path
    reason: str
    remedy: str
    fatal: bool


@dataclass(frozen=True, slots=True)
class ConfigReview:
    """What the files say.

    Attributes:
        settings: in force with the files that are not broken.
        document: what `config.json` holds; `None` if there is none, or none that can be read.
        unknown: keys that are no settings.
        broken: files, or values in them, that cannot be.
    """

    settings: Settings
    document: JsonObject | None
    unknown: tuple[UnknownKey, ...] = ()
    broken: tuple[BrokenFile, ...] = ()


def review_config(
    directories: Directories, environ: Mapping[str, str], sections: Sections
) -> ConfigReview:
    """Read the operator's defaults and `config.json` as a server would. Blocks; writes nothing.

    Args:
        directories: where `config.json` is.
        environ: for LEMONADE_DEFAULTS_PATH.
        sections: of the recipes there are; empty if they are not known, and then the recipes'
            sections are taken for unknown keys.
    """
    own = directories.config / CONFIG_FILE
    site = environ.get("LEMONADE_DEFAULTS_PATH", "")
    files = [(Path(site), True)] if site else []
    merged = default_document(sections)
    settings, document = settings_from(merged, sections, ""), None
    unknown: list[UnknownKey] = []
    broken: list[BrokenFile] = []
    for file, is_site in [*files, (own, False)]:
        try:
            found = _read(file, is_site=is_site)
        except _Unreadable as error:
            broken.append(error.broken)
            continue
        if found is None:
            continue
        if not is_site:
            document = found
            found = migrate(found)[0]
        known, strangers = sort_out(found, sections)
        unknown += [
            UnknownKey(file, key, unknown_setting(key, sections).remedy) for key in strangers
        ]
        try:
            candidate: Tree = merge(merged, known)
            settings = settings_from(candidate, sections, "")
            merged = candidate
        except BadSetting as error:
            broken.append(BrokenFile(file, error.message, error.remedy, fatal=True))
    return ConfigReview(settings, document, tuple(unknown), tuple(broken))


class _Unreadable(Exception):
    def __init__(self, broken: BrokenFile) -> None:
        super().__init__(broken.reason)
        self.broken = broken


def _read(file: Path, *, is_site: bool) -> JsonObject | None:
    try:
        text = file.read_text(encoding="utf-8")
        value = json.loads(text)
    except FileNotFoundError:
        return None
    except OSError as error:
        reason = f"It cannot be read: {error.strerror or error}."
        remedy = "Correct its owner and permissions."
        raise _Unreadable(BrokenFile(file, reason, remedy, fatal=True)) from error
    except (ValueError, RecursionError) as error:
        raise _Unreadable(_not_json(file, f"It is not JSON: {error}.", is_site=is_site)) from error
    if not isinstance(value, dict):
        raise _Unreadable(_not_json(file, "It does not hold a JSON object.", is_site=is_site))
    return value


def _not_json(file: Path, reason: str, *, is_site: bool) -> BrokenFile:
    if is_site:
        return BrokenFile(file, reason, "Repair it, or unset LEMONADE_DEFAULTS_PATH.", fatal=True)
    remedy = (
        f"Repair it. The next start would rename it to {file.name}.corrupted and use the defaults."
    )
    return BrokenFile(file, reason, remedy, fatal=False)
