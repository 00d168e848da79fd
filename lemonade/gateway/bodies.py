"""Reading bodies, and the JSON of management requests: one place, one set of error texts."""

from __future__ import annotations

import asyncio
import json
from typing import Final, TypeVar

from aiohttp import StreamReader, web

from lemonade.core.errors import MalformedRequest
from lemonade.core.inference import JsonObject
from lemonade.dialects import read_object as decode_object

T = TypeVar("T", str, bool, int)

_WORDS: Final = {str: "a string", bool: "true or false", int: "an integer"}


BODY_SILENCE: Final = 30.0
"""Seconds a client may be silent in the middle of a body."""


async def read_body(request: web.Request, silence: float = BODY_SILENCE) -> bytes:
    """All of the body. Unlike `Request.read` it copies it once at most, and does not wait forever.

    Raises:
        web.HTTPRequestEntityTooLarge: it is larger than the application accepts.
        web.HTTPRequestTimeout: the client was silent for that many seconds.
    """
    content, limit = request.content, request.client_max_size
    blocks: list[bytes] = []
    size = 0
    while True:
        if content.is_eof():
            block = await content.readany()  # what is here; nothing is waited for
        else:
            block = await _next_block(content, silence)
        if not block:
            return blocks[0] if len(blocks) == 1 else b"".join(blocks)
        blocks.append(block)
        size += len(block)
        if size > limit:
            raise web.HTTPRequestEntityTooLarge(limit, size)


async def _next_block(content: StreamReader, silence: float) -> bytes:
    try:
        async with asyncio.timeout(silence):
            return await content.readany()
    except TimeoutError as error:
        raise web.HTTPRequestTimeout(
            text=f"The rest of the body did not come within {silence:g} seconds."
        ) from error


async def read_object(request: web.Request, *, empty_ok: bool = False) -> JsonObject:
    """The body as a JSON object; the Content-Type is not looked at.

    Raises:
        MalformedRequest: it is empty (unless allowed), no JSON, or no object.
    """
    raw = await read_body(request)
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
