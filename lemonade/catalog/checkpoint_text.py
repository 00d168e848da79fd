"""How a definition writes down where a model's files are, and what can be wrong with it.

`owner/repo`, `owner/repo:variant` or a page of a known hub for files that can be fetched; absolute
paths for files that are here already; bare file names for those that came with the package.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Final

from lemonade.catalog.model import EXTRA_SOURCE, LOCAL_SOURCE, SHIPPED_SOURCE
from lemonade.core.errors import MalformedRequest

HUB_SOURCES: Final = ("huggingface", "modelscope")
UPLOADED_SOURCE: Final = "local_upload"
"""`source` of files that somebody put into the hub cache: the checkpoint is relative to it."""

_SPELLINGS: Final = {"hf": "huggingface", "ms": "modelscope"}
_LOCAL: Final = (LOCAL_SOURCE, UPLOADED_SOURCE, EXTRA_SOURCE, SHIPPED_SOURCE)
_REPOSITORY: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*\Z")
_PAGES: Final = (
    (re.compile(r"https?://huggingface\.co/"), "huggingface"),
    (re.compile(r"https?://(?:www\.)?modelscope\.(?:cn|ai)/models/"), "modelscope"),
)


def canonical_source(value: object, key: str) -> str | None:
    """The source by its full name; `None` if it is not given.

    Raises:
        MalformedRequest: it is no source.
    """
    if value is None or value == "":
        return None
    name = _SPELLINGS.get(value.lower(), value.lower()) if isinstance(value, str) else ""
    known = (*HUB_SOURCES, *_LOCAL) if key == "source" else HUB_SOURCES
    if name not in known:
        raise MalformedRequest(
            f"'{key}' cannot be {value!r}.", remedy=f"It may be {', '.join(known)}."
        )
    return name


def is_local(source: str) -> bool:
    """Whether the files are on this machine by definition, so that no hub is asked."""
    return source in _LOCAL


def from_page(checkpoint: str) -> tuple[str, str | None]:
    """A hub's page as `owner/repo` and the hub's name; anything else as it is, and `None`."""
    for prefix, source in _PAGES:
        if match := prefix.match(checkpoint):
            parts = re.split(r"[?#]", checkpoint[match.end() :])[0].split("/")
            return "/".join(parts[:2]), source
    return checkpoint, None


def check_checkpoint(role: str, checkpoint: str, source: str) -> None:
    """Look at one checkpoint.

    Raises:
        MalformedRequest: it does not say where a file is, or leaves the place it is to stay in.
    """
    reason = _objection(checkpoint, source)
    if reason:
        raise MalformedRequest(
            f"The checkpoint {checkpoint[:200]!r} ({role}) cannot be used: {reason}.",
            remedy="Write owner/repo:variant, as in unsloth/Qwen3-0.6B-GGUF:Q4_K_M.",
        )


def _objection(checkpoint: str, source: str) -> str:
    if any(ord(character) < 32 for character in checkpoint):
        return "it holds control characters"
    if source in (LOCAL_SOURCE, EXTRA_SOURCE):
        return "" if checkpoint.startswith("/") else "a local path must be absolute"
    if source == SHIPPED_SOURCE:
        return "it is not a file name" if _climbs(checkpoint) or "/" in checkpoint else ""
    if source == UPLOADED_SOURCE:
        return "it leaves the hub cache" if _climbs(checkpoint) else ""
    repository, _, variant = checkpoint.partition(":")
    if not _REPOSITORY.match(repository) or ".." in repository:
        return f"'{repository}' is not owner/repo"
    return "its variant leaves the repository" if variant and _climbs(variant) else ""


def _climbs(path: str) -> bool:
    return path.startswith("/") or "\\" in path or ".." in PurePosixPath(path).parts


def one_source(named: Iterable[tuple[str, str | None]]) -> str | None:
    """The source that several places agree on; places that say nothing do not count.

    Raises:
        MalformedRequest: two places disagree.
    """
    found: tuple[str, str] | None = None
    for place, source in named:
        if source is None:
            continue
        if found is not None and found[1] != source:
            raise MalformedRequest(
                f"{found[0]} says {found[1]}, but {place} says {source}.",
                remedy="All files of a model come from one place; leave one of them out.",
            )
        found = found or (place, source)
    return found[1] if found else None
