"""`LaunchFacts`: everything the planner of a launch may know, gathered by its caller."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from pathlib import Path

from lemonade.catalog.adapters import Adapter
from lemonade.catalog.backend import BackendSpec
from lemonade.catalog.model import ModelSpec
from lemonade.catalog.recipe import RecipeSpec
from lemonade.core.bundle import Bundle
from lemonade.core.process import DeviceHold, Endpoint
from lemonade.core.records import dataclass
from lemonade.hardware.facts import Machine
from lemonade.planning.context import ContextPlan
from lemonade.planning.options import EffectiveOptions


@dataclass(frozen=True, slots=True)
class LaunchFacts:
    """One model about to be started on one backend.

    Attributes:
        served_name: the name the child answers to; what clients put into `model`.
        bundle: the installed engine; its `argv` may still hold `{overlay}`.
        overlay: folder of files shipped beside the backend's descriptor.
        files: by role, absolute; the first of a role is the one an engine is given.
        endpoint: where the child shall listen.
        api_key: the child's own key; used only if the engine knows keys.
        environ: our own environment, of which a child gets little.
        compile_cache: folder for what this version of the engine compiles.
        config: the checkpoint's `config.json`; `None` if it has none.
        weights_bytes: size of the files; 0 when unknown.
        held: what other models hold of devices, and will hold beside it.
        context_limit: what the engine said would fit, when it was tried before.
        context: what was planned; the planner fills it in before the rules see the facts.
        adapters: what is put upon the model, in the order the engine gets it.
    """

    model: ModelSpec
    served_name: str
    recipe: RecipeSpec
    backend: BackendSpec
    bundle: Bundle
    overlay: Path
    files: Mapping[str, tuple[Path, ...]]
    machine: Machine
    options: EffectiveOptions
    endpoint: Endpoint
    api_key: str = field(repr=False)
    log_file: Path | None
    environ: Mapping[str, str] = field(repr=False)
    compile_cache: Path
    config: Mapping[str, object] | None = field(default=None, repr=False)
    weights_bytes: int = 0
    held: tuple[DeviceHold, ...] = ()
    context_limit: int | None = None
    context: ContextPlan | None = None
    adapters: tuple[Adapter, ...] = ()
