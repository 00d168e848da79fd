"""Lemonade turns a machine into a private AI endpoint."""

from typing import Final

__version__: Final = "0.1.0"
