"""`active.json`: which version of a backend is used, and which were used before.

It is replaced whole, by whoever holds the backend's lock, after the version it names is complete.
What cannot be read as one is taken for missing: a pointer only chooses between versions that each
work by themselves.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from lemonade.core.records import dataclass
from lemonade.installer.receipts import now
from lemonade.storage import write_json

log = logging.getLogger(__name__)

POINTER: Final = "active.json"
_SCHEMA: Final = 1
_REMEMBERED: Final = 20
_NAME: Final = re.compile(r"[A-Za-z0-9][\w.+-]{0,199}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Pointer:
    """Which version is used.

    Attributes:
        version: its folder's name.
        since: ISO 8601, UTC.
        chosen: whether a person chose this one instead of the one that is wanted.
        history: the versions used before, the last one first. Each was tried before it was used.
    """

    version: str
    since: str
    chosen: bool = False
    history: tuple[str, ...] = ()

    def moved_to(self, version: str, *, chosen: bool) -> Pointer:
        """It uses another version from now on, and remembers this one."""
        if version == self.version:
            return replace(self, chosen=chosen)
        before = [self.version, *(one for one in self.history if one != self.version)]
        history = tuple(one for one in before if one != version)[:_REMEMBERED]
        return Pointer(version, now(), chosen, history)

    def back_to(self, version: str) -> Pointer:
        """It uses one of its history again; what came after that is not remembered."""
        at = self.history.index(version)
        return Pointer(version, now(), chosen=True, history=self.history[at + 1 :])

    def without(self, versions: Collection[str]) -> Pointer:
        """It forgets versions that are gone."""
        return replace(self, history=tuple(one for one in self.history if one not in versions))

    def write(self, folder: Path) -> None:
        """Replace the one in a backend's folder. Raises as `write_json` does."""
        write_json(
            folder / POINTER,
            {
                "schema": _SCHEMA,
                "version": self.version,
                "since": self.since,
                "chosen": self.chosen,
                "history": list(self.history),
            },
            mode=0o644,
        )


def read_pointer(folder: Path) -> Pointer | None:
    """The one in a backend's folder; `None` if there is none that can be used."""
    try:
        return _parsed((folder / POINTER).read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        log.warning("%s is taken for missing: %s", folder / POINTER, error)
        return None


def is_name(text: str) -> bool:
    """Whether it can be the name of a version, which is the name of a folder."""
    return _NAME.fullmatch(text) is not None


def _parsed(text: bytes) -> Pointer:
    document: Any = json.loads(text)
    if document["schema"] != _SCHEMA:
        raise ValueError(f"its schema is {document['schema']!r}")
    history = document["history"]
    if not isinstance(history, list):
        raise TypeError("its history is no list")
    return Pointer(
        version=_name(document["version"]),
        since=str(document["since"]),
        chosen=document["chosen"] is True,
        history=tuple(_name(one) for one in history),
    )


def _name(value: object) -> str:
    if isinstance(value, str) and is_name(value):
        return value
    raise ValueError(f"{value!r} is no version")
