"""The public side: the only room with `aiohttp.web`."""

from lemonade.gateway.application import build_application
from lemonade.gateway.parts import Parts

__all__ = ["Parts", "build_application"]
