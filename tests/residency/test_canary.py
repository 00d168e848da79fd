"""A new engine makes one token before it takes anybody's place; engines that cannot never do."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from lemonade.catalog import BackendSpec, Catalog, shipped
from lemonade.core.bundle import Bundle
from lemonade.core.bus import Bus
from lemonade.core.errors import SetupFailed
from lemonade.core.events import ChildEnded, ChildSpawned, Event
from lemonade.core.ids import BackendId
from lemonade.core.progress import Progress
from lemonade.installer import Bundles, Installer
from lemonade.planning import Selection, plan_install, select
from lemonade.residency import Canary, LocalPlacement
from lemonade.supervisor import Supervisor
from tests.installer.releases import build_archive
from tests.installer.setting import MACHINE, mentioning
from tests.programs.release_server import Releases
from tests.programs.release_server import serving as releasing
from tests.serving import PROGRAMS, fake_catalog

pytestmark = pytest.mark.slow

PATIENCE = 20.0
TRY = "try a token"
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
        program = (PROGRAMS / "fake_engine.py").read_bytes()
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
            canary = Canary(catalog, MACHINE, LocalPlacement(supervisor), self.environ)
            async with Installer(self.bundles, bus, self.environ, canary=canary) as installer:
                yield installer

    def listen(self, progress: Progress) -> None:
        self.steps.append(progress.file)
        if progress.file == TRY:
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


@pytest.fixture
def setting(tmp_path: Path) -> Iterator[Setting]:
    fake_catalog(tmp_path)
    (tmp_path / "releases").mkdir()
    with releasing(tmp_path / "releases") as host:
        yield Setting(tmp_path, host, with_canary(tmp_path))
    assert mentioning(tmp_path) == []
    assert list((tmp_path / "ledger").glob("*.json")) == [], "children are struck off the ledger"


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


async def test_it_is_asked_before_it_is_activated(setting: Setting) -> None:
    setting.publish("v1")
    bundle = await setting.install("v1")
    assert setting.bundles.active(setting.wanted("v1")) == bundle
    assert list(dict.fromkeys(setting.steps))[-3:] == ["check", TRY, "fake:release"]
    (spawned,) = (event for event in setting.events if isinstance(event, ChildSpawned))
    (ended,) = (event for event in setting.events if isinstance(event, ChildEnded))
    assert (spawned.child, spawned.name) == (ended.child, "canary")
    assert setting.names() == ["v1"]


@pytest.mark.parametrize(
    ("operation", "mode"), [("completion", "chat"), ("embeddings", "embeddings")]
)
async def test_other_questions(setting: Setting, operation: str, mode: str) -> None:
    setting.recipe = with_canary(setting.home, operation, mode)
    setting.publish("v1")
    await setting.install("v1")
    assert setting.spawned() == 1


@pytest.mark.parametrize(
    ("habits", "words"),
    [
        ("--signal-at-start 4", "was ended by SIGILL .*while starting.*error: loading the model"),
        ("--exit-at-start 3", "exited with status 3 .*error: giving up"),
        ("--no-such-flag", "exited with status 2 .*unrecognized arguments: --no-such-flag"),
        ("--never-ready", "was not ready after 0.5 s and was ended.*listening on"),
        ("--answers garbage", "its answer is not what was asked for: <html>"),
        ("--answers empty", "not one token in its answer"),
        ("--answers error", "it answered 500: .*no kernel image"),
        ("--answers crash", "the engine ended by SIGABRT .*no kernel image"),
        ("--answers never", "did not answer within 0.2 s"),
        ("--chunks 0", "its answer is not what was asked for"),
    ],
)
async def test_one_that_cannot_is_not_activated(setting: Setting, habits: str, words: str) -> None:
    setting.publish("v1")
    before = await setting.install("v1")
    setting.recipe = with_canary(
        setting.home,
        answers_within="200ms" if "answers never" in habits else "20s",
        ready_within="500ms" if "never-ready" in habits else "20s",
    )
    setting.publish("v2", *habits.split())
    with pytest.raises(SetupFailed) as caught:
        await setting.install("v2")
    error = caught.value
    assert "fake:release v2 was fetched and starts, but" in error.message
    assert re.search(words, error.message, re.DOTALL)
    assert "stays in use" in error.remedy
    assert error.facts["last_lines"]
    assert setting.names() == ["v1"]
    assert setting.bundles.active(setting.wanted("v1")) == before


async def test_what_a_processor_cannot_do_is_said(setting: Setting) -> None:
    setting.publish("v1", "--signal-at-start", str(int(signal.SIGILL)))
    with pytest.raises(SetupFailed, match="instructions that this processor does not") as caught:
        await setting.install("v1")
    assert caught.value.facts["signal"] == signal.SIGILL
    assert setting.names() == []


async def test_one_that_leaves_processes_is_cleaned_up_after(setting: Setting) -> None:
    setting.publish("v1", "--spawn-engine", "--engine-escapes", "--engine-ignores-term")
    await setting.install("v1")
    # The fixture asks whether anything is left.


async def test_cancelled_it_is_gone(setting: Setting) -> None:
    setting.publish("v1", "--never-ready", "--ignore-term")
    async with asyncio.TaskGroup() as group:
        task = group.create_task(setting.install("v1"))
        async with asyncio.timeout(PATIENCE):
            await setting.reached.wait()
            while not list(setting.ledger.glob("*.json")):  # it is a child like any other
                await asyncio.sleep(0.01)
        task.cancel()
    assert task.cancelled()
    assert setting.names() == []
    assert [event for event in setting.events if isinstance(event, ChildEnded)]


async def test_recipes_without_one_are_not_asked(setting: Setting) -> None:
    setting.recipe = with_canary(setting.home).partition("[canary]")[0]
    setting.publish("v1", "--exit-at-start", "1")
    await setting.install("v1")
    assert setting.spawned() == 0
    assert TRY not in setting.steps


async def test_what_does_not_run_here_is_not_asked(setting: Setting) -> None:
    setting.publish("v1", "--exit-at-start", "1")
    await setting.install("v1", force=True)
    assert setting.spawned() == 0


async def test_a_model_that_did_not_come_with_it(setting: Setting) -> None:
    setting.recipe = with_canary(setting.home).replace("tiny-lemon-Q8_0", "huge")
    setting.publish("v1")
    with pytest.raises(SetupFailed, match=r"No model file 'huge\.gguf'"):
        await setting.install("v1")
    assert setting.spawned() == 0
