"""Older layouts of `config.json`, brought up to date when they are read."""

from __future__ import annotations

from typing import Final

from lemonade.config.settings import CONFIG_VERSION
from lemonade.config.tree import Tree
from lemonade.core.inference import JsonObject

_FORMER_CTX_SIZE: Final = 4096
"""The default of version 1, which wrote it down though nobody had chosen it."""


def migrate(document: JsonObject) -> tuple[Tree, tuple[str, ...]]:
    """The document in today's layout, and what was changed, as sentences; none if nothing was."""
    tree = dict(document)
    notes: list[str] = []
    if isinstance(no := tree.get("no_broadcast"), bool):
        del tree["no_broadcast"]
        tree.setdefault("broadcast", not no)
        notes.append("'no_broadcast' is written 'broadcast' now.")
    version = tree.get("config_version", 0)
    old = isinstance(version, int) and not isinstance(version, bool) and version < CONFIG_VERSION
    if old and tree.get("ctx_size") == _FORMER_CTX_SIZE:
        tree["ctx_size"] = -1
        notes.append(
            f"'ctx_size' was {_FORMER_CTX_SIZE}, a former default, and is -1 now "
            "(chosen by the model). Set it again if you meant it."
        )
    if old and any(key != "config_version" for key in tree):
        tree["config_version"] = CONFIG_VERSION
    return tree, tuple(notes)
