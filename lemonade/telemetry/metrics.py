"""The Prometheus page: our own numbers, in a registry of their own.

Everything is collected when the page is asked for; between two scrapes nothing is kept here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from lemonade.core.records import dataclass
from lemonade.telemetry.statistics import Statistics, Tally

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

MODEL_LABELS: Final = ("model_name", "checkpoint", "type", "device", "recipe")

_GIB: Final = 1 << 30


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """What the page says of a model that can be used now."""

    model_name: str
    checkpoint: str
    type: str
    device: str
    recipe: str

    def labels(self) -> dict[str, str]:
        """Its labels, on our own samples and on those of its engine."""
        return {
            "model_name": self.model_name,
            "checkpoint": self.checkpoint,
            "type": self.type,
            "device": self.device,
            "recipe": self.recipe,
        }


@dataclass(frozen=True, slots=True)
class HostLoad:
    """How busy the machine is. `None` is unknown; its samples are left out then.

    Attributes:
        cpu_percent: 0 to 100.
        memory_bytes: used.
        gpu_percent: 0 to 100.
        vram_bytes: used.
        npu_percent: 0 to 100.
    """

    cpu_percent: float | None = None
    memory_bytes: int | None = None
    gpu_percent: float | None = None
    vram_bytes: int | None = None
    npu_percent: float | None = None


class Metrics:
    """Renders the page. Made by the composition root."""

    def __init__(self, statistics: Statistics, *, version: str) -> None:
        self._statistics = statistics
        self._version = version
        self._failures: dict[str, int] = {}

    def render(
        self,
        models: Iterable[LoadedModel],
        host: HostLoad | None = None,
        limits: Mapping[str, int] | None = None,
        scraped: Mapping[str, bool] | None = None,
    ) -> str:
        """The page, without what the engines say of themselves.

        Args:
            models: that can be used now.
            host: how busy the machine is.
            limits: how many models of each type may be loaded.
            scraped: for models whose engines have metrics, whether they could be had just now.
        """
        for name, had in (scraped or {}).items():
            self._failures[name] = self._failures.get(name, 0) + (not had)
        page = _Page(
            self._statistics,
            self._version,
            tuple(models),
            host or HostLoad(),
            limits or {},
            {name: (had, self._failures[name]) for name, had in (scraped or {}).items()},
        )
        registry = CollectorRegistry()
        registry.register(page)
        return generate_latest(registry).decode()


class _Page(Collector):
    """One scrape."""

    def __init__(
        self,
        statistics: Statistics,
        version: str,
        models: tuple[LoadedModel, ...],
        host: HostLoad,
        limits: Mapping[str, int],
        scraped: Mapping[str, tuple[bool, int]],
    ) -> None:
        self._statistics = statistics
        self._version = version
        self._models = models
        self._host = host
        self._limits = limits
        self._scraped = scraped

    def describe(self) -> list[Metric]:
        """Nothing in advance: each page is rendered once."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All families of the page."""
        yield from self._server()
        yield from self._of_models()
        yield from self._of_scrapes()
        yield from self._totals()
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
