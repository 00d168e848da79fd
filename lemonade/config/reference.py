"""The reference of all settings, made from their own descriptions."""

from __future__ import annotations

import json
from typing import Any, get_args

from pydantic.fields import FieldInfo

from lemonade.config.sections import MEANINGS
from lemonade.config.settings import all_fields, effect_of


def render_reference() -> str:
    """The generated block of docs/configuration.md: two tables in Markdown."""
    lines = [
        "| Setting | Default | Meaning | A change is felt |",
        "|---|---|---|---|",
        *(_row(key, field) for key, field in all_fields()),
        "",
        "Every recipe has a section of its own. Its keys and their defaults are in `[settings]`",
        "of the recipe's file; what they may be follows from their names:",
        "",
        "| In a recipe's section | Meaning |",
        "|---|---|",
        *(f"| `{key}` | {meaning} |" for key, meaning in MEANINGS.items()),
    ]
    return "\n".join(lines) + "\n"


def _row(key: str, field: FieldInfo) -> str:
    meaning = f"{field.description or ''}{_choices(field)}"
    return f"| `{key}` | `{_json(field.default)}` | {meaning} | {effect_of(field)} |"


def _choices(field: FieldInfo) -> str:
    values = [value for value in get_args(field.annotation) if isinstance(value, str)]
    return f" One of {', '.join(f'`{value}`' for value in values)}." if values else ""


def _json(value: Any) -> str:  # noqa: ANN401 - defaults are of any type
    return json.dumps(value, ensure_ascii=False)
