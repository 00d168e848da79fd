"""A runtime that engines share: fetched once, used by all, gone with the last of them."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from lemonade.catalog import BackendSpec
from lemonade.core.bundle import Bundle
from lemonade.core.bus import Bus
from lemonade.core.errors import (
    ChecksumMismatch,
    DownloadFailed,
    InstallError,
    NoSpace,
    SetupFailed,
)
from lemonade.core.ids import BackendId
from lemonade.core.progress import Progress
from lemonade.hardware import Gpu, Machine, RocmRoot
from lemonade.installer import Bundles, Installer
from lemonade.installer.fetch import Patience
from lemonade.installer.given import look_at
from lemonade.planning import InstallPlan, plan_install, select
from tests.installer.releases import backend_of, build_archive, contents, publish
from tests.installer.setting import MACHINE
from tests.programs.release_server import PATIENCE, Releases, serving

pytestmark = pytest.mark.slow

QUICK = Patience(retries=1, first_pause=0.0, silent_within=20.0)
GPU = Gpu(vendor="amd", name="a GPU", family="gfx1201", integrated=False)
HERE = replace(MACHINE, gpus=(GPU,))
ARCHIVE = "therock-dist-gfx120X-all-7.14.0.tar.gz"
LIBRARIES = {
    "lib/libamdhip64.so.7": b"\x7fELF hip",
    "lib/llvm/lib/libomp.so": b"\x7fELF omp",
    "bin/rocminfo": b"#!/bin/sh\n",
}
NEEDS = {
    "name": "rocm",
    "version": "7.14.0",
    "library": "libamdhip64.so.7",
    "libraries": ["lib", "lib64", "lib/llvm/lib"],
    "base_url": "https://rocm.invalid",
    "url_variable": "LEMONADE_ROCM_URL",
    "file": "tarballs/therock-dist-{variant}-{version}.tar.gz",
    "variants": {"gfx1201": "gfx120X-all"},
}
PROGRAM = """#!/bin/sh
IFS=:
for folder in $LD_LIBRARY_PATH; do
  test -e "$folder/libamdhip64.so.7" && { echo "tiny {version} with $folder"; exit 0; }
done
echo "tiny: error while loading shared libraries: libamdhip64.so.7: no" >&2
exit 127
"""


def needing(version: str = "1.0", backend: str = "tiny:engine", **changes: object) -> BackendSpec:
    """A backend whose program looks for a library of the runtime."""
    spec = backend_of(version).model_dump(by_alias=True)
    runtime = {**NEEDS, **changes}
    environment = {"LD_LIBRARY_PATH": "{runtime}{folder}"}
    return BackendSpec.model_validate(
        {**spec, "id": backend, "runtime": runtime, "environment": environment}
    )


@dataclass
class Setting:
    root: Path
    releases: Releases
    machine: Machine = HERE
    seen: list[Progress] = field(default_factory=list)

    @property
    def environ(self) -> dict[str, str]:
        base = f"{self.releases.url}/storage/rocm"
        return {"PATH": os.defpath, **self.releases.environ, "LEMONADE_ROCM_URL": base}

    @property
    def bundles(self) -> Bundles:
        return Bundles(self.root, self.environ)

    @property
    def runtimes(self) -> list[str]:
        """What lies among the runtimes, the lock aside."""
        folder = self.root / ".runtimes" / "rocm"
        names = (path.name for path in folder.iterdir()) if folder.is_dir() else ()
        return sorted(name for name in names if name != ".lock")

    def plan(self, spec: BackendSpec) -> InstallPlan:
        present = self.bundles.present(spec)
        return plan_install(select(spec, self.machine), self.machine, present, self.root)

    def installer(self) -> Installer:
        return Installer(self.bundles, Bus(), self.environ, patience=QUICK)

    async def install(self, spec: BackendSpec, *, force: bool = False) -> Bundle:
        async with self.installer() as one:
            return await one.install(self.plan(spec), self.seen.append, force=force)

    async def uninstall(self, spec: BackendSpec) -> None:
        async with self.installer() as one:
            await one.uninstall(spec)

    async def failing(self, spec: BackendSpec, kind: type[InstallError], words: str) -> None:
        with pytest.raises(kind, match=words) as caught:
            await self.install(spec)
        assert caught.value.remedy
        assert self.bundles.active(select(spec, self.machine)) is None

    def fetched(self) -> int:
        return self.releases.fetched().count(ARCHIVE)


@pytest.fixture
def setting(tmp_path: Path) -> Iterator[Setting]:
    (tmp_path / "releases").mkdir()
    with serving(tmp_path / "releases") as host:
        publish_runtime(host, LIBRARIES)
        publish(host.folder, program=PROGRAM)
        yield Setting(tmp_path / "cache" / "bin", host)


def publish_runtime(host: Releases, files: Mapping[str, bytes]) -> Path:
    return build_archive(host.folder / "rocm" / "tarballs" / ARCHIVE, files)


async def test_it_is_there_before_the_engine(setting: Setting) -> None:
    spec = needing()
    bundle = await setting.install(spec)
    top = setting.root / ".runtimes" / "rocm" / "gfx1201-7.14.0" / "tree"
    assert bundle.libraries == (top / "lib", top / "lib" / "llvm" / "lib")
    assert setting.bundles.active(select(spec, HERE)) == bundle
    assert setting.runtimes == ["gfx1201-7.14.0"]
    said = subprocess.run(
        bundle.argv, env={"LD_LIBRARY_PATH": f"/x:{top / 'lib'}"}, capture_output=True, check=True
    )
    assert said.stdout.decode() == f"tiny 1.0 with {top / 'lib'}\n"
    steps = list(dict.fromkeys((frame.file_index, frame.file) for frame in setting.seen))
    assert steps == [
        (1, "find release"),
        (2, f"fetch {ARCHIVE}"),
        (3, f"unpack {ARCHIVE}"),
        (4, "fetch tiny-1.0-linux.tar.gz"),
        (5, "unpack tiny-1.0-linux.tar.gz"),
        (6, "check"),
        (1, "tiny:engine"),
    ]
    assert {frame.total_files for frame in setting.seen[1:-1]} == {6}
    receipt = json.loads((top.parent / "receipt.json").read_text())
    assert receipt["assets"][0]["name"] == ARCHIVE
    assert (top.parent / "files.json").exists()


async def test_it_is_shared_and_leaves_with_the_last(setting: Setting) -> None:
    one, other = needing(), needing(backend="tiny:other")
    await setting.install(one)
    await setting.install(other)
    await setting.install(one, force=True)
    assert setting.fetched() == 1
    await setting.uninstall(one)
    assert setting.runtimes == ["gfx1201-7.14.0"]
    assert setting.bundles.active(select(other, HERE)) is not None
    await setting.uninstall(other)
    assert setting.runtimes == []
    await setting.install(one)
    assert setting.fetched() == 2


@pytest.mark.parametrize("named", [True, False])
async def test_the_systems_own_is_used(setting: Setting, tmp_path: Path, *, named: bool) -> None:
    own = tmp_path / "opt" / "rocm"
    (own / "lib").mkdir(parents=True)
    (own / "lib" / "libamdhip64.so.7").write_bytes(b"\x7fELF")
    setting.machine = replace(HERE, rocm=(RocmRoot(str(own), "7.14.0", named),))
    spec = needing()
    bundle = await setting.install(spec)
    assert bundle.libraries == (own / "lib",)
    assert setting.fetched() == 0
    assert setting.runtimes == []
    (own / "lib" / "libamdhip64.so.7").unlink()
    status = setting.bundles.status(select(spec, setting.machine), setting.machine)
    assert status.state == "update_required", "another ROCm took its place"
    setting.machine = HERE
    assert (await setting.install(spec)).libraries[0].is_relative_to(setting.root)


async def test_without_a_gpu_of_amd_there_is_none(setting: Setting) -> None:
    setting.machine = MACHINE
    await setting.failing(needing(), SetupFailed, r"needs the library libamdhip64\.so\.7")
    assert setting.fetched() == 0


async def test_the_first_archive_is_believed_and_no_other(setting: Setting) -> None:
    spec = needing()
    await setting.install(spec)
    await setting.uninstall(spec)
    publish_runtime(setting.releases, {**LIBRARIES, "lib/evil.so": b"x"})
    await setting.failing(spec, ChecksumMismatch, "SHA-256")
    assert setting.runtimes == []


async def test_a_pin_holds(setting: Setting) -> None:
    spec = needing(sha256={ARCHIVE: "0" * 64})
    await setting.failing(spec, ChecksumMismatch, "SHA-256")
    assert setting.runtimes == []


@pytest.mark.parametrize(
    ("fault", "words"), [("status:404", "has no"), ("status:500", "answers 500")]
)
async def test_hosts_that_do_not_give_it(setting: Setting, fault: str, words: str) -> None:
    setting.releases.faults = {ARCHIVE: [[fault, -1]]}
    await setting.failing(needing(), DownloadFailed, words)
    setting.releases.faults = {}
    await setting.install(needing())


async def test_one_that_was_never_there(setting: Setting) -> None:
    spec = needing(variants={})
    await setting.failing(spec, DownloadFailed, r"rocm 7\.14\.0 has no file therock-dist-gfx1201")
    assert setting.releases.fetched() == [], "nothing is fetched in vain"


async def test_an_archive_of_something_else(setting: Setting) -> None:
    publish_runtime(setting.releases, {"lib/libother.so": b"x", "README": b"x"})
    await setting.failing(needing(), SetupFailed, r"holds no libamdhip64\.so\.7 in lib, lib64")
    assert setting.runtimes == []


async def test_the_library_may_be_a_link(setting: Setting) -> None:
    archive = publish_runtime(setting.releases, LIBRARIES)
    with tarfile.open(archive, "w:gz") as tar:
        for name, kind, link in (
            ("./lib/libamdhip64.so.7.14", tarfile.REGTYPE, ""),
            ("./lib/libamdhip64.so.7", tarfile.SYMTYPE, "libamdhip64.so.7.14"),
            ("./bin/x", tarfile.REGTYPE, ""),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, link
            tar.addfile(info)
    assert (await setting.install(needing())).libraries


async def test_space_is_needed_for_both(setting: Setting) -> None:
    # Either of them would fit, with what is in it; both do not.
    setting.releases.wrong_size = shutil.disk_usage(setting.releases.folder).free * 15 // 100
    await setting.failing(needing(), NoSpace, "needs about")
    assert setting.releases.fetched() == [], "not one byte"


async def test_cancelled_while_it_is_fetched_it_goes_on_there(setting: Setting) -> None:
    publish_runtime(setting.releases, {**LIBRARIES, "lib/bulk.so": os.urandom(4 << 20)})
    setting.releases.faults = {ARCHIVE: [["slow", 1]]}
    async with asyncio.TaskGroup() as group:
        task = group.create_task(setting.install(needing()))
        assert await asyncio.to_thread(setting.releases.reached.wait, PATIENCE)
        async with asyncio.timeout(PATIENCE):
            while not any(frame.bytes_downloaded for frame in setting.seen):
                await asyncio.sleep(0.01)
        task.cancel()
    setting.releases.go.set()
    assert all(name.startswith(".gfx1201-7.14.0.partial") for name in setting.runtimes)
    await setting.install(needing(backend="tiny:other"))
    asked = [one for one in setting.releases.seen if one["path"].endswith(ARCHIVE)]
    assert asked[-1]["range"], "it goes on where it was"
    assert setting.runtimes == ["gfx1201-7.14.0"]


async def test_two_that_need_it_take_turns(setting: Setting) -> None:
    one, other = needing(), needing(backend="tiny:other")
    async with setting.installer() as installer, asyncio.TaskGroup() as group:
        for spec in (one, other):
            group.create_task(installer.install(setting.plan(spec), setting.seen.append))
    assert setting.fetched() == 1
    for spec in (one, other):
        assert setting.bundles.active(select(spec, HERE)) is not None


async def test_leftovers_are_swept(setting: Setting) -> None:
    left = setting.root / ".runtimes" / "rocm" / ".staging-gfx1201-7.14.0-0bad"
    left.mkdir(parents=True)
    await setting.install(needing())
    assert setting.runtimes == ["gfx1201-7.14.0"]


async def test_it_is_part_of_what_would_be_fetched(setting: Setting) -> None:
    spec = needing()
    async with setting.installer() as one:
        online = await one.resolve(setting.plan(spec))
        offline = await one.resolve(setting.plan(spec), online=False)
        await one.install(setting.plan(spec), setting.seen.append)
        after = await one.resolve(setting.plan(spec))
    (archive,) = (file for file in online.files if file.name == ARCHIVE)
    assert archive.size_bytes > 0
    assert archive.vouched_by == "first use"
    assert online.download_bytes == sum(file.size_bytes for file in online.files)
    assert [file.name for file in offline.files][-1] == ARCHIVE
    assert [file.name for file in after.files] == ["tiny-1.0-linux.tar.gz"]


async def test_what_is_handed_over_is_given_no_runtime(setting: Setting) -> None:
    spec = needing()
    archive = setting.releases.folder / "somebody" / "tiny" / "1.0" / "tiny-1.0-linux.tar.gz"

    async def take(file: Path) -> Bundle:
        given = look_at(file, spec, HERE, setting.root, said="", origin="here")
        plan = plan_install(select(spec, HERE), HERE, (), setting.root, given=given)
        async with setting.installer() as one:
            return await one.install(plan, setting.seen.append, force=True)

    with pytest.raises(SetupFailed, match=r"needs the library libamdhip64\.so\.7"):
        await take(archive)
    own = build_archive(setting.root.parent / "own.tar.gz", contents(program="#!/bin/sh\n:\n"))
    assert (await take(own)).libraries == (), "it brings its own"
    assert setting.releases.seen == []
    await setting.install(needing(backend="tiny:other"))
    assert (await take(archive)).libraries, "now it is there"


def test_its_backend_id_is_what_the_test_says() -> None:
    assert needing(backend="tiny:other").backend_id == BackendId("tiny", "other")
