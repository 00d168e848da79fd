"""What happens around every handler: request id, origin, access, errors.

Order as clients know it: origin first (403), then keys (401), then the route.
"""

from __future__ import annotations

import base64
import contextlib
import logging
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Middleware

from lemonade.config import AccessKeys, Level
from lemonade.core.errors import (
    LemonadeError,
    MalformedRequest,
    NotAuthorised,
)
from lemonade.core.units import render_size
from lemonade.dialects import ErrorShape
from lemonade.gateway.errors import REQUESTED_MODEL, error_response, json_response
from lemonade.gateway.garbage import printable
from lemonade.gateway.routing import Access, Handler, Route, RouteTable
from lemonade.relay import REQUEST_ID, RequestIds, check_origin

log = logging.getLogger(__name__)

HEADERS: Final = web.RequestKey("headers", list[tuple[str, str]])
"""Headers every response to a request gets, relayed ones included."""


def guard(table: RouteTable, access: AccessKeys) -> Middleware:
    """The one middleware."""
    ids = RequestIds()

    @web.middleware
    async def around(request: web.Request, handler: Handler) -> web.StreamResponse:
        request_id = ids.of(request.headers.get("X-Request-Id", ""))
        REQUEST_ID.set(request_id)
        headers = [("X-Request-Id", request_id), ("Vary", "Origin")]
        request[HEADERS] = headers
        route = table.of(request)
        shape: ErrorShape = "string"  # who may not come in gets a text, whatever the route
        try:
            check_origin(request.headers, access, headers)
            if request.method == "OPTIONS":
                return web.Response(status=204)
            _check_access(request, route, access)
            shape = route.errors if route else "string"
            _check_size(request)
            _invite(request, route)
            return await handler(request)
        except LemonadeError as error:
            _note(request, error.message)
            _check_unanswered(request, error)
            statuses = route.statuses if route else None
            model = request.get(REQUESTED_MODEL)
            return error_response(error, shape, statuses, requested_model=model)
        except web.HTTPRequestEntityTooLarge:
            return error_response(_too_large(request), shape, {MalformedRequest: 413})
        except web.RequestPayloadError as error:
            _note(request, str(error))
            return error_response(_unreadable(request), shape)
        except web.HTTPException as error:
            return _http_error(request, error)
        except ConnectionResetError:
            # The client left while we wrote. Nobody reads the answer.
            raise
        except Exception as error:  # the last resort: the client gets an id, the log the traceback
            log.exception("%s %s failed", request.method, printable(request.path))
            _check_unanswered(request, error)
            return error_response(
                LemonadeError(
                    "The server made a mistake.",
                    remedy=f"Its log tells more about request {request_id}.",
                ),
                shape,
            )

    return around


async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Put the request's headers on a response about to be sent (an `on_response_prepare`)."""
    for name, value in request.get(HEADERS, ()):
        if name not in response.headers:
            response.headers[name] = value


def _note(request: web.Request, reason: str) -> None:
    """A refusal is one line of the log."""
    log.info("%s %s: %s", request.method, printable(request.path), printable(reason))


def _check_access(request: web.Request, route: Route | None, access: AccessKeys) -> None:
    if route is None:
        # Unknown paths tell a stranger nothing, not even that they are unknown.
        needed = Access.ADMIN if request.path.startswith("/internal/") else Access.USER
    else:
        needed = route.access
    if needed is Access.PUBLIC:
        return
    level: Level = "admin" if needed is Access.ADMIN else "regular"
    given = request.headers.get("Authorization")
    if given is None and route is not None and route.socket:
        given = _socket_authorization(request)
    if access.admits(level, given):
        return
    if needed is Access.ADMIN:
        raise NotAuthorised(
            "Invalid or missing admin API key.",
            remedy="Send 'Authorization: Bearer KEY' with the key of LEMONADE_ADMIN_API_KEY.",
        )
    raise NotAuthorised(
        "Invalid or missing API key.",
        remedy="Send 'Authorization: Bearer KEY' with the key of LEMONADE_API_KEY.",
    )


def _socket_authorization(request: web.Request) -> str | None:
    """The key as a page can send it, which cannot choose the headers of a WebSocket."""
    if key := request.query.get("api_key"):
        return f"Bearer {key}"
    for word in request.headers.get("Sec-WebSocket-Protocol", "").split(","):
        scheme, _, encoded = word.strip().partition(".")
        if scheme == "bearer" and encoded:
            with contextlib.suppress(ValueError):
                padded = encoded + "=" * (-len(encoded) % 4)
                return f"Bearer {base64.urlsafe_b64decode(padded).decode()}"
    return None


def _check_size(request: web.Request) -> None:
    """Refuse by its head alone what would be refused after a gigabyte."""
    if (request.content_length or 0) > request.client_max_size:
        raise web.HTTPRequestEntityTooLarge(request.client_max_size, request.content_length or 0)


def _invite(request: web.Request, route: Route | None) -> None:
    """Ask for the body that a client announced; not before it is known that it is welcome."""
    if (
        route is not None
        and "Expect" in request.headers
        and request.version >= (1, 1)
        and request.transport is not None
    ):
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")


def _check_unanswered(request: web.Request, error: Exception) -> None:
    """An answer that has begun can only be broken off: a second would be taken for its body."""
    if request.writer.output_size:
        raise ConnectionResetError("The answer had begun.") from error


def _too_large(request: web.Request) -> MalformedRequest:
    limit = render_size(request.client_max_size)
    return MalformedRequest(
        f"The request's body is larger than the {limit} this server accepts.",
        remedy="Send less at once, for example smaller images.",
    )


def _unreadable(request: web.Request) -> MalformedRequest:
    coding = request.headers.get("Content-Encoding", "")
    return MalformedRequest(
        "The request's body cannot be read"
        + (f" as '{coding[:40]}', which Content-Encoding says it is." if coding else "."),
        remedy="Send all of it, as its headers say.",
    )


def _http_error(request: web.Request, error: web.HTTPException) -> web.Response:
    """Aiohttp's own refusals, in our shapes."""
    if error.status == 404:
        return json_response(
            {
                "error": {
                    "message": f"There is nothing at {request.path}.",
                    "type": "not_found",
                    "path": request.path,
                }
            },
            status=404,
        )
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        response = json_response(
            {"error": f"{request.path} does not answer {request.method}, but {allowed}."},
            status=405,
        )
        response.headers["Allow"] = allowed
        return response
    shape_error = MalformedRequest(error.text or error.reason)
    return json_response(
        {"error": {"message": shape_error.message, "type": "bad_request"}}, status=error.status
    )
