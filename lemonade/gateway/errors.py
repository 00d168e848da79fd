"""Errors as aiohttp's responses. What they say, and with which status, is `dialects`' to know."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from aiohttp import web

from lemonade.core import errors as e
from lemonade.dialects import ErrorShape, error_answer, json_bytes

REQUESTED_MODEL: Final = web.RequestKey("requested_model", str)
"""The model's name as the client wrote it, for errors about it."""


def error_response(
    error: e.LemonadeError,
    shape: ErrorShape,
    overrides: Mapping[type[e.LemonadeError], int] | None = None,
    *,
    requested_model: str | None = None,
) -> web.Response:
    """An error as the client's dialect writes it."""
    status, body, headers = error_answer(error, shape, overrides, requested_model=requested_model)
    response = json_response(body, status=status)
    response.headers.update(headers)
    return response


def json_response(body: object, *, status: int = 200) -> web.Response:
    """A response with such JSON."""
    return web.Response(
        body=json_bytes(body),
        status=status,
        content_type="application/json",
    )
