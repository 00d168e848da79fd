"""Translations between what clients write and what engines read. No input or output here."""

from lemonade.dialects.errors import ErrorShape, render_error, wrap_backend_error
from lemonade.dialects.openai import INFERENCE_ROUTES, read_inference, read_object

__all__ = [
    "INFERENCE_ROUTES",
    "ErrorShape",
    "read_inference",
    "read_object",
    "render_error",
    "wrap_backend_error",
]
