"""The one table from error class to HTTP status, and errors as answers in a client's dialect."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

from lemonade.core import errors as e
from lemonade.core.inference import JsonObject
from lemonade.dialects.errors import ErrorShape, render_error

STATUSES: Final[dict[type[e.LemonadeError], int]] = {
    e.LemonadeError: 500,
    e.CatalogError: 400,
    e.UnknownModel: 404,
    e.BadDescriptor: 500,
    e.NameTaken: 409,
    e.DefinitionDiffers: 409,
    e.ConfigError: 400,
    e.BadConfigFile: 500,
    e.PlanError: 400,
    e.DoesNotFit: 503,
    e.InstallError: 500,
    e.InstallForbidden: 409,
    e.InstallStopped: 409,
    e.DownloadFailed: 502,
    e.NoSpace: 507,
    e.Locked: 409,
    e.NotInstalled: 409,
    e.NoEarlierVersion: 409,
    e.CheckpointError: 500,
    e.NotInRepository: 404,
    e.GatedRepository: 403,
    e.HubUnreachable: 502,
    e.Offline: 400,
    e.OutOfDisk: 507,
    e.NotDeletable: 400,
    e.UnsupportedRegistry: 400,
    e.ChildError: 500,
    e.CapacityError: 503,
    e.EverythingPinned: 409,
    e.UpstreamError: 502,
    e.UpstreamTimeout: 504,
    e.RequestError: 400,
    e.NotAuthorised: 401,
    e.ForbiddenOrigin: 403,
    e.NotLoaded: 404,
    e.NoSuchRoute: 404,
    e.UnknownIncident: 404,
    e.CannotRestart: 409,
}
"""A class that is not listed has the status of its nearest ancestor that is."""

MODEL_STATUSES: Final[dict[type[e.LemonadeError], int]] = {
    e.UnknownModel: 404,
    e.UnsupportedHere: 404,
    e.UnknownRecipe: 404,
    e.UnknownBackend: 400,
    e.CatalogError: 500,
    e.ConfigError: 500,
    e.CheckpointError: 500,
    e.InstallError: 500,
}
"""Where loading on demand differs: all that goes wrong on the way is one `model_load_error`. What
stands here holds for everything below it, whatever the other table says."""

RETRY_AFTER: Final = "2"
"""Seconds a client is asked to wait after a 503 that does not say."""


def status_of(
    error: e.LemonadeError,
    shape: ErrorShape,
    overrides: Mapping[type[e.LemonadeError], int] | None = None,
) -> int:
    """The HTTP status for an error on a route with errors of that shape."""
    tables = [overrides or {}, MODEL_STATUSES if shape == "model" else {}, STATUSES]
    for table in tables:
        for kind in type(error).__mro__:
            if kind in table:
                return table[kind]
    return 500


def error_answer(
    error: e.LemonadeError,
    shape: ErrorShape,
    overrides: Mapping[type[e.LemonadeError], int] | None = None,
    *,
    requested_model: str | None = None,
) -> tuple[int, JsonObject, tuple[tuple[str, str], ...]]:
    """An error as the client's dialect writes it: status, body and headers of its own."""
    status = status_of(error, shape, overrides)
    body = render_error(error, status, shape=shape)
    if requested_model and shape == "model" and body["error"].get("param") == "model":
        body["error"]["requested_model"] = requested_model
    if status != 503:
        return status, body, ()
    return status, body, (("Retry-After", str(error.facts.get("retry_after", RETRY_AFTER))),)


def json_bytes(body: object) -> bytes:
    """JSON as UTF-8, not escaped to ASCII. Bytes of a client that are no text become `?`."""
    return json.dumps(body, ensure_ascii=False).encode(errors="replace")
