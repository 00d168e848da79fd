"""What goes on, in numbers: usage of one request, totals, and the Prometheus page."""

from lemonade.telemetry.exposition import join_pages, relabel
from lemonade.telemetry.lives import Lives
from lemonade.telemetry.log_lines import JsonLines
from lemonade.telemetry.metrics import CONTENT_TYPE, Metrics
from lemonade.telemetry.statistics import Statistics, Tally
from lemonade.telemetry.subjects import HostLoad, LoadedModel
from lemonade.telemetry.usage import UsageTap, usage_of

__all__ = [
    "CONTENT_TYPE",
    "HostLoad",
    "JsonLines",
    "Lives",
    "LoadedModel",
    "Metrics",
    "Statistics",
    "Tally",
    "UsageTap",
    "join_pages",
    "relabel",
    "usage_of",
]
