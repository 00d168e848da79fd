"""A hub, a cache and everything joined, for one test."""

from __future__ import annotations

import asyncio
import os
import tomllib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from lemonade.catalog import ModelSpec, RecipeSpec
from lemonade.checkpoints import Downloads, Hub, ModelStore, Patience
from lemonade.core.bus import Bus
from lemonade.core.events import Event
from lemonade.core.progress import Progress
from tests.checkpoints.examples import BIG, Q4_FILE
from tests.checkpoints.hub_fixture import gguf, running_hub, write_repository

# Read when huggingface-hub is imported: no question to the real hub, whatever a test does.
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

ROOT = Path(__file__).resolve().parents[2]
QUICK = Patience(retries=2, question_retries=2, first_pause=0.01, longest_pause=0.02)


@dataclass
class Bench:
    """One server's worth of parts."""

    hub: Hub
    store: ModelStore
    downloads: Downloads
    recipes: dict[str, RecipeSpec]
    events: list[Event] = field(default_factory=list)
    seen: list[Progress] = field(default_factory=list)

    def model(self, checkpoint: str, name: str = "m", **more: Any) -> ModelSpec:
        origin = more.pop("origin", "user")
        recipe = more.pop("recipe", "gguf")
        return ModelSpec(name=name, origin=origin, recipe=recipe, checkpoint=checkpoint, **more)

    async def pull(self, spec: ModelSpec, **flags: bool) -> None:
        recipe = self.recipes[spec.recipe]
        await self.downloads.download(spec, recipe, self.seen.append, **flags)


@pytest.fixture(scope="session")
def recipes() -> dict[str, RecipeSpec]:
    text = (ROOT / "recipes" / "llamacpp.toml").read_text()
    gguf = RecipeSpec.model_validate(tomllib.loads(text)).model_copy(update={"id": "gguf"})
    text = (ROOT / "recipes" / "vllm.toml").read_text()
    peft = RecipeSpec.model_validate(tomllib.loads(text)).adapters
    changes = {"id": "whole", "files": "repository", "adapters": peft}
    return {"gguf": gguf, "whole": gguf.model_copy(update=changes)}


@pytest.fixture
def hub_root(tmp_path: Path) -> Path:
    """Where the hub's repositories are."""
    root = tmp_path / "hub"
    root.mkdir()
    return root


@pytest.fixture
def repository(hub_root: Path) -> None:
    """`o/r-GGUF`, as in `examples`."""
    write_repository(
        hub_root,
        "o/r-GGUF",
        {
            Q4_FILE: gguf(BIG, 4),
            "r-Q8_0.gguf": gguf(5000, 8),
            "mmproj-F16.gguf": gguf(700, 16),
            "config.json": b"{}",
            "README.md": b"# r",
        },
    )


@pytest.fixture
def hub_url(hub_root: Path) -> Iterator[str]:
    with running_hub(hub_root) as url:
        yield url


@pytest.fixture
def shipped(tmp_path: Path) -> Callable[[str], Path]:
    return lambda name: tmp_path / "shipped" / name


@pytest.fixture
def store(tmp_path: Path, recipes: dict[str, RecipeSpec], shipped: Any) -> ModelStore:
    return ModelStore(
        tmp_path / "cache", shipped=shipped, recipes=recipes, state=tmp_path / "state"
    )


@pytest.fixture
def bench_at(tmp_path: Path, recipes: dict[str, RecipeSpec], shipped: Any) -> Any:
    """Makes a bench for a hub's address."""

    @asynccontextmanager
    async def make(
        url: str, *, cache: str = "cache", patience: Patience = QUICK, **more: Any
    ) -> AsyncIterator[Bench]:
        environ = {
            "HF_ENDPOINT": url,
            "HF_HUB_CACHE": str(tmp_path / cache),
            **more.pop("environ", {}),
        }
        hub = Hub(environ, patience=patience, offline=more.pop("offline", lambda: False))
        store = ModelStore(
            hub.cache_dir, shipped=shipped, recipes=recipes, state=tmp_path / f"{cache}-state"
        )
        bus = Bus()
        events: list[Event] = []
        bus.subscribe(Event, events.append)
        async with Downloads(hub, store, bus, **more) as downloads:
            yield Bench(hub, store, downloads, recipes, events)

    return make


@pytest.fixture
async def bench(bench_at: Any, hub_url: str) -> AsyncIterator[Bench]:
    async with bench_at(hub_url) as made:
        yield made


async def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait for a state of the world outside."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)
