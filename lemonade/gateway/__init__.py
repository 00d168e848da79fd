"""The public side: the only room with `aiohttp.web`."""

from lemonade.gateway.adapters import choose_adapter
from lemonade.gateway.application import MAX_BODY_BYTES, build_application
from lemonade.gateway.errors import error_answer, json_bytes, status_of
from lemonade.gateway.fitting import fit, fit_now
from lemonade.gateway.inference import check_type, explain, publish, settled
from lemonade.gateway.middleware import REQUEST_ID, RequestIds, check_origin
from lemonade.gateway.parts import Parts
from lemonade.gateway.routing import PREFIXES
from lemonade.gateway.waiting import Prelude

__all__ = [
    "MAX_BODY_BYTES", "PREFIXES", "REQUEST_ID", "Parts", "Prelude", "RequestIds",
    "build_application", "check_origin", "check_type", "choose_adapter", "error_answer", "explain",
    "fit", "fit_now", "json_bytes", "publish", "settled", "status_of",
]  # fmt: skip
