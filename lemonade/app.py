"""The composition root: directories in, running server out.

The only place where concrete classes meet. There is no registry of objects: what a class can reach
is what it is given here.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
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
from lemonade.checkpoints import Downloads, Hub, ModelStore
from lemonade.config import AccessKeys, Configuration, extra_models
from lemonade.core.bus import Bus
from lemonade.core.errors import LemonadeError
from lemonade.core.events import RequestFinished
from lemonade.core.records import dataclass
from lemonade.front import Listener, Workers, bind
from lemonade.gateway import Parts, build_application
from lemonade.gateway.garbage import SERVER_LOGGER, in_one_line
from lemonade.hardware import detect, device_memory, real_instruments
from lemonade.installer import Bundles, Installer, KnownFlags, LatestReleases, Versions
from lemonade.relay import REQUEST_ID
from lemonade.residency import (
    AdapterFetching,
    Awake,
    Canary,
    Circuits,
    Failures,
    Fitter,
    Incidents,
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
)
from lemonade.storage import Directories
from lemonade.supervisor import Inhibitor, JournalHandler, LastResort, Supervisor
from lemonade.telemetry import JsonLines, Lives, Metrics, Statistics

log = logging.getLogger(__name__)

FILES: Final = 65536
"""How many files and connections the server allows itself, where the system allows so many."""

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
    """

    host: str | None = None
    port: int | None = None
    workers: int | None = None
    log_level: str | None = None
    models: Sequence[str] = ()
    announce: Callable[[str], None] = lambda _: None


def run_server(
    directories: Directories,
    *,
    host: str | None = None,
    port: int | None = None,
    workers: int | None = None,
    log_level: str | None = None,
    models: Sequence[str] = (),
    announce: Callable[[str], None] = lambda _: None,
) -> int:
    """Serve until told to stop. Blocks; the exit status is returned.

    `announce` is told the server's URL once it listens.

    A port that is taken, a broken configuration file and the like are one line on standard error
    and status 1.
    """
    options = ServeOptions(host, port, workers, log_level, tuple(models), announce)
    try:
        directories.ensure()
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            return runner.run(_serve(directories, os.environ, options))
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
) -> int:
    began = time.monotonic()
    _set_up_logging(options.log_level or "info")
    _allow_many_files()
    config = directories.config
    catalog = Catalog.load(sources(environ, config), trusted(environ, config))
    configuration = Configuration(
        directories,
        environ,
        overrides=_overrides(options),
        sections=catalog.sections(),
    )
    settings = configuration.settings
    _set_up_logging(settings.log_level, JsonLines() if settings.log_format == "json" else None)
    access = AccessKeys.from_environ(environ)
    async with AsyncExitStack() as stack:
        sets = bind(settings.host, settings.port, settings.workers)
        for one in (one for sockets in sets for one in sockets):
            stack.callback(one.close)
        parts, pool = await _join(stack, directories, environ, catalog, configuration, access)
        shutdown = parts.shutdown
        handler = JournalHandler(parts.journal)
        logging.getLogger().addHandler(handler)
        stack.callback(logging.getLogger().removeHandler, handler)
        app = build_application(parts)
        listener = Listener(app, parts, sets[0], shutdown_seconds=SHUTDOWN_SECONDS)
        await stack.enter_async_context(listener)
        workers = Workers(parts, listener, sets[1:], shutdown_seconds=SHUTDOWN_SECONDS)
        last_resort = LastResort()
        _handle_signals(shutdown, pool, workers, last_resort)
        await stack.enter_async_context(workers)
        _settle_memory()
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
            log.info("Shutting down")
            last_resort.begin()
            await pool.close()
        parts.journal.close()  # who follows a log would keep its connection open
    log.info("Bye")
    return 0


async def _join(
    stack: AsyncExitStack,
    directories: Directories,
    environ: Mapping[str, str],
    catalog: Catalog,
    configuration: Configuration,
    access: AccessKeys,
) -> tuple[Parts, Pool]:
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
    supervisor = await stack.enter_async_context(
        Supervisor(
            ledger_dir=directories.state / "children",
            bus=bus,
            guarded=True,
            devices=device_memory,
        )
    )
    quarantine = await stack.enter_async_context(Quarantine(machine, bus, device_memory))
    placement = LocalPlacement(supervisor)
    newcomers = Newcomers(catalog, machine, environ)
    flags = KnownFlags(directories.cache / "flags")
    installer = await stack.enter_async_context(
        Installer(
            bundles,
            bus,
            environ,
            overlay_of=catalog.overlay_dir,
            trials=(Canary(newcomers, placement), Learner(newcomers, flags)),
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
        versions=Versions(bundles, bus),
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
    )
    bus.subscribe(RequestFinished, _log_request)
    return parts, pool


async def _preload(pool: Pool, name: str) -> None:
    try:
        await pool.load(name, LoadRequest(), keep=True)
    except LemonadeError as error:
        log.error("%s could not be loaded: %s", name, error)


def _overrides(options: ServeOptions) -> dict[str, object]:
    given = {key: getattr(options, key) for key in ("host", "port", "workers", "log_level")}
    return {key: value for key, value in given.items() if value is not None}


def _handle_signals(
    shutdown: asyncio.Event, pool: Pool, workers: Workers, last_resort: LastResort
) -> None:
    """The first signal ends the server in order, a second one kills what it started at once.

    A third one ends it as it is; the guardian sees to the engines.
    """
    loop = asyncio.get_running_loop()

    def asked() -> None:
        if shutdown.is_set():
            last_resort.ask()
            pool.hurry()
            workers.hurry()
        shutdown.set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # `nohup` asks for a server that outlives its terminal.
        if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            loop.add_signal_handler(number, asked)


def _announce(options: ServeOptions, url: str) -> None:
    try:
        options.announce(url)
    except OSError as error:  # a pipe whose reader has left is no reason not to serve
        log.debug("Nobody could be told where we listen: %s", error)


def _allow_many_files() -> None:
    """Every stream takes two descriptors, and the usual first limit is 1024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _warn_if_open(host: str, access: AccessKeys) -> None:
    if host in ("localhost", "127.0.0.1", "::1") or access.api_key:
        return
    log.warning("Anybody who reaches %s may use this server: no LEMONADE_API_KEY is set.", host)


def _settle_memory() -> None:
    """Take what is loaded out of the garbage collector's sight, and let it look less often.

    What a request's garbage would make it walk are mostly modules and registries that stay for
    good. Measured with `make bench`: 7 of 90 us of a request. The little garbage of the start
    stays with them: finding it would delay the first answer by 30 ms, and frees no page.
    """
    gc.freeze()
    gc.set_threshold(20_000, 50, 100)
    gc.enable()


def _shown_host(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _set_up_logging(level: str, form: logging.Formatter | None = None) -> None:
    names = {"trace": logging.DEBUG, "fatal": logging.CRITICAL, "none": logging.CRITICAL + 1}
    handler = logging.StreamHandler()
    words = "%(asctime)s %(levelname)-7s %(request_id)s %(name)s: %(message)s"
    handler.setFormatter(form or logging.Formatter(words))
    handler.addFilter(_add_request_id)
    logging.getLogger(SERVER_LOGGER).addFilter(in_one_line)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("lemonade").setLevel(
        names.get(level) or logging.getLevelNamesMapping()[level.upper()]
    )


def _add_request_id(record: logging.LogRecord) -> bool:
    record.request_id = REQUEST_ID.get()
    return True


def _log_request(event: RequestFinished) -> None:
    """One line for each request; nothing of what was asked or answered is in it."""
    usage = event.usage
    log.info(
        "%s %s: %d in %.3f s%s%s%s",
        event.model,
        event.operation,
        event.status,
        event.duration,
        "" if event.complete else ", cut off",
        "" if usage.output_tokens is None else f", {usage.output_tokens} tokens",
        "" if not usage.tokens_per_second else f", {usage.tokens_per_second:.1f} tokens/s",
    )
