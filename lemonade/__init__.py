"""Lemonade turns a machine into a private AI endpoint."""

__version__ = "0.1.0"
