"""What clients send to change settings, put into the document's own form."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from lemonade.config.sections import shown
from lemonade.config.settings import KEYS
from lemonade.config.tree import Tree
from lemonade.core.errors import BadSetting


def normalise(changes: object, sections: Iterable[str]) -> tuple[Tree, str]:
    """The changes as a nested document, and what the client should be told about them.

    `llamacpp_args` goes into its section, `no_broadcast` becomes its opposite, `rocm` is
    `rocm_channel`, whose former value `preview` is `stable` now.

    Raises:
        BadSetting: there are none, or two spellings of one setting say different things.
    """
    if not isinstance(changes, Mapping) or not changes:
        raise BadSetting(
            "Nothing is to be set.", remedy='Send an object such as {"max_loaded_models": 2}.'
        )
    if "no_broadcast" in changes and "broadcast" in changes:
        raise BadSetting("'no_broadcast' and 'broadcast' are one setting.", remedy="Say it once.")
    names = frozenset(sections)
    tree: Tree = {}
    message = ""
    for key, value in changes.items():
        name, _, field = key.partition("_")
        if key == "no_broadcast":
            _put(tree, "broadcast", _opposite(value), key)
        elif key in ("rocm", "rocm_channel"):
            if value == "preview":
                message = "The channel 'preview' is called 'stable' now."
                value = "stable"  # noqa: PLW2901 - an alias of the value
            _put(tree, "rocm_channel", value, key)
        elif key not in KEYS and field and name in names:
            _put(_section(tree, name), field, value, key)
        elif key in names:
            section = _section(tree, key)
            if not isinstance(value, Mapping):
                raise BadSetting(
                    f"'{key}' must be an object of settings, not {shown(value)}.",
                    remedy=f"Set a key of it, such as {key}.args.",
                    facts={"key": key},
                )
            for inner, inner_value in value.items():
                _put(section, inner, inner_value, f"{key}.{inner}")
        else:
            tree[key] = value
    return tree, message


def _section(tree: Tree, name: str) -> Tree:
    section: Tree = tree.setdefault(name, {})
    return section


def _put(tree: Tree, key: str, value: object, said: str) -> None:
    if key in tree and tree[key] != value:
        raise BadSetting(
            f"'{said}' is given twice, as {shown(tree[key])} and as {shown(value)}.",
            remedy="Say it once.",
            facts={"key": said},
        )
    tree[key] = value


def _opposite(value: object) -> object:
    if not isinstance(value, bool):
        raise BadSetting(
            f"'no_broadcast' cannot be {shown(value)}: it must be true or false.",
            facts={"key": "no_broadcast"},
        )
    return not value
