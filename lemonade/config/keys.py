"""How a setting is written down: a group of keys, and a key with its meaning."""

from __future__ import annotations

from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field

AT_START: Final = "at the next start"
NOT_YET: Final = "not in this version"
"""Effect of settings that are checked and kept, and that nothing follows from yet."""


class Group(BaseModel):
    """A group of settings: frozen, exact about types, and no key passes unread."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def setting(default: Any, meaning: str, *, effect: str = "at once", **limits: Any) -> Any:  # noqa: ANN401
    """A setting: its default, what it means (with its unit), and when a change is felt."""
    return Field(default, description=meaning, json_schema_extra={"effect": effect}, **limits)
