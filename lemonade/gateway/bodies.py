"""Reading JSON bodies of management requests: one place, one set of error texts."""

from __future__ import annotations

import json
from typing import Final, TypeVar

from aiohttp import web

from lemonade.core.errors import MalformedRequest
from lemonade.core.inference import JsonObject
from lemonade.dialects import read_object as decode_object

T = TypeVar("T", str, bool, int)

_WORDS: Final = {str: "a string", bool: "true or false", int: "an integer"}


async def read_object(request: web.Request, *, empty_ok: bool = False) -> JsonObject:
    """The body as a JSON object; the Content-Type is not looked at.

    Raises:
        MalformedRequest: it is empty (unless allowed), no JSON, or no object.
    """
    raw = await request.read()
    if empty_ok and raw.strip() in (b"", b"null"):
        return {}
    return decode_object(raw)


def field(body: JsonObject, name: str, kind: type[T], default: T | None = None) -> T | None:
    """A field of a body; `null` counts as absent.

    Raises:
        MalformedRequest: it has another type.
    """
    value = body.get(name)
    if value is None:
        return default
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise MalformedRequest(
            f"The field '{name}' must be {_WORDS[kind]}, "
            f"not {json.dumps(value, default=str)[:60]}."
        )
    return value


def flag(body: JsonObject, name: str, *, default: bool) -> bool:
    """A boolean field."""
    value = field(body, name, bool)
    return default if value is None else value


def model_name(body: JsonObject, *names: str) -> str:
    """The first of these fields that names a model.

    Raises:
        MalformedRequest: none does.
    """
    for name in names:
        value = field(body, name, str)
        if value and value.strip():
            return value.strip()
    raise MalformedRequest(
        f"The field '{names[0]}' is missing: no model specified.",
        remedy="Name one; GET /v1/models lists them.",
    )


def texts(body: JsonObject, name: str) -> tuple[str, ...]:
    """A list of strings.

    Raises:
        MalformedRequest: it is something else.
    """
    value = body.get(name)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise MalformedRequest(f"The field '{name}' must be a list of strings.")
    return tuple(value)
