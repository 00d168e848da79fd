"""A request made to fit the engine it goes to, as far as that needs no question to the engine."""

from __future__ import annotations

from lemonade.core.inference import Inference
from lemonade.dialects import Adapted, UsageSieve, adapt_request, rename_model
from lemonade.relay.target import Target


def fit_now(wanted: Inference, resident: Target) -> tuple[bytes, UsageSieve | None] | None:
    """The body for the engine, and what takes out of its stream what only we asked for.

    `None` if the engine has to be asked something first.
    """
    spec = resident.recipe.upstream
    adapted = adapt(wanted, resident)
    limit = adapted.limit
    if spec.limits is not None and limit is not None:
        context = resident.context
        if not context or limit > min(spec.limits.above, context):
            return None
    return adapted.body, UsageSieve() if adapted.hide_usage else None


def adapt(wanted: Inference, resident: Target) -> Adapted:
    """The request as the engine's recipe wants it, without having asked the engine anything."""
    spec = resident.recipe.upstream
    body = wanted.body
    if spec.own_name and body and wanted.model != resident.served_name:
        body = rename_model(body, resident.served_name)
    return adapt_request(
        wanted.operation,
        body,
        old_limit=spec.old_limit,
        ask_usage=wanted.stream and spec.usage == "on-request",
    )
