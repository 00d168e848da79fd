"""Several who want the same: one installation, ended with the last of them, by death as well."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lemonade.catalog import BackendSpec
from lemonade.core.errors import InstallError, InstallStopped
from lemonade.core.progress import Progress
from lemonade.installer import Installer
from lemonade.planning import InstallPlan
from tests.installer.index import PATIENCE, Index
from tests.installer.setting import MACHINE, Setting, mentioning, wanted
from tests.installer.wheels import Wheel

PROJECT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow


def nobody(_: Progress) -> None:
    """Listen to nothing."""


async def reached(index: Index) -> None:
    assert await asyncio.to_thread(index.reached.wait, PATIENCE)


async def refused(installer: Installer, plan: InstallPlan) -> InstallError | None:
    """The error that an installation ends in."""
    try:
        await installer.install(plan, nobody)
    except InstallError as error:
        return error
    return None


async def test_two_requests_are_one_installation(
    setting: Setting, spec: BackendSpec, index: Index
) -> None:
    index.hold()
    late: list[Progress] = []
    async with setting.installer() as installer, asyncio.TaskGroup() as group:
        first = group.create_task(installer.install(setting.plan(spec), nobody))
        await reached(index)
        second = group.create_task(installer.install(setting.plan(spec), late.append))
        await asyncio.sleep(0)
        assert late, "who joins is told at once how far it is"
        index.flow.set()
    assert first.result() == second.result()
    assert len(index.downloads) == 1


async def test_who_began_it_may_leave(setting: Setting, spec: BackendSpec, index: Index) -> None:
    index.hold()
    async with setting.installer() as installer, asyncio.TaskGroup() as group:
        first = group.create_task(installer.install(setting.plan(spec), nobody))
        await reached(index)
        second = group.create_task(installer.install(setting.plan(spec), nobody))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.wait({first})
        index.flow.set()
    assert first.cancelled()
    assert second.result() == setting.bundles.active(wanted(spec))
    assert len(index.downloads) == 1


async def test_the_last_to_leave_ends_it(
    setting: Setting, spec: BackendSpec, index: Index
) -> None:
    index.hold()
    async with setting.installer() as installer:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(installer.install(setting.plan(spec), nobody))
            await reached(index)
            assert mentioning(setting.folder)
            task.cancel()
        assert setting.names() == []
        assert mentioning(setting.folder) == []
        assert setting.events == []
        index.flow.set()
        bundle = await installer.install(setting.plan(spec), nobody)
        assert bundle == setting.bundles.active(wanted(spec))


async def test_closing_the_installer_ends_it(
    setting: Setting, spec: BackendSpec, index: Index
) -> None:
    index.hold()
    async with asyncio.TaskGroup() as group:
        async with setting.installer() as installer:
            task = group.create_task(refused(installer, setting.plan(spec)))
            await reached(index)
        assert setting.names() == []
    assert isinstance(task.result(), InstallStopped)
    assert mentioning(setting.folder) == []


async def test_a_failing_listener_fails_nobody(setting: Setting, spec: BackendSpec) -> None:
    def broken(_: Progress) -> None:
        raise RuntimeError("the display is gone")

    async with setting.installer() as installer:
        await installer.install(setting.plan(spec), broken)
    assert setting.bundles.active(wanted(spec)) is not None


async def test_a_killed_installation_is_done_over(
    setting: Setting, spec: BackendSpec, wheel: Wheel, index: Index
) -> None:
    index.hold()
    with start(setting, wheel) as killed:
        await reached(index)
        assert len(setting.names()) == 1
        killed.send_signal(signal.SIGKILL)
        killed.wait(PATIENCE)
    assert setting.bundles.status(wanted(spec), MACHINE).state == "installable"
    index.flow.set()
    async with setting.installer() as installer:
        bundle = await installer.install(setting.plan(spec), nobody)
    assert setting.bundles.active(wanted(spec)) == bundle
    assert setting.names() == ["1.0"]


async def test_a_replacement_that_was_killed_half_way(
    setting: Setting, spec: BackendSpec, index: Index
) -> None:
    async with setting.installer() as installer:
        bundle = await installer.install(setting.plan(spec), nobody)
        bundle.root.rename(setting.folder / ".removed-1.0-0badcafe")
        assert setting.bundles.active(wanted(spec)) is None
        assert await installer.install(setting.plan(spec), nobody) == bundle
    assert setting.names() == ["1.0"]
    assert len(index.downloads) == 1


def test_two_processes_take_turns(
    setting: Setting, spec: BackendSpec, wheel: Wheel, index: Index
) -> None:
    index.hold()
    with start(setting, wheel) as first:
        assert index.reached.wait(PATIENCE)
        with start(setting, wheel) as second:
            index.flow.set()
            results = [process.communicate(timeout=PATIENCE)[0] for process in (first, second)]
    assert results == ["installed 1.0\n", "installed 1.0\n"]
    assert len(index.downloads) == 1
    assert setting.names() == ["1.0"]
    assert setting.bundles.active(wanted(spec)) is not None


def test_a_full_disk(setting: Setting, spec: BackendSpec, wheel: Wheel) -> None:
    # A limit on the size of files stands in: pip sees the same kind of error.
    with start(setting, wheel, "100000") as process:
        output, _ = process.communicate(timeout=PATIENCE)
    assert (process.returncode, output) == (1, "no-space\n")
    assert setting.names() == []
    assert setting.bundles.status(wanted(spec), MACHINE).state == "installable"


@pytest.fixture(autouse=True)
def _nothing_left_running(setting: Setting) -> Iterator[None]:
    yield
    assert mentioning(setting.folder) == []


def start(setting: Setting, wheel: Wheel, *limit: str) -> subprocess.Popen[str]:
    folder, version = str(wheel.path.parent), wheel.version
    return subprocess.Popen(
        [sys.executable, "-m", "tests.installer.install_program", folder, version,
         str(setting.root), *limit],
        env={**setting.environ, "PYTHONPATH": str(PROJECT)},
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        text=True,
    )  # fmt: skip
