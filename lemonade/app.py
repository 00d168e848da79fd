"""The composition root: directories in, running server out.

The only place where concrete classes meet. There is no registry of objects: what a class can reach
is what it is given here.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Final

from lemonade import __version__
from lemonade.catalog import (
    AdapterRegistry,
    Catalog,
    ModelRegistry,
    SavedOptions,
    sources,
    trusted,
)
from lemonade.checkpoints import Downloads, Foresight, Hub, ModelStore
from lemonade.config import AccessKeys, Configuration, Settings, extra_models
from lemonade.core.bus import Bus
from lemonade.core.errors import LemonadeError
from lemonade.core.events import RequestFinished
from lemonade.core.records import dataclass
from lemonade.front import Listener, Workers, adopted, bind
from lemonade.gateway import Parts, build_application
from lemonade.gateway.process import allow_many_files, settle_memory
from lemonade.gateway.server_log import log_request, set_up_logging
from lemonade.gateway.signals import handle_signals
from lemonade.hardware import detect, device_memory, real_instruments
from lemonade.installer import Bundles, Installer, KnownFlags, LatestReleases, Versions
from lemonade.residency import (
    AdapterFetching,
    Adopter,
    Awake,
    Canary,
    Circuits,
    Failures,
    Fitter,
    Incidents,
    Keeper,
    Learner,
    Loader,
    LoaderParts,
    LoadRequest,
    LocalPlacement,
    Newcomers,
    Pool,
    Quarantine,
    Selections,
    Swapper,
    crash_policy,
    hang_policy,
    kept_versions,
)
from lemonade.storage import Directories
from lemonade.supervisor import (
    Estate,
    Inhibitor,
    JournalHandler,
    LastResort,
    Supervisor,
    begin_again,
    end_children,
    hold_signals,
    inherit,
)
from lemonade.telemetry import JsonLines, Lives, Metrics, Statistics

log = logging.getLogger(__name__)

SHUTDOWN_SECONDS: Final = 5.0
"""How long open client connections may stay after the engines are gone."""


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """What the command line decided for one run; nothing of it is written to disk.

    Attributes:
        host: address to listen on; `None` takes the setting.
        port: 0 takes a free one; `None` takes the setting.
        workers: processes beside the server; `None` takes the setting.
        log_level: `None` takes the setting.
        models: loaded at once, in the background.
        announce: told the server's URL once it listens.
        on_exit: `end` or `keep`; `None` takes the setting.
        command: what this process becomes when the server begins again; empty if it cannot.
    """

    host: str | None = None
    port: int | None = None
    workers: int | None = None
    log_level: str | None = None
    models: Sequence[str] = ()
    announce: Callable[[str], None] = lambda _: None
    on_exit: str | None = None
    command: Sequence[str] = ()


def run_server(  # noqa: PLR0913 - the flags of `serve`
    directories: Directories,
    *,
    host: str | None = None,
    port: int | None = None,
    workers: int | None = None,
    log_level: str | None = None,
    models: Sequence[str] = (),
    announce: Callable[[str], None] = lambda _: None,
    on_exit: str | None = None,
    command: Sequence[str] = (),
) -> int:
    """Serve until told to stop. Blocks; the exit status is returned.

    `announce` is told the server's URL once it listens. `command` is what this process becomes
    when the server is to begin again; an empty one makes that impossible.

    A port that is taken, a broken configuration file and the like are one line on standard error
    and status 1.
    """
    options = ServeOptions(
        host, port, workers, log_level, tuple(models), announce, on_exit, tuple(command)
    )
    try:
        directories.ensure()
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            estate = runner.run(_serve(directories, os.environ, options))
        if estate is None:
            return 0
        why = begin_again(directories.state / "children", options.command, estate)
        sys.stderr.write(f"Error: The server cannot begin again: {why}\n")
        return 1
    except LemonadeError as error:
        sys.stderr.write(f"Error: {error}\n")
        return 1
    except OSError as error:
        sys.stderr.write(f"Error: {error}\n")
        return 1
    except KeyboardInterrupt:
        return 130


def _loop_factory() -> type[asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # no wheel for this platform; asyncio's own loop is slower, no more
        return None
    return uvloop.Loop


async def _serve(
    directories: Directories, environ: Mapping[str, str], options: ServeOptions
) -> Estate | None:
    """Serve until the end; what the next server gets if there is to be one."""
    began = time.monotonic()
    set_up_logging(options.log_level or "info")
    allow_many_files()
    config = directories.config
    catalog = Catalog.load(sources(environ, config), trusted(environ, config))
    configuration = Configuration(
        directories,
        environ,
        overrides=_overrides(options, environ),
        sections=catalog.sections(),
    )
    settings = configuration.settings
    set_up_logging(settings.log_level, JsonLines() if settings.log_format == "json" else None)
    access = AccessKeys.from_environ(environ)
    estate = await asyncio.to_thread(inherit, directories.state / "children")
    async with AsyncExitStack() as stack:
        sets = _listening(estate, settings)
        for one in (one for sockets in sets for one in sockets):
            stack.callback(one.close)
        parts, supervisor = await _join(
            stack, directories, environ, catalog, configuration, access, options, estate
        )
        pool, shutdown = parts.pool, parts.shutdown
        handler = JournalHandler(parts.journal)
        logging.getLogger().addHandler(handler)
        stack.callback(logging.getLogger().removeHandler, handler)
        app = build_application(parts)
        listener = Listener(app, parts, sets[0], shutdown_seconds=SHUTDOWN_SECONDS)
        await stack.enter_async_context(listener)
        workers = Workers(parts, listener, sets[1:], shutdown_seconds=SHUTDOWN_SECONDS)
        last_resort = LastResort()
        handle_signals(parts, last_resort, workers.hurry)
        await stack.enter_async_context(workers)
        settle_memory()
        bound = sets[0][0].getsockname()[1]
        _warn_if_open(settings.host, access)
        url = f"http://{_shown_host(settings.host)}:{bound}"
        _announce(options, url)
        log.info(
            "Lemonade %s serves %s after %.2f s (cache %s, config %s)",
            __version__,
            url,
            time.monotonic() - began,
            directories.cache,
            directories.config,
        )
        async with asyncio.TaskGroup() as preloads:
            for name in options.models:
                preloads.create_task(_preload(pool, name))
            await shutdown.wait()
            handed = await _end(parts, sets, listener, workers, last_resort)
        parts.journal.close()  # who follows a log would keep its connection open
    if handed is not None and parts.restart is not None and parts.restart.is_set():
        hold_signals()
        log.info("Beginning again")
        return Estate((settings.host, settings.port), handed, supervisor.handed_over)
    if handed is not None:
        log.info("It is not to begin again after all")
        await asyncio.to_thread(end_children, directories.state / "children")
    log.info("Bye")
    return None


async def _end(
    parts: Parts,
    sets: Sequence[Sequence[socket.socket]],
    listener: Listener,
    workers: Workers,
    last_resort: LastResort,
) -> tuple[tuple[int, ...], ...] | None:
    """End the engines; if the server begins again, what listens on its port, and they stay."""
    again = parts.restart is not None and parts.restart.is_set()
    log.info("Restarting" if again else "Shutting down")
    if not again:
        last_resort.begin()
        await parts.pool.close()
        return None
    handed = tuple(tuple(os.dup(socket_.fileno()) for socket_ in one) for one in sets)
    drain = parts.configuration.settings.restart_drain_s
    last_resort.begin(drain)
    workers.turn_away(drain)
    listener.turn_away()
    await parts.pool.close(hand_over=True, drain=drain)
    return handed


async def _join(
    stack: AsyncExitStack,
    directories: Directories,
    environ: Mapping[str, str],
    catalog: Catalog,
    configuration: Configuration,
    access: AccessKeys,
    options: ServeOptions,
    estate: Estate | None,
) -> tuple[Parts, Supervisor]:
    """Make every part and hand each what it needs; the stack ends them in reverse order."""
    settings = configuration.settings
    bus = Bus()
    lives = Lives(bus)  # before anything happens that it counts
    machine = await asyncio.to_thread(detect, Path("/"), real_instruments(environ))
    registry = ModelRegistry(catalog, directories.config / "user_models.json")
    saved_options = SavedOptions(
        directories.config / "recipe_options.json", catalog.builtin_models()
    )
    adapters = AdapterRegistry(directories.config / "adapters.json", registry)
    hub = Hub(
        environ, models_dir=settings.models_dir, offline=lambda: configuration.settings.offline
    )
    stack.callback(hub.close)
    store = ModelStore(
        hub.cache_dir,
        shipped=catalog.shipped_model_file,
        recipes=catalog.recipes,
        state=directories.state,
    )

    def rescan() -> None:
        registry.refresh()  # a server that shares the folder may have written it
        folder = extra_models(configuration.settings)
        registry.set_extra(store.scan_extra(folder) if folder else ())

    await asyncio.to_thread(rescan)
    bundles = Bundles(directories.cache / "bin", environ)

    def may_ask() -> bool:
        now = configuration.settings
        return not (now.offline or now.no_fetch_executables)

    latest = await stack.enter_async_context(
        LatestReleases(bundles.root, environ, machine, allowed=may_ask)
    )
    selections = Selections(catalog, configuration, machine, bundles, latest=latest.known)

    def keeps() -> bool:
        return configuration.settings.on_exit == "keep"

    supervisor = await stack.enter_async_context(
        Supervisor(
            ledger_dir=directories.state / "children",
            bus=bus,
            guarded=True,
            devices=device_memory,
            keep=keeps,
            pipes=None if estate is None else estate.pipes,
        )
    )
    quarantine = await stack.enter_async_context(Quarantine(machine, bus, device_memory))
    placement = LocalPlacement(supervisor)
    newcomers = Newcomers(catalog, machine, environ)
    flags = KnownFlags(directories.cache / "flags")
    unheld = partial(kept_versions, directories.state / "children")
    installer = await stack.enter_async_context(
        Installer(
            bundles,
            bus,
            environ,
            overlay_of=catalog.overlay_dir,
            trials=(Canary(newcomers, placement), Learner(newcomers, flags)),
            unheld=unheld,
        )
    )
    downloads = await stack.enter_async_context(Downloads(hub, store, bus))
    loader = Loader(
        LoaderParts(
            catalog=catalog,
            configuration=configuration,
            saved_options=saved_options,
            adapters=adapters,
            machine=machine,
            quarantine=quarantine,
            bundles=bundles,
            selections=selections,
            installer=installer,
            store=store,
            downloads=downloads,
            foresight=Foresight(hub, store),
            placement=placement,
            flags=flags,
            log_dir=directories.state / "logs",
            environ=environ,
        )
    )
    incidents = await stack.enter_async_context(
        Incidents(directories.state / "incidents", version=__version__)
    )
    pool = await stack.enter_async_context(
        Pool(
            registry=registry,
            loader=loader,
            bus=bus,
            max_per_type=lambda: configuration.settings.max_loaded_models,
            failures=Failures(
                incidents,
                Circuits(lambda: crash_policy(configuration.settings)),
                bus,
                quarantine,
            ),
            hang=lambda: hang_policy(configuration.settings),
            keep=keeps,
        )
    )
    await stack.enter_async_context(
        Awake(
            bus=bus,
            lock=Inhibitor(supervisor, environ),
            residents=pool.residents,
            wanted=lambda: configuration.settings.inhibit_suspend,
            resumed=supervisor.doubt,
        )
    )
    await stack.enter_async_context(Keeper(pool))
    adopter = await stack.enter_async_context(
        Adopter(
            catalog=catalog,
            registry=registry,
            selections=selections,
            placement=placement,
            pool=pool,
            bus=bus,
        )
    )
    await adopter.take(supervisor.heirs)
    swapper = await stack.enter_async_context(
        Swapper(
            catalog=catalog,
            configuration=configuration,
            machine=machine,
            bundles=bundles,
            selections=selections,
            installer=installer,
            pool=pool,
        )
    )
    fitter = await stack.enter_async_context(
        Fitter(
            catalog=catalog,
            models=registry,
            adapters=adapters,
            store=store,
            fetching=AdapterFetching(downloads, store),
            pool=pool,
        )
    )
    statistics = Statistics(bus)
    parts = Parts(
        version=__version__,
        directories=directories,
        environ=environ,
        access=access,
        configuration=configuration,
        catalog=catalog,
        registry=registry,
        saved_options=saved_options,
        adapters=adapters,
        machine=machine,
        quarantine=quarantine,
        bundles=bundles,
        selections=selections,
        installer=installer,
        latest=latest,
        versions=Versions(bundles, bus, unheld=unheld),
        store=store,
        downloads=downloads,
        loader=loader,
        pool=pool,
        incidents=incidents,
        swapper=swapper,
        fitter=fitter,
        statistics=statistics,
        metrics=Metrics(statistics, version=__version__, lives=lives),
        bus=bus,
        journal=supervisor.journal,
        rescan=rescan,
        shutdown=asyncio.Event(),
        restart=asyncio.Event() if options.command else None,
        began=time.time(),
    )
    bus.subscribe(RequestFinished, log_request)
    return parts, supervisor


async def _preload(pool: Pool, name: str) -> None:
    try:
        await pool.load(name, LoadRequest(), keep=True)
    except LemonadeError as error:
        log.error("%s could not be loaded: %s", name, error)


def _overrides(options: ServeOptions, environ: Mapping[str, str]) -> dict[str, object]:
    keys = ("host", "port", "workers", "log_level", "on_exit")
    given = {key: getattr(options, key) for key in keys}
    given["on_exit"] = options.on_exit or environ.get("LEMONADE_ON_EXIT") or None
    return {key: value for key, value in given.items() if value is not None}


def _listening(estate: Estate | None, settings: Settings) -> list[list[socket.socket]]:
    """The sockets of our former life if they are those we are to listen on, or new ones."""
    old = estate or Estate()
    address = (settings.host, settings.port)
    same = old.address == address and len(old.sockets) == settings.workers + 1
    return adopted(old.sockets, wanted=same) or bind(*address, settings.workers)


def _announce(options: ServeOptions, url: str) -> None:
    try:
        options.announce(url)
    except OSError as error:  # a pipe whose reader has left is no reason not to serve
        log.debug("Nobody could be told where we listen: %s", error)


def _warn_if_open(host: str, access: AccessKeys) -> None:
    if host in ("localhost", "127.0.0.1", "::1") or access.api_key:
        return
    log.warning("Anybody who reaches %s may use this server: no LEMONADE_API_KEY is set.", host)


def _shown_host(host: str) -> str:
    return f"[{host}]" if ":" in host else host
