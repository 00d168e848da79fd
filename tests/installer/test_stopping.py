"""Installations that run on their own, stopped at every step and when it is too late."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lemonade.core.errors import InstallStopped
from lemonade.core.progress import Progress
from lemonade.installer import Installer
from tests.installer.releases import backend_of, publish
from tests.installer.setting import Setting, mentioning, wanted
from tests.installer.test_releases import ARCHIVE
from tests.programs.release_server import Releases, serving

pytestmark = pytest.mark.slow

ID = "backend:tiny:engine"
STEPS = ("find release", f"fetch {ARCHIVE}", f"unpack {ARCHIVE}", "check")


@pytest.fixture
def releases(tmp_path: Path, setting: Setting) -> Iterator[Releases]:
    publish(tmp_path / "releases")
    with serving(tmp_path / "releases") as host:
        setting.environ.update(host.environ)
        yield host


@pytest.fixture(autouse=True)
def _nothing_left_running(setting: Setting) -> Iterator[None]:
    yield
    assert mentioning(setting.folder) == []


async def stopped_at(setting: Setting, installer: Installer, step: str, action: str) -> None:
    """Start it on its own, and stop it as soon as it says that it is there."""

    def listen(progress: Progress) -> None:
        if progress.file == step:
            installer.jobs.control(ID, action)

    plan = setting.plan(backend_of())
    installer.detach(plan.backend, plan)
    await installer.install(plan, listen)


@pytest.mark.usefixtures("releases")
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("action", ["pause", "cancel"])
async def test_stopped_at_any_step(setting: Setting, step: str, action: str) -> None:
    async with setting.installer() as installer:
        with pytest.raises(InstallStopped) as caught:
            await stopped_at(setting, installer, step, action)
        assert "Install it again" in str(caught.value)
        assert setting.names() == []
        assert setting.bundles.active(wanted(backend_of())) is None
        (job,) = installer.jobs.snapshots()
        assert job["running"] is False
        assert job["status"] == ("paused" if action == "pause" else "cancelled")
        installer.jobs.control(ID, "cancel")
        assert installer.jobs.snapshots() == (job,), "it has ended"
        plan = setting.plan(backend_of())
        await installer.install(plan, lambda _: None)
    assert setting.names() == ["1.0"]
    assert setting.bundles.active(wanted(backend_of())) is not None


@pytest.mark.usefixtures("releases")
async def test_a_stop_that_is_too_late_undoes_nothing(setting: Setting) -> None:
    async with setting.installer() as installer:
        await stopped_at(setting, installer, "tiny:engine", "cancel")  # it says that it is done
        (job,) = installer.jobs.snapshots()
    assert (job["status"], job["complete"], job["running"]) == ("completed", True, False)
    assert setting.names() == ["1.0"]


async def test_sizes_are_of_all_files(setting: Setting, releases: Releases) -> None:
    size = (releases.folder / "somebody" / "tiny" / "1.0" / ARCHIVE).stat().st_size
    seen: list[Progress] = []
    async with setting.installer() as installer:
        await installer.install(setting.plan(backend_of()), seen.append)
        plan = setting.plan(backend_of())
        installer.detach(plan.backend, plan)
        (job,) = installer.jobs.snapshots()
    steps = list(dict.fromkeys((one.file, one.file_index, one.total_files) for one in seen))
    assert steps == [
        *((name, number, 4) for number, name in enumerate(STEPS, start=1)),
        ("tiny:engine", 1, 1),
    ]
    begun = {one.file for one in seen if one.file not in ("find release", "tiny:engine")}
    assert begun == set(STEPS[1:])
    assert {one.total_download_size for one in seen if one.file in begun} == {size}
    assert job["status"] in ("downloading", "completed")
    assert setting.names() == ["1.0"]
