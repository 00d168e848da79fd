"""Genuine engines make the token that is asked of a new one, quickly and without a trace."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from lemonade.catalog import Catalog, shipped
from lemonade.core.bundle import Bundle
from lemonade.core.bus import Bus
from lemonade.core.errors import SetupFailed
from lemonade.core.ids import BackendId
from lemonade.hardware import detect
from lemonade.installer import Bundles, Installer, KnownFlags
from lemonade.planning import InstallPlan, plan_install, select
from lemonade.residency import Canary, Learner, LocalPlacement, Newcomers
from lemonade.supervisor import Supervisor
from tests.installer.releases import build_archive
from tests.installer.setting import mentioning
from tests.programs.release_server import serving as releasing

pytestmark = pytest.mark.slow

CATALOG = Catalog.load((shipped(),))
MACHINE = detect()
WHEEL = BackendId("llamacpp", "wheel")
CPU = BackendId("llamacpp", "cpu")


def test_a_recipe_that_asks_has_what_it_asks_with() -> None:
    asking = [recipe for recipe in CATALOG.recipes.values() if recipe.canary]
    assert asking
    for recipe in asking:
        assert recipe.canary is not None
        assert CATALOG.shipped_model_file(recipe.canary.model).exists()


async def test_the_embedded_engine(engine_bundle: Bundle, tmp_path: Path) -> None:
    spec = CATALOG.backend(WHEEL)
    plan = plan_install(select(spec, MACHINE), MACHINE, (), tmp_path)
    began: list[str] = []
    async with Supervisor(ledger_dir=tmp_path / "ledger", bus=Bus()) as supervisor:
        canary = Canary(Newcomers(CATALOG, MACHINE, os.environ), LocalPlacement(supervisor))
        await canary(plan, engine_bundle, lambda step, _: began.append(step))
        assert dict(supervisor.children) == {}
    assert began == ["try a token"]


@dataclass
class Tried:
    """What an installation of the genuine engine came to."""

    plan: InstallPlan
    bundle: Bundle


async def install(tmp_path: Path, files: dict[str, bytes]) -> Tried:
    """The genuine descriptor, from an archive made here."""
    spec = CATALOG.backend(CPU)
    root = tmp_path / "bin"
    bundles = Bundles(root, os.environ)
    plan = plan_install(select(spec, MACHINE), MACHINE, (), root)
    assert plan.release is not None
    release = plan.release
    folder = tmp_path / "releases" / release.repository / release.tag
    build_archive(folder / release.asset.name, files, top="build")
    with releasing(tmp_path / "releases") as host:
        environ = {**os.environ, **host.environ}
        bus = Bus()
        async with Supervisor(ledger_dir=tmp_path / "ledger", bus=bus) as supervisor:
            newcomers = Newcomers(CATALOG, MACHINE, environ)
            trials = (
                Canary(newcomers, LocalPlacement(supervisor)),
                Learner(newcomers, KnownFlags(tmp_path / "flags")),
            )
            async with Installer(bundles, bus, environ, trials=trials) as installer:
                bundle = await installer.install(plan, lambda _: None)
    assert bundles.active(select(spec, MACHINE)) == bundle
    return Tried(plan, bundle)


@pytest.fixture
def genuine() -> bytes:
    binary = os.environ.get("LLAMA_SERVER_BIN")
    if not binary:
        pytest.skip("LLAMA_SERVER_BIN names no llama-server")
    return Path(binary).read_bytes()


async def test_a_genuine_archive(genuine: bytes, tmp_path: Path) -> None:
    tried = await install(tmp_path, {"bin/llama-server": genuine})
    assert tried.bundle.version == tried.plan.version
    assert "--ctx-size" in (tried.bundle.root / "known-flags.json").read_text()
    assert mentioning(tmp_path) == []


async def test_a_genuine_engine_that_lost_something(genuine: bytes, tmp_path: Path) -> None:
    wrapper = b'#!/bin/sh\ncase "$*" in *--version*) ;; *) ulimit -v 40000;; esac\n'
    wrapper += b'exec "$(dirname "$0")/engine" "$@"\n'
    with pytest.raises(SetupFailed, match="a first question to it failed"):
        await install(tmp_path, {"bin/llama-server": wrapper, "bin/engine": genuine})
    assert mentioning(tmp_path) == []
