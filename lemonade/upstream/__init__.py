"""The wire to children: a pool of connections for each, and answers as raw bytes."""

from lemonade.upstream.connection import BodySink, Connection, HeadSink, StaleConnection
from lemonade.upstream.fetch import fetch, http_probe
from lemonade.upstream.forward import Forwarder, Sieve
from lemonade.upstream.framing import ResponseHead
from lemonade.upstream.heads import Extra, compose_whole
from lemonade.upstream.passage import Passage
from lemonade.upstream.pool import Elsewhere, Upstream
from lemonade.upstream.request import UpstreamRequest
from lemonade.upstream.response import UpstreamResponse

__all__ = [
    "BodySink", "Connection", "Elsewhere", "Extra", "Forwarder", "HeadSink", "Passage",
    "ResponseHead", "Sieve", "StaleConnection", "Upstream", "UpstreamRequest",
    "UpstreamResponse", "compose_whole", "fetch", "http_probe",
]  # fmt: skip
