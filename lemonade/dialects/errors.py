"""Errors as clients of Lemonade expect them on the wire: one text, or an object, route by route.

There is no single shape: management routes answer `{"error": "text"}`, inference routes an object
like OpenAI's, and where a model has to be found and loaded first its `type` is one of four words
that clients branch on. What Lemonade adds (`remedy`, `facts`) stands inside the object.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, Literal, TypeAlias

import msgspec

from lemonade.core import errors as e

ErrorShape: TypeAlias = Literal["string", "object", "model"]
"""`string`: a text; `object`: a message with a type; `model`: the same, with the words for models
that cannot be found or loaded."""

_INVALID: Final = "invalid_request_error"

_TYPES: Final[Mapping[type[e.LemonadeError], str]] = {
    e.LemonadeError: "internal_error",
    e.CatalogError: _INVALID,
    e.ConfigError: _INVALID,
    e.BadConfigFile: "file_error",
    e.PlanError: _INVALID,
    e.InstallError: "installation_error",
    e.CheckpointError: "download_error",
    e.ChildError: "backend_error",
    e.CapacityError: "server_error",
    e.EverythingPinned: "slots_pinned_error",
    e.UpstreamError: "backend_error",
    e.RequestError: _INVALID,
    e.WrongOperation: "unsupported_operation",
    e.NotLoaded: "model_not_loaded",
    e.NoSuchRoute: "not_found",
    e.UnknownIncident: "not_found",
}
"""A class that is not listed has the type of its nearest ancestor that is."""

_LOAD_ERROR: Final = "model_load_error"

_MODEL_TYPES: Final[Mapping[type[e.LemonadeError], str]] = {
    e.LemonadeError: _LOAD_ERROR,
    e.CatalogError: _LOAD_ERROR,
    e.UnknownModel: "model_not_found",
    e.UnknownRecipe: "model_not_supported",
    e.UnknownBackend: _INVALID,  # an option of the request names it
    e.UnsupportedHere: "model_not_supported",
    e.DoesNotFit: _LOAD_ERROR,
    e.ConfigError: _LOAD_ERROR,
    e.InstallError: _LOAD_ERROR,
    e.CheckpointError: _LOAD_ERROR,
    e.ChildError: _LOAD_ERROR,
    e.EverythingPinned: "slots_pinned_error",
    e.KeepsFailing: _LOAD_ERROR,
    e.DeviceQuarantined: _LOAD_ERROR,
}
"""What differs where a model is found and loaded on the way. `type` and `code` are then equal."""

_MODEL_WORDS: Final = frozenset(_MODEL_TYPES.values()) - {_INVALID}

_CONTEXT_EXCEEDED: Final = re.compile(
    r"exceeds? the available context size"
    r"|context (length|size|window) (was |is )?exceeded"
    r"|exceeds? (the |its )?(model's )?(maximum )?context (length|size|window)"
    r"|maximum context length is",
    re.IGNORECASE,
)


def render_error(error: e.LemonadeError, status: int, *, shape: ErrorShape) -> dict[str, Any]:
    """The body of an error response. `status` speaks where the error itself says nothing.

    The name of the model asked for is `facts["requested_model"]` or `facts["model"]`, if known.
    """
    if shape == "string":
        return {"error": str(error)}
    kind = _type_of(error, status, shape)
    # Most clients show nothing but the message, so what to do about it stands there too.
    message = str(error)
    if kind == _LOAD_ERROR:
        message = f"Failed to load model: {message}"
    body: dict[str, Any] = {"message": message, "type": kind, "code": _code_of(error, kind)}
    if shape == "model" and kind in _MODEL_WORDS:
        body["param"] = "model"
        named = ("requested_model", "requested", "model")
        requested = next((error.facts[key] for key in named if key in error.facts), None)
        if requested is not None:
            body["requested_model"] = requested
    elif "field" in error.facts:
        body["param"] = error.facts["field"]
    if isinstance(error, e.NoSuchRoute) and "path" in error.facts:
        body["path"] = error.facts["path"]
    if error.remedy:
        body["remedy"] = error.remedy
    if "incident" in error.facts:
        body["incident"] = error.facts["incident"]
    if error.facts:
        body["facts"] = dict(error.facts)
    return {"error": body}


def wrap_backend_error(status: int, raw: bytes, backend: str) -> dict[str, Any]:
    """The body for an engine's own refusal of a request; the status stays the engine's.

    Its message, type and code are kept. A prompt that does not fit is
    `context_length_exceeded`, whatever the engine calls it, since clients shorten and ask again.
    """
    response, own = _own_error(raw)
    message = own.get("message")
    if not isinstance(message, str) or not message:
        message = response if isinstance(response, str) and response.strip() else ""
    message = message or f"The engine answered with status {status}."
    kind, code = own.get("type"), own.get("code")
    if not isinstance(kind, str) or not kind:
        kind = _INVALID if 400 <= status < 500 else "backend_error"
    if kind == "exceed_context_size_error" or _CONTEXT_EXCEEDED.search(message):
        kind, code = _INVALID, "context_length_exceeded"
    body: dict[str, Any] = {
        "message": message,
        "type": kind,
        "status_code": status,
        "details": {"backend": backend, "response": response},
    }
    if code is not None:
        body["code"] = code
    return {"error": body}


def _type_of(error: e.LemonadeError, status: int, shape: ErrorShape) -> str:
    if isinstance(error, e.MalformedRequest) and error.facts == {
        "field": "model",
        "missing": True,
    }:
        return "invalid_request"  # a request without a model has a type of its own
    if type(error) is e.LemonadeError and status < 500:
        return _INVALID
    tables = (_MODEL_TYPES, _TYPES) if shape == "model" else (_TYPES,)
    return next(table[kind] for kind in type(error).__mro__ for table in tables if kind in table)


def _code_of(error: e.LemonadeError, kind: str) -> str:
    if kind in _MODEL_WORDS:
        return kind
    return "invalid_request" if isinstance(error, e.MalformedRequest) else error.code


def _own_error(raw: bytes) -> tuple[object, dict[str, Any]]:
    """What the engine answered, and the error object in it, as far as there is one."""
    try:
        response = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return raw.decode("utf-8", "replace"), {}
    if not isinstance(response, dict):
        return response, {}
    error = response.get("error", response)
    if isinstance(error, str):
        return response, {"message": error}
    return response, error if isinstance(error, dict) else {}
