"""What a model may be called, and how names of the three registries are written."""

from __future__ import annotations

import re
import unicodedata
from typing import Final, get_args

from lemonade.catalog.model import Origin
from lemonade.core.errors import MalformedRequest

ORIGINS: Final[tuple[Origin, ...]] = get_args(Origin)
LONGEST: Final = 200
"""Characters."""

_PREFIXES: Final = re.compile(rf"\A(?:(?:{'|'.join(ORIGINS)})\s*[./:]|[\s./-])+", re.IGNORECASE)
"""Names of registries, however they are written, and what a name must not begin with."""

_UNSEEN: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Unicode categories without a glyph: control, format, surrogate, private, unassigned, breaks."""


def clean_name(name: object) -> str:
    """The name without blanks around it.

    Raises:
        MalformedRequest: it is no name: not a string, empty, too long, with characters that are
            not printed, or made to look like a path.
    """
    if not isinstance(name, str):
        raise MalformedRequest(
            "The model's name must be a string.", remedy="`lemonade list` shows the names."
        )
    cleaned = name.strip()
    reason = _objection(cleaned)
    if reason:
        shown = ascii(cleaned[:60])
        raise MalformedRequest(
            f"{shown} cannot be a model's name: {reason}.",
            remedy="`lemonade list` shows the names there are.",
        )
    return cleaned


def _objection(name: str) -> str:
    if not name:
        return "it is empty"
    if len(name) > LONGEST:
        return f"it is longer than {LONGEST} characters"
    if any(unicodedata.category(character) in _UNSEEN for character in name):
        return "it holds characters that cannot be printed"
    if "\\" in name or any(part in ("", ".", "..") for part in name.split("/")):
        return "it is written like a path"
    return ""


def split_origin(name: str) -> tuple[Origin | None, str]:
    """`user.X` as (`user`, `X`); a bare name as (`None`, name)."""
    prefix, dot, rest = name.partition(".")
    for origin in ORIGINS:
        if dot and rest and prefix == origin:
            return origin, rest
    return None, name


def own_name(name: object) -> str:
    """The bare part of a name that a user may register.

    Raises:
        MalformedRequest: it does not begin with `user.`, nests a prefix, has a slash, or
                begins with a dot or a hyphen.
    """
    cleaned = clean_name(name)
    origin, bare = split_origin(cleaned)
    if origin != "user":
        raise MalformedRequest(
            f"A model can only be registered under a name that begins with 'user.'; "
            f"'{cleaned}' does not.",
            remedy=_call_it(cleaned),
        )
    if split_origin(bare)[0] is not None:
        raise MalformedRequest(f"'{cleaned}' has two prefixes.", remedy=_call_it(cleaned))
    if "/" in bare or bare.startswith((".", "-")):  # engines take `-x` for a flag
        raise MalformedRequest(
            f"'{cleaned}' cannot be registered: a name has no slash and begins with no dot and no "
            "hyphen.",
            remedy=_call_it(cleaned),
        )
    return bare


def _call_it(name: str) -> str:
    """A sentence with a name that would do, as like this one as can be."""
    bare = _PREFIXES.sub("", name).replace("/", "-")
    return f"Call it 'user.{bare}'." if bare else "Call it 'user.' and a name of your own."
