"""The Prometheus page: our own numbers.

Everything is collected when the page is asked for; between two scrapes nothing is kept here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from lemonade.telemetry.lives import Lives
from lemonade.telemetry.statistics import Statistics
from lemonade.telemetry.subjects import HostLoad, LoadedModel

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """Renders the page. Made by the composition root."""

    def __init__(
        self, statistics: Statistics, *, version: str, lives: Lives | None = None
    ) -> None:
        self._statistics = statistics
        self._lives = lives
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
        # Not every server is scraped: without the library a start takes 10 ms less.
        from lemonade.telemetry.page import Page

        for name, had in (scraped or {}).items():
            self._failures[name] = self._failures.get(name, 0) + (not had)
        page = Page(
            self._statistics,
            self._version,
            tuple(models),
            host or HostLoad(),
            limits or {},
            {name: (had, self._failures[name]) for name, had in (scraped or {}).items()},
            self._lives,
        )
        return page.text()
