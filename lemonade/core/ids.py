"""Identifiers and how they are written.

A backend is `recipe:variant` (`vllm:rocm`); `recipe:variant@version` names one bundle of it.
Model and child names are plain strings that must not be confused with each other.
"""

from __future__ import annotations

import re
from typing import Final, NewType, Self

from lemonade.core.errors import MalformedRequest
from lemonade.core.records import dataclass

ModelName = NewType("ModelName", str)
"""A name a client may ask for: `Qwen3-8B-GGUF`, `user.Mine`."""

ChildId = NewType("ChildId", str)
"""One run of one child: unique in this server's life, safe as a file name."""

IncidentId = NewType("IncidentId", str)
"""One failure of an engine: sorts by time, safe as a file name."""

_WORD: Final = re.compile(r"[a-z0-9][a-z0-9._-]*\Z")


@dataclass(frozen=True, slots=True, order=True)
class BackendId:
    """Recipe and variant: something that can be installed."""

    recipe: str
    variant: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `recipe:variant`.

        Raises:
            MalformedRequest: there is no colon, or a part is empty or has odd characters.
        """
        recipe, colon, variant = text.partition(":")
        if not colon or not _WORD.match(recipe) or not _WORD.match(variant):
            raise MalformedRequest(
                f"'{text}' does not name a backend.",
                remedy="Write recipe:variant, as in llamacpp:wheel. "
                "`lemonade backends --all` lists them.",
            )
        return cls(recipe, variant)

    @property
    def file_stem(self) -> str:
        """The name of its descriptor file and of its directory: `vllm-rocm`."""
        return f"{self.recipe}-{self.variant}"

    def __str__(self) -> str:
        return f"{self.recipe}:{self.variant}"


def parse_bundle(text: str) -> tuple[BackendId, str]:
    """Read `recipe:variant@version`; without `@version` the version is empty.

    Raises:
        MalformedRequest: it names no backend, or an empty version.
    """
    backend, at, version = text.partition("@")
    if at and not version:
        raise MalformedRequest(
            f"'{text}' does not name a version.",
            remedy="Write recipe:variant@version. `lemonade backends show` lists what is there.",
        )
    return BackendId.parse(backend), version
