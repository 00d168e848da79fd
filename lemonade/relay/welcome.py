"""What every request is met with, whoever answers it: a name, and what pages of others may do."""

from __future__ import annotations

import itertools
import re
import secrets
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Final

from lemonade.core.access import AccessKeys
from lemonade.core.errors import ForbiddenOrigin

REQUEST_ID: ContextVar[str] = ContextVar("request_id", default="-")
"""Of the request this task works for; the log filter puts it into every line."""

_ID: Final = re.compile(r"[\x21-\x7e]{1,128}\Z")

_NAMES: Final = re.compile(r"[A-Za-z0-9-]+(?:, ?[A-Za-z0-9-]+){0,99}\Z")

_METHODS: Final = "GET, POST, PUT, DELETE, OPTIONS"
_ALLOWED_HEADERS: Final = (
    "Content-Type, Authorization, X-Client-Session-Id, X-Account-Session-Id, "
    "mcp-protocol-version, traceparent, Mcp-Session-Id, X-Request-Id"
)


class RequestIds:
    """Names requests: as the client does, or by counting on from somewhere."""

    def __init__(self) -> None:
        self._next = itertools.count(secrets.randbits(63))  # to tell apart, not to be secret

    def of(self, given: str) -> str:
        """The client's own name for its request if it may be one, else a new one."""
        return given if given and _ID.match(given) else f"{next(self._next):016x}"


def check_origin(
    given: Mapping[str, str], access: AccessKeys, headers: list[tuple[str, str]]
) -> None:
    """Add what a page has to be told to the headers of the answer.

    Args:
        given: the request's headers; names in the case written here are found in it.
        access: who may come in.
        headers: of the answer.

    Raises:
        ForbiddenOrigin: a page of that origin may not use the server.
    """
    origin = given.get("Origin")
    headers.append(("Access-Control-Allow-Methods", _METHODS))
    if origin is None:
        headers.append(("Access-Control-Allow-Headers", _ALLOWED_HEADERS))
        return
    if not access.allows_origin(origin):
        raise ForbiddenOrigin(
            f"Pages of the origin '{origin[:200]}' may not use this server.",
            remedy="Its operator can list the origin in LEMONADE_ALLOWED_ORIGINS.",
        )
    asked = given.get("Access-Control-Request-Headers", "")
    headers.append(("Access-Control-Allow-Headers", _allowed_headers(asked)))
    headers.append(("Access-Control-Allow-Origin", origin))
    if given.get("Access-Control-Request-Private-Network") == "true":
        headers.append(("Access-Control-Allow-Private-Network", "true"))


def _allowed_headers(asked: str) -> str:
    """What a page may send: our list, and what it asks for. Client libraries add their own."""
    return f"{_ALLOWED_HEADERS}, {asked}" if _NAMES.match(asked) else _ALLOWED_HEADERS
