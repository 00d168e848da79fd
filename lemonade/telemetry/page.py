"""One scrape of the Prometheus page: its families, in a registry of their own.

Imported when the page is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from lemonade.telemetry.lives import Lives
from lemonade.telemetry.statistics import Statistics, Tally
from lemonade.telemetry.subjects import MODEL_LABELS, HostLoad, LoadedModel

_GIB: Final = 1 << 30


class Page(Collector):
    """One scrape."""

    def __init__(
        self,
        statistics: Statistics,
        version: str,
        models: tuple[LoadedModel, ...],
        host: HostLoad,
        limits: Mapping[str, int],
        scraped: Mapping[str, tuple[bool, int]],
        lives: Lives | None,
    ) -> None:
        self._lives = lives
        self._statistics = statistics
        self._version = version
        self._models = models
        self._host = host
        self._limits = limits
        self._scraped = scraped

    def text(self) -> str:
        """The page as Prometheus reads it."""
        registry = CollectorRegistry()
        registry.register(self)
        return generate_latest(registry).decode()

    def describe(self) -> list[Metric]:
        """Nothing in advance: each page is rendered once."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All families of the page."""
        yield from self._server()
        yield from self._of_models()
        yield from self._of_scrapes()
        yield from self._totals()
        yield from self._of_lives()
        yield from self._of_host()

    def _server(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("lemonade_server_up", "Whether the server is up.", value=1)
        info = GaugeMetricFamily(
            "lemonade_server_info", "The server's version.", labels=["version"]
        )
        info.add_metric([self._version], 1)
        yield info
        yield GaugeMetricFamily(
            "lemonade_loaded_models", "Models that can be used now.", value=len(self._models)
        )
        limit = GaugeMetricFamily(
            "lemonade_max_loaded_models",
            "How many models of a type may be loaded; -1 is without limit.",
            labels=["type"],
        )
        for kind, number in self._limits.items():
            limit.add_metric([kind], number)
        yield limit

    def _of_models(self) -> Iterator[Metric]:
        tallies = [
            (tuple(model.labels().values()), self._statistics.of_model(model.model_name))
            for model in self._models
        ]
        for name, text in (("info", "A loaded model."), ("loaded", "Whether it is loaded.")):
            gauge = GaugeMetricFamily(f"lemonade_model_{name}", text, labels=MODEL_LABELS)
            for labels, _ in tallies:
                gauge.add_metric(labels, 1)
            yield gauge
        for name, attribute, text in (
            ("input_tokens", "input_tokens", "Prompt tokens processed by the last request."),
            ("output_tokens", "output_tokens", "Tokens made by the last request."),
            ("prompt_tokens", "prompt_tokens", "Length of the last request's prompt."),
            ("cache_tokens", "cache_tokens", "Of them, tokens taken from the engine's cache."),
            (
                "time_to_first_token_seconds",
                "time_to_first_token",
                "How long the last request waited for its first token.",
            ),
            ("tokens_per_second", "tokens_per_second", "How fast the last answer was made."),
        ):
            gauge = GaugeMetricFamily(f"lemonade_model_{name}", text, labels=MODEL_LABELS)
            for labels, tally in tallies:
                value = None if tally.last is None else getattr(tally.last, attribute)
                if value is not None:
                    gauge.add_metric(labels, value)
            yield gauge
        for name, attribute, text in _SUMS:
            counter = CounterMetricFamily(
                f"lemonade_model_{name}", f"{text}, since the start.", labels=MODEL_LABELS
            )
            for labels, tally in tallies:
                counter.add_metric(labels, getattr(tally, attribute))
            yield counter

    def _of_scrapes(self) -> Iterator[Metric]:
        had = GaugeMetricFamily(
            "lemonade_model_scraped",
            "Whether this page has the metrics of the model's engine.",
            labels=MODEL_LABELS,
        )
        failures = CounterMetricFamily(
            "lemonade_model_scrape_failures",
            "How often the metrics of the model's engine could not be had, since the start.",
            labels=MODEL_LABELS,
        )
        for model in self._models:
            if model.model_name in self._scraped:
                labels = tuple(model.labels().values())
                now, failed = self._scraped[model.model_name]
                had.add_metric(labels, now)
                failures.add_metric(labels, failed)
        yield had
        yield failures

    def _totals(self) -> Iterator[Metric]:
        total: Tally = self._statistics.total
        for name, attribute, text in _SUMS:
            yield CounterMetricFamily(
                f"lemonade_{name}",
                f"{text} of all models, since the start.",
                value=getattr(total, attribute),
            )
        for name in ("decisions", "switches"):
            yield CounterMetricFamily(
                f"lemonade_routing_{name}", f"Routing {name}, since the start.", value=0
            )

    def _of_lives(self) -> Iterator[Metric]:
        for counter in self._lives.counters() if self._lives is not None else ():
            family = CounterMetricFamily(counter.name, counter.help, labels=counter.labels)
            for labels, value in counter.samples.items():
                family.add_metric(labels, value)
            yield family

    def _of_host(self) -> Iterator[Metric]:
        host = self._host
        memory, vram = host.memory_bytes, host.vram_bytes
        rows: tuple[tuple[str, str, float | None], ...] = (
            ("cpu_usage_percent", "Processor load.", host.cpu_percent),
            ("memory_used_gb", "Memory in use.", None if memory is None else memory / _GIB),
            ("gpu_usage_percent", "Load of the busiest GPU.", host.gpu_percent),
            ("vram_used_gb", "Its memory in use.", None if vram is None else vram / _GIB),
            ("npu_usage_percent", "Load of the NPU.", host.npu_percent),
        )
        for name, text, value in rows:
            yield GaugeMetricFamily(f"lemonade_{name}", text, value=value)


_SUMS: Final = (
    ("requests", "requests", "Requests served"),
    ("input_tokens", "input_tokens", "Prompt tokens processed"),
    ("output_tokens", "output_tokens", "Tokens made"),
    ("prompt_tokens", "prompt_tokens", "Prompt tokens, cached ones included"),
    ("cache_tokens", "cache_tokens", "Prompt tokens taken from caches"),
)
