"""Translations between what clients write and what engines read. No input or output here."""

from lemonade.dialects.adapting import (
    Adapted,
    adapt_request,
    counting_request,
    lower_limit,
    read_context,
    read_count,
    rename_model,
)
from lemonade.dialects.choosing import with_field
from lemonade.dialects.errors import ErrorShape, render_error, wrap_backend_error
from lemonade.dialects.openai import INFERENCE_ROUTES, read_inference, read_object
from lemonade.dialects.statuses import error_answer, json_bytes, status_of
from lemonade.dialects.usage_sieve import UsageSieve

__all__ = [
    "INFERENCE_ROUTES",
    "Adapted",
    "ErrorShape",
    "UsageSieve",
    "adapt_request",
    "counting_request",
    "error_answer",
    "json_bytes",
    "lower_limit",
    "read_context",
    "read_count",
    "read_inference",
    "read_object",
    "rename_model",
    "render_error",
    "status_of",
    "with_field",
    "wrap_backend_error",
]
