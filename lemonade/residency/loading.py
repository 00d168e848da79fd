"""From a model and a wish to a running engine: plan, fetch what is missing, start.

The loader decides nothing about other residents; the pool asks it for one thing at a time and
makes room in between. Everything that can be refused is refused in `plan`, before anything is
fetched, stopped or started.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

from lemonade.catalog import (
    Adapter,
    AdapterRegistry,
    BackendSpec,
    Catalog,
    FamilyMatch,
    ModelSpec,
    RecipeSpec,
    SavedOptions,
)
from lemonade.checkpoints import Downloads, Foresight, ModelStore, adapter_stamp, read_config
from lemonade.config import Configuration
from lemonade.core.bundle import Bundle
from lemonade.core.errors import Incomplete, InstallForbidden, Offline, UnsupportedHere
from lemonade.core.inference import JsonObject
from lemonade.core.process import REDACTED, DeviceHold
from lemonade.core.progress import ProgressListener
from lemonade.core.records import dataclass
from lemonade.hardware import Machine, usage
from lemonade.installer import (
    Bundles,
    Installer,
    KnownFlags,
    compile_cache,
    make_compile_cache,
)
from lemonade.planning import (
    CommandPlan,
    EffectiveOptions,
    LaunchFacts,
    Verdict,
    check_known,
    check_options,
    choose_backend,
    fitting_context,
    grammar_of,
    judge_for,
    known_options,
    plan_asking,
    plan_command,
    plan_install,
    plan_launch,
    resolve_options,
    slot_policy,
    visible_devices,
    why_not,
)
from lemonade.planning.checkpoint_facts import CheckpointFacts
from lemonade.residency.availability import Availability
from lemonade.residency.holding import Holding, hold
from lemonade.residency.named_files import check_named_files
from lemonade.residency.placement import Instance, Placement, PortLease
from lemonade.residency.quarantine import Quarantine
from lemonade.residency.selections import Selections
from lemonade.residency.wishes import LoadRequest

log = logging.getLogger(__name__)

_PEOPLE: Final = frozenset({"config", "architecture", "model", "saved", "request"})
"""Layers that a person wrote for engines in general, or for this one. A registry of families is
written for many versions of an engine, and what one of them does not know it will say itself."""

MEMORY_FACTOR: Final = 1.3
MEMORY_FLOOR_BYTES: Final = 256 << 20
"""What an engine takes besides its weights, as a first guess until memory is planned in bytes:
30 % for context and buffers, and the program itself. Measured with llama.cpp's server, which holds
38 MB with a 1 MB model and about a fifth more than the file with ones of several gigabytes."""


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """A load that can be carried out on this machine.

    Attributes:
        context_limit: the context that an engine said would fit, which it is tried again with.
        adapters: what it shall run with.
        exact: whether it comes to nothing without all of them, as their files are now.
    """

    spec: ModelSpec
    served_name: str
    recipe: RecipeSpec
    backend: BackendSpec
    options: EffectiveOptions
    context_limit: int | None = None
    adapters: tuple[Adapter, ...] = ()
    exact: bool = False


@dataclass(frozen=True, slots=True)
class Ingredients:
    """What a launch needs on this disk.

    Attributes:
        config: the checkpoint's `config.json`, if the recipe plans with it.
        weights_bytes: size of all files.
        held: what other models hold of devices, and will hold beside it.
    """

    bundle: Bundle
    files: Mapping[str, tuple[Path, ...]]
    config: JsonObject | None = None
    weights_bytes: int = 0
    held: tuple[DeviceHold, ...] = ()


@dataclass(frozen=True, slots=True)
class Preview:
    """A load that is not carried out.

    Attributes:
        bundle: the engine; `None` if it is not here.
        missing: what would have to be fetched first, as sentences.
        checkpoint: what is known of the model's files; of a model that is not here, by the hub.
    """

    command: CommandPlan
    bundle: Bundle | None
    missing: tuple[str, ...]
    checkpoint: CheckpointFacts


@dataclass(frozen=True, slots=True)
class LoaderParts:
    """What the loader can reach."""

    catalog: Catalog
    configuration: Configuration
    saved_options: SavedOptions
    adapters: AdapterRegistry
    machine: Machine
    quarantine: Quarantine
    bundles: Bundles
    selections: Selections
    installer: Installer
    store: ModelStore
    downloads: Downloads
    foresight: Foresight
    placement: Placement
    flags: KnownFlags
    log_dir: Path
    environ: Mapping[str, str]


class Loader:
    """Carries out the single steps of a load. Holds no state of its own."""

    def __init__(self, parts: LoaderParts) -> None:
        self._parts = parts

    def plan(self, spec: ModelSpec, served_name: str, request: LoadRequest) -> LoadPlan:
        """Decide recipe, backend and options.

        Raises:
            BadOption, BadArgument, ReservedArgument: an option is refused; nothing was touched.
            UnsupportedHere: it is not for this machine, or this version has no such recipe.
            BadDescriptor: the registry of families that its recipe names is broken.
        """
        parts = self._parts
        availability = Availability(parts.catalog, parts.configuration, parts.machine)
        availability.check(spec, served_name, to_run=True)
        recipe = parts.catalog.recipe(spec.recipe)
        wanted = check_options(
            recipe,
            request.options,
            ignorable=known_options(parts.catalog.recipes.values()),
        )
        section = parts.configuration.settings.section(recipe.section)
        family = FamilyMatch()
        if recipe.families:
            registry = parts.catalog.families(recipe.families)
            family = registry.match(spec.name, spec.checkpoints.get("main", ""))

        def options_for(variant: str | None) -> EffectiveOptions:
            return resolve_options(
                recipe,
                request=wanted,
                saved=parts.saved_options.get(spec.canonical_name),
                declared=spec.recipe_options,
                section=section,
                variant=variant,
                ctx_size=parts.configuration.settings.ctx_size,
                limits=parts.configuration.settings.limits.as_options(),
                family=family,
            )

        named = options_for(None).values.get(recipe.backend_option or "", "")
        backend = choose_backend(
            recipe,
            self._candidates(spec),
            wanted=str(named or ""),
            prefer_system=bool(section.get("prefer_system", True)),
        )
        options = options_for(backend.backend_id.variant)
        adapters = self._adapters(spec, recipe, request)
        exact = request.adapters is not None
        return LoadPlan(
            spec, served_name, recipe, backend, options, adapters=adapters, exact=exact
        )

    def _adapters(
        self, spec: ModelSpec, recipe: RecipeSpec, request: LoadRequest
    ) -> tuple[Adapter, ...]:
        """Those it shall run with. One whose file is gone keeps nobody from using the model."""
        if request.adapters is not None or recipe.adapters is None:
            return request.adapters or ()
        known = self._parts.adapters.of(spec.canonical_name).values()
        for adapter in known:
            if adapter_stamp(adapter.path) is None:
                log.warning("%s: its adapter %s is left out: nothing is at %s",
                            spec.name, adapter.name, adapter.path)  # fmt: skip
        return tuple(one for one in known if adapter_stamp(one.path) is not None)

    def judged(self, plan: LoadPlan) -> Iterator[tuple[BackendSpec, Verdict, bool, str]]:
        """Every backend of the plan's recipe, by preference.

        With it whether it runs here, whether it is here, and why it would not be taken unnamed.
        """
        section = self._parts.configuration.settings.section(plan.recipe.section)
        prefer_system = bool(section.get("prefer_system", True))
        for candidate in self._candidates(plan.spec):
            yield (*candidate, why_not(candidate, prefer_system=prefer_system))

    async def preview(self, plan: LoadPlan, held: tuple[DeviceHold, ...] = ()) -> Preview:
        """The command line of a load that is not carried out.

        Where files are missing, names of theirs stand in, and what the hub says about them is
        planned with. `held` is what others hold beside it.

        Raises:
            LemonadeError: there is no such command line.
        """
        parts, missing = self._parts, []
        bundle: Bundle | None = None
        with suppress(UnsupportedHere):
            bundle = parts.selections.active(plan.backend)
        if bundle is None:
            missing.append(f"{plan.backend.id} is not installed.")
        files = await asyncio.to_thread(parts.store.files, plan.spec, plan.recipe)
        known = await parts.foresight.of(plan.spec, plan.recipe, files)
        if files is None:
            missing.append(f"{plan.served_name} is not downloaded.")
            named = {r: (Path(f"<{c}>"),) for r, c in plan.spec.checkpoints.items()}
            here = bundle or _stand_in(plan)
            ingredients = Ingredients(here, named, known.config, known.size_bytes)
        else:
            ingredients = await self._gathered(plan, bundle or _stand_in(plan), files)
        ingredients = replace(ingredients, held=held)
        port = parts.placement.lease_endpoint()
        port.release()
        key = REDACTED if plan.recipe.upstream.api_key_env else ""
        command = plan_command(self._facts(plan, ingredients, port, key))
        return Preview(command, bundle, tuple(missing), known)

    def check(self, plan: LoadPlan, ingredients: Ingredients) -> tuple[str, ...]:
        """Plan the launch without launching: what cannot be shows before anybody has to leave.

        Returns:
            What whoever asked for the load should know.

        Raises:
            Incomplete, ReservedArgument, BadOption, BadDescriptor: there is no such command line.
        """
        endpoint = self._parts.placement.lease_endpoint()
        try:
            return plan_command(self._facts(plan, ingredients, endpoint, api_key="")).notices
        finally:
            endpoint.release()

    async def vet(
        self, plan: LoadPlan, bundle: Bundle | None = None, *, ask: bool = True
    ) -> tuple[str, ...]:
        """Hold the users' arguments against what the engine knows; nothing is touched.

        Does nothing where they gave none, or the engine is not installed yet. It may take as long
        as the engine takes to print its help, once for each version of it; without `ask` only what
        is known already is used.

        Returns:
            What whoever asked for the load should know.

        Raises:
            BadArgument: the engine has no such argument, or one names a file that is not there.
        """
        spec = plan.recipe.help
        users = [a for a in plan.options.arguments.arguments if a.origin in _PEOPLE]
        await asyncio.to_thread(check_named_files, users, plan.recipe)
        if spec is None or not users:
            return ()
        if bundle is None:
            with suppress(UnsupportedHere):
                bundle = self._parts.selections.active(plan.backend)
        if bundle is None:
            return ()
        endpoint = self._parts.placement.lease_endpoint()
        try:
            facts = self._facts(plan, Ingredients(bundle, {}), endpoint, api_key="")
        finally:
            endpoint.release()
        program, env = plan_asking(facts)
        known = await self._parts.flags.of(bundle, program, env, spec, ask=ask)
        if known is None and not ask:
            return ("It has not been learnt yet which arguments the engine knows.",)
        if known is None:
            return (
                "Which arguments the engine knows could not be learnt from its help, so they "
                "were not checked.",
            )
        check_known(users, known, grammar_of(plan.recipe))
        return ()

    def again(self, plan: LoadPlan, lines: Sequence[str]) -> LoadPlan | None:
        """The plan for a second try after a failed start, if the engine said what would work.

        `lines` are the last it printed. There is no third try.
        """
        limit = fitting_context(plan.recipe.upstream.retry, lines)
        if limit is None or plan.context_limit is not None:
            return None
        return replace(plan, context_limit=limit)

    async def ingredients(self, plan: LoadPlan, listen: ProgressListener) -> Ingredients:
        """Have engine and files on this disk; fetch what is missing, if that is allowed.

        Raises:
            InstallError, CheckpointError: something cannot be had; nothing is half there.
        """
        bundle = self._parts.selections.active(plan.backend)
        if bundle is None:
            bundle = await self._install(plan, listen)
        store, downloads = self._parts.store, self._parts.downloads
        files = store.files(plan.spec, plan.recipe)
        if files is None:
            if self._parts.configuration.settings.offline:
                raise Offline(
                    f"{plan.served_name} is not on this machine, and the server is offline.",
                    remedy="`lemonade config set offline=false` allows the network again.",
                )
            await downloads.download(plan.spec, plan.recipe, listen, do_not_upgrade=True)
            files = store.files(plan.spec, plan.recipe)
        if files is None:
            raise Incomplete(
                f"{plan.served_name} is not complete: {store.missing(plan.spec, plan.recipe)}",
                remedy=f"`lemonade pull {plan.served_name}` fetches what is missing.",
            )
        return await self._gathered(plan, bundle, files)

    async def _gathered(
        self, plan: LoadPlan, bundle: Bundle, files: Mapping[str, tuple[Path, ...]]
    ) -> Ingredients:
        """What the files say about themselves, where the recipe plans with it."""
        if plan.recipe.context is None:
            return Ingredients(bundle, files)
        main = files[plan.recipe.checkpoints[0]]
        config = await asyncio.to_thread(read_config, main[0]) if main else None
        return Ingredients(bundle, files, config, await asyncio.to_thread(_size_of_all, files))

    def fingerprint(self, plan: LoadPlan) -> str:
        """What failures of the engine are counted by: a change of any of it is a new start."""
        bundle = None
        with suppress(UnsupportedHere):
            bundle = self._parts.selections.active(plan.backend)
        files = self._parts.store.files(plan.spec, plan.recipe) or {}
        facts = [
            plan.spec.canonical_name,
            plan.backend.id,
            plan.backend.devices,
            (str(bundle.root), bundle.version) if bundle is not None else "",
            sorted(plan.options.values.items()),
            [(str(file), _stamp(file)) for role in files.values() for file in role],
            [(str(one.path), adapter_stamp(one.path)) for one in plan.adapters],
        ]
        return hashlib.sha256(json.dumps(facts, default=str).encode()).hexdigest()[:32]

    def fits_beside(self, plan: LoadPlan, ingredients: Ingredients) -> bool:
        """Whether it may start while those it replaces still hold their memory.

        A first guess from file sizes, and only where main memory is what counts: on a GPU or NPU
        we cannot tell yet, so there room is made first.
        """
        machine = self._parts.machine
        accelerated = bool(machine.gpus or machine.npus) and plan.backend.devices != ("cpu",)
        if accelerated or slot_policy(plan.recipe, plan.backend) == "exclusive-npu":
            return False
        size = _size_of_all(ingredients.files)
        free = machine.memory_bytes - usage().memory_bytes
        return size * MEMORY_FACTOR + MEMORY_FLOOR_BYTES < free

    async def start(self, plan: LoadPlan, ingredients: Ingredients) -> tuple[Instance, PortLease]:
        """Spawn the engine on a private port; it is not ready yet.

        The caller releases the port when nothing of the engine is left, and with it the version.

        Raises:
            NotInstalled: the version was removed meanwhile, and there is no other.
        """
        parts = self._parts
        bundle, version = await hold(
            ingredients.bundle, lambda: parts.selections.active(plan.backend)
        )
        try:
            held = Holding(parts.placement.lease_endpoint(), version)
        except BaseException:
            if version is not None:
                version.release()
            raise
        api_key = secrets.token_urlsafe(24) if plan.recipe.upstream.api_key_env else ""
        try:
            facts = self._facts(plan, replace(ingredients, bundle=bundle), held, api_key)
            spec = plan_launch(facts)
            await asyncio.to_thread(make_compile_cache, facts.compile_cache, spec.env)
            log.info("%s: starting %s", plan.served_name, " ".join(spec.shown_argv()))
            self._say_what_it_sees(facts)
            return await parts.placement.start(spec, api_key=api_key), held
        except BaseException:
            held.release()
            raise

    def _candidates(self, spec: ModelSpec) -> list[tuple[BackendSpec, Verdict, bool]]:
        parts = self._parts
        backends = map(parts.selections.described, parts.catalog.backends_of(spec.recipe))
        checkpoint = spec.checkpoints.get("main", "")
        return [
            (backend, judge_for(backend, parts.machine, checkpoint), self._is_here(backend))
            for backend in backends
        ]

    def _say_what_it_sees(self, facts: LaunchFacts) -> None:
        own = not facts.bundle.removable
        seen = visible_devices(facts.environ, facts.backend, facts.machine, own_program=own)
        if seen.notice:
            log.info("%s: %s", facts.served_name, seen.notice)

    def _is_here(self, backend: BackendSpec) -> bool:
        """Whether it can be started as it is.

        A pin that cannot be used must not keep the recipe's other backends from being chosen; it
        is said when this one is.
        """
        with suppress(UnsupportedHere):
            return self._parts.selections.active(backend) is not None
        return False

    async def _install(self, plan: LoadPlan, listen: ProgressListener) -> Bundle:
        settings = self._parts.configuration.settings
        name = plan.backend.id
        if not plan.backend.pin.fetched:
            raise UnsupportedHere(
                f"{name} is not on this machine, and it is not something Lemonade installs.",
                remedy=f"Install {plan.backend.pin.executable} so that it is on PATH, or choose "
                "another backend.",
            )
        if settings.no_fetch_executables or settings.offline:
            key = "no_fetch_executables" if settings.no_fetch_executables else "offline"
            raise InstallForbidden(
                f"{name} is not installed, and the setting '{key}' forbids fetching it.",
                remedy=f"`lemonade config set {key}=false`, then "
                f"`lemonade backends install {name}`.",
            )
        bundles = self._parts.bundles
        install = plan_install(
            self._parts.selections.of(plan.backend),
            self._parts.machine,
            bundles.present(plan.backend),
            bundles.root,
        )
        return await self._parts.installer.install(install, listen)

    def _facts(
        self, plan: LoadPlan, ingredients: Ingredients, port: PortLease, api_key: str
    ) -> LaunchFacts:
        parts = self._parts
        return LaunchFacts(
            model=plan.spec,
            served_name=plan.served_name,
            recipe=plan.recipe,
            backend=plan.backend,
            bundle=ingredients.bundle,
            overlay=parts.catalog.overlay_dir(plan.backend.backend_id),
            files=ingredients.files,
            machine=parts.quarantine.machine,
            options=plan.options,
            endpoint=port.endpoint,
            api_key=api_key,
            log_file=log_file_of(parts.log_dir, plan.served_name),
            environ=parts.environ,
            config=ingredients.config,
            weights_bytes=ingredients.weights_bytes,
            held=ingredients.held,
            context_limit=plan.context_limit,
            compile_cache=compile_cache(parts.bundles.root, ingredients.bundle),
            adapters=plan.adapters,
        )


def _stand_in(plan: LoadPlan) -> Bundle:
    """A bundle that is not installed yet, as far as its command line goes."""
    backend = plan.backend
    return Bundle(backend.backend_id, "", Path("/"), backend.bundle.argv)


def _stamp(path: Path) -> tuple[int, int]:
    """Size and time of change of a file; what is not there has none."""
    try:
        found = path.stat()
    except OSError:
        return (0, 0)
    return (found.st_size, found.st_mtime_ns)


def _size_of_all(files: Mapping[str, tuple[Path, ...]]) -> int:
    return sum(_size_of(file) for role in files.values() for file in role)


def _size_of(path: Path) -> int:
    """Bytes of a file, or of all below a folder."""
    if not path.is_dir():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def log_file_of(folder: Path, model: str) -> Path:
    """Where the output of a model's engines is kept, over all its loads."""
    name = "".join(c if c.isalnum() or c in "._-" else "_" for c in model)[:120]
    return folder / f"{name}.log"
