"""The public side: the only room with `aiohttp.web`."""

from lemonade.gateway.adapters import choose_adapter
from lemonade.gateway.application import build_application
from lemonade.gateway.fitting import fit
from lemonade.gateway.inference import check_type, explain, settled
from lemonade.gateway.parts import Parts

__all__ = [
    "Parts", "build_application", "check_type", "choose_adapter", "explain", "fit", "settled",
]  # fmt: skip
