"""What handlers can reach: the parts of the server, joined by the composition root."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import field

from aiohttp import web

from lemonade.catalog import AdapterRegistry, Catalog, ModelRegistry, SavedOptions
from lemonade.checkpoints import Downloads, ModelStore
from lemonade.config import AccessKeys, Configuration
from lemonade.core.bus import Bus
from lemonade.core.records import dataclass
from lemonade.hardware import Machine
from lemonade.installer import Bundles, Installer, LatestReleases, Versions
from lemonade.relay import Crew
from lemonade.residency import Fitter, Incidents, Loader, Pool, Quarantine, Selections, Swapper
from lemonade.storage import Directories
from lemonade.supervisor import Journal
from lemonade.telemetry import Metrics, Statistics


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything the gateway was made from. Lives as long as the application.

    Attributes:
        journal: what engines print and the server logs.
        rescan: look again at the operator's own model directory; call it off the loop.
        shutdown: set it and the server ends.
        restart: set it before and the server begins again; `None` where it cannot.
        began: when the server began, in seconds of the epoch.
        crew: the workers beside this process.
    """

    version: str
    directories: Directories
    environ: Mapping[str, str]
    access: AccessKeys
    configuration: Configuration
    catalog: Catalog
    registry: ModelRegistry
    saved_options: SavedOptions
    adapters: AdapterRegistry
    machine: Machine
    quarantine: Quarantine
    bundles: Bundles
    selections: Selections
    installer: Installer
    latest: LatestReleases
    versions: Versions
    store: ModelStore
    downloads: Downloads
    loader: Loader
    pool: Pool
    incidents: Incidents
    swapper: Swapper
    fitter: Fitter
    statistics: Statistics
    metrics: Metrics
    bus: Bus
    journal: Journal
    rescan: Callable[[], None]
    shutdown: asyncio.Event
    restart: asyncio.Event | None
    began: float
    crew: Crew = field(default_factory=Crew)


PARTS: web.AppKey[Parts] = web.AppKey("parts", Parts)


def parts_of(request: web.Request) -> Parts:
    """The parts behind the application that serves this request."""
    return request.app[PARTS]
