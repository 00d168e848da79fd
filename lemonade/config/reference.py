"""The reference of all settings, made from their own descriptions."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from lemonade.config.checking import group_of
from lemonade.config.sections import known_keys
from lemonade.config.settings import KEYS, Settings
from lemonade.core.sections import SectionSpec

BEGIN: Final = "<!-- generated from lemonade.config: `make docs` writes it -->"
END: Final = "<!-- end of the generated part -->"

_SECTION_MEANINGS: Final = {
    "backend": "Variant to run models on; `auto` picks the best one here.",
    "args": "Arguments for the engine, as a shell would read them.",
    "device": "Devices to offload to, as the engine names them.",
    "prefer_system": "Whether an engine that is already on this machine is preferred.",
}


def render_reference(sections: Mapping[str, SectionSpec] | None = None) -> str:
    """The tables of docs/configuration.md, between its two marks, marks included."""
    lines = [BEGIN, "", "| Setting | Default | Meaning | A change is felt |", "|---|---|---|---|"]
    lines += [_row(key, field) for key, field in _fields(Settings) if key.split(".")[0] in KEYS]
    for name, spec in (sections or {}).items():
        lines += ["", f"Section `{name}` ({spec.title}):", ""]
        lines += ["| Setting | Default | Meaning |", "|---|---|---|"]
        defaults = spec.defaults
        for key in sorted(known_keys(spec), key=lambda k: (*_rank(k, defaults), k)):
            shown = f"`{_json(defaults[key])}`" if key in defaults else "not set"
            lines.append(f"| `{name}.{key}` | {shown} | {_section_meaning(key)} |")
    return "\n".join([*lines, "", END])


def _fields(group: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    for key, field in group.model_fields.items():
        inner = group_of(group, key)
        if inner is None:
            yield prefix + key, field
        else:
            yield from _fields(inner, f"{prefix}{key}.")


def _row(key: str, field: FieldInfo) -> str:
    extra = field.json_schema_extra
    effect = extra.get("effect", "") if isinstance(extra, dict) else ""
    choice = _choices(field)
    meaning = f"{field.description or ''}{choice}"
    return f"| `{key}` | `{_json(field.default)}` | {meaning} | {effect} |"


def _choices(field: FieldInfo) -> str:
    values = [value for value in get_args(field.annotation) if isinstance(value, str)]
    return f" One of {', '.join(f'`{value}`' for value in values)}." if values else ""


def _section_meaning(key: str) -> str:
    if key.endswith("_args"):
        return f"Used instead of `args` on `{key.removesuffix('_args')}`, unless empty."
    if key.endswith("_bin"):
        variant = key.removesuffix("_bin")
        return f"Executable for `{variant}`: `builtin`, `latest`, a version, or a path."
    return _SECTION_MEANINGS.get(key, "")


def _rank(key: str, defaults: Mapping[str, object]) -> tuple[int, int]:
    """Keys with a default first, in the recipe's order."""
    order = list(defaults)
    return (0, order.index(key)) if key in defaults else (1, 0)


def _json(value: Any) -> str:  # noqa: ANN401 - defaults are of any type
    return json.dumps(value, ensure_ascii=False)
