"""A machine on which engines out of a release are installed and tried, all of it real."""

from __future__ import annotations

import asyncio
import os
import shlex
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from lemonade.catalog import BackendSpec, Catalog, shipped
from lemonade.core.bundle import Bundle
from lemonade.core.bus import Bus
from lemonade.core.events import ChildSpawned, Event
from lemonade.core.ids import BackendId
from lemonade.core.progress import Progress
from lemonade.installer import Bundles, Installer, KnownFlags
from lemonade.planning import Selection, plan_install, select
from lemonade.residency import Canary, Learner, LocalPlacement, Newcomers
from lemonade.supervisor import Supervisor
from tests.installer.releases import build_archive
from tests.installer.setting import MACHINE
from tests.programs.release_server import Releases
from tests.serving import FAKE_ENGINE, fake_catalog

TRY = "try a token"
LEARN = "learn its arguments"
CANARY = """
[canary]
model = "tiny-lemon-Q8_0.gguf"
operation = "{operation}"
mode = "{mode}"
options = {{ fake_args = "--ctx-size 64" }}
answers_within = "{answers_within}"
"""
BACKEND = """
schema = 1
id = "fake:release"
title = "A fake engine out of a release"
preference = 1
devices = ["cpu"]

[pin]
source = "github"
repository = "somebody/fake"
version = "{version}"
executable = "fake-server"

[[pin.assets]]
name = "fake-{{version}}.tar.gz"

[[runs_on]]
os = ["linux"]

[bundle]
argv = ["{{executable}}"]

[environment]
FAKE_HOME = "{{folder}}"
"""
FAKE = BackendId("fake", "release")


@dataclass
class Setting:
    """One machine: its folder, its host of releases, and what happened on it."""

    home: Path
    releases: Releases
    recipe: str
    events: list[Event] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    awaited: str = TRY
    reached: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def environ(self) -> dict[str, str]:
        return {"PATH": os.environ["PATH"], **self.releases.environ}

    @property
    def bundles(self) -> Bundles:
        return Bundles(self.home / "bin", self.environ)

    @property
    def ledger(self) -> Path:
        return self.home / "ledger"

    def spec(self, version: str) -> BackendSpec:
        return self.catalog(version).backend(FAKE)

    def wanted(self, version: str) -> Selection:
        return select(self.spec(version), MACHINE)

    def catalog(self, version: str) -> Catalog:
        folder = self.home / "catalog"
        (folder / "recipes" / "fake.toml").write_text(self.recipe)
        (folder / "backends" / "fake-release.toml").write_text(BACKEND.format(version=version))
        return Catalog.load((shipped(), folder))

    def publish(self, version: str, *habits: str) -> None:
        """A real archive with a real program, which has habits once it serves."""
        program = FAKE_ENGINE.read_bytes()
        script = (
            f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$(dirname "$0")/engine.py" "$@" '
            f"{shlex.join(habits)}\n"
        )
        build_archive(
            self.releases.folder / "somebody" / "fake" / version / f"fake-{version}.tar.gz",
            {"bin/fake-server": script.encode(), "bin/engine.py": program},
        )

    @asynccontextmanager
    async def installer(self, version: str) -> AsyncIterator[Installer]:
        bus = Bus()
        bus.subscribe(Event, self.events.append)
        catalog = self.catalog(version)
        async with Supervisor(ledger_dir=self.ledger, bus=bus) as supervisor:
            newcomers = Newcomers(catalog, MACHINE, self.environ)
            canary = Canary(newcomers, LocalPlacement(supervisor))
            trials = (canary, Learner(newcomers, KnownFlags(self.home / "flags")))
            async with Installer(self.bundles, bus, self.environ, trials=trials) as installer:
                yield installer

    def listen(self, progress: Progress) -> None:
        self.steps.append(progress.file)
        if progress.message:
            self.said.append(progress.message)
        if progress.file == self.awaited:
            self.reached.set()

    async def install(self, version: str, *, force: bool = False) -> Bundle:
        """Install the version; `force` for a machine it is not made for."""
        machine = replace(MACHINE, os="plan9") if force else MACHINE
        present = self.bundles.present(self.spec(version))
        plan = plan_install(self.wanted(version), machine, present, self.bundles.root, force=force)
        async with self.installer(version) as installer:
            return await installer.install(plan, self.listen)

    def spawned(self) -> int:
        return sum(isinstance(event, ChildSpawned) for event in self.events)

    def names(self) -> list[str]:
        folder = self.bundles.root / "fake" / "release"
        return sorted(
            path.name for path in folder.iterdir() if path.name not in (".lock", "active.json")
        )


def with_canary(
    home: Path,
    operation: str = "chat",
    mode: str = "chat",
    answers_within: str = "20s",
    ready_within: str = "20s",
) -> str:
    """The fake recipe with something to ask."""
    fake_catalog(home, ready_within=ready_within)
    recipe = (home / "catalog" / "recipes" / "fake.toml").read_text()
    return recipe + CANARY.format(operation=operation, mode=mode, answers_within=answers_within)
