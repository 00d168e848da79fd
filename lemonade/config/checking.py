"""Checking documents against the settings there are: unknown keys, and wrong values."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, ValidationError

from lemonade.config.sections import check_value, section_defaults, shown
from lemonade.config.settings import KEYS, Settings, group_of
from lemonade.config.tree import Tree, leaves
from lemonade.core.errors import BadSetting, UnknownSetting
from lemonade.core.inference import JsonObject
from lemonade.core.near import did_you_mean, near_names
from lemonade.core.sections import SectionSpec

Sections = Mapping[str, SectionSpec]


def default_document(sections: Sections) -> Tree:
    """The defaults of everything, nested."""
    tree = Settings().document()
    return {**tree, **{name: section_defaults(spec) for name, spec in sections.items()}}


def sort_out(document: JsonObject, sections: Sections) -> tuple[Tree, tuple[str, ...]]:
    """The part of the document that is settings, and the dotted keys that are not."""
    known: Tree = {}
    unknown: list[str] = []
    for key, value in document.items():
        if key == "_generated":  # a note that older files carry
            continue
        if key in sections and isinstance(value, Mapping):
            keys = section_defaults(sections[key])
            known[key] = {inner: v for inner, v in value.items() if inner in keys}
            unknown += [f"{key}.{inner}" for inner in value if inner not in keys]
        elif key in sections:
            known[key] = value
        elif key in KEYS:
            known[key] = _sort_out_group(Settings, key, value, (key,), unknown)
        else:
            unknown.append(key)
    return known, tuple(unknown)


def unknown_setting(key: str, sections: Sections) -> UnknownSetting:
    """The error for a key that is no setting; it names those that look like it."""
    near = near_names(key, all_keys(sections))
    return UnknownSetting(
        f"Unknown config key: '{key}'.",
        remedy=did_you_mean(near) or "`lemonade config` shows every setting.",
        facts={"key": key, "near": list(near)},
    )


def all_keys(sections: Sections) -> tuple[str, ...]:
    """Every dotted key there is."""
    return tuple(key for key, _ in leaves(default_document(sections)))


def settings_from(tree: JsonObject, sections: Sections, where: str) -> Settings:
    """The settings that a whole document says; `where` tells who said what is new in it.

    Raises:
        BadSetting: a value cannot be.
    """
    parts: dict[str, dict[str, object]] = {}
    for name, spec in sections.items():
        values = tree.get(name, {})
        if not isinstance(values, Mapping):
            raise BadSetting(
                f"'{name}'{where} must be an object of settings, not {shown(values)}.",
                facts={"key": name},
            )
        for key, value in values.items():
            check_value(spec, key, value, where)
        parts[name] = dict(values)
    own = {key: value for key, value in tree.items() if key in KEYS}
    try:
        return Settings.model_validate({**own, "sections": parts})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise _bad_setting(first["loc"], first["input"], first["msg"], where) from error


def _bad_setting(
    location: tuple[int | str, ...], value: object, message: str, where: str
) -> BadSetting:
    key = ".".join(str(step) for step in location)
    reason = message.removeprefix("Value error, ").replace("Input should be", "it must be")
    return BadSetting(
        f"'{key}'{where} cannot be {shown(value)}: {reason[:1].lower()}{reason[1:]}.",
        facts={"key": key},
    )


def _sort_out_group(
    group: type[BaseModel],
    key: str,
    value: object,
    path: tuple[str, ...],
    unknown: list[str],
) -> object:
    """The value without what is no setting in it, if it is a group of settings."""
    inner = group_of(group, key)
    if inner is None or not isinstance(value, Mapping):
        return value
    kept: Tree = {}
    for name, item in value.items():
        if name in inner.model_fields:
            kept[name] = _sort_out_group(inner, name, item, (*path, name), unknown)
        else:
            unknown.append(".".join((*path, name)))
    return kept
