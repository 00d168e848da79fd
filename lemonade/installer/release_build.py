"""Fills a staging folder from a release: look up, make sure of the space, fetch, unpack, find.

Downloads lie in `<root>/.downloads/<recipe>/<variant>/`, on the disk where the bundle will be, and
belong to their owner only. What a killed or cancelled installation fetched is continued there.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import shutil
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from lemonade.core.errors import ChecksumMismatch, NoSpace, SetupFailed, UnsafeArchive
from lemonade.core.ids import BackendId
from lemonade.core.progress import Progress, ProgressListener
from lemonade.core.units import render_size
from lemonade.installer.fetch import Fetcher, LocalFile, Patience, RemoteFile
from lemonade.installer.hosts import ReleaseHosts
from lemonade.installer.published import PublishedAsset, look_up
from lemonade.installer.receipts import TREE, Asset, Contents, InstalledFile
from lemonade.installer.runtimes import STEPS, SharedRuntime
from lemonade.installer.threads import finished, stoppable
from lemonade.installer.trees import copy_tree
from lemonade.installer.trust import record_digest
from lemonade.installer.unpacked import Limits, Report, UnpackedFile
from lemonade.planning.given import Given
from lemonade.planning.install import InstallPlan
from lemonade.planning.releases import ReleasePlan

DOWNLOADS: Final = ".downloads"
_UNPACKED: Final = 4
"""How much larger engines are than their archives, at most, when the space is checked."""

_RESERVE: Final = 64 << 20
"""Bytes of the disk that are left alone."""

_FURTHER_STEPS: Final = 3


class ReleaseBuilder:
    """Builds one bundle. Made for every installation.

    `root` is the directory of all bundles; `environ` says where releases are.
    """

    def __init__(
        self,
        plan: InstallPlan,
        root: Path,
        environ: Mapping[str, str],
        patience: Patience,
        listen: ProgressListener,
        runtime: SharedRuntime | None = None,
    ) -> None:
        """Nothing is done yet; `runtime` is had first, if the bundle needs one."""
        assert plan.release is not None
        self._plan = plan
        self._release: ReleasePlan = plan.release
        self._root = root
        self._environ = environ
        self._patience = patience
        self._listen = listen
        self._steps = 1 + _FURTHER_STEPS
        self._total = 0
        self._folder = downloads_of(root, plan.backend)
        self._runtime = runtime

    async def build(self, staging: Path) -> Contents:
        """Fill `staging`, which must not be there yet.

        Raises:
            InstallError: with the reason. Downloads that may be continued are kept, what is
                wrong is not.
        """
        if self._plan.given is not None:
            return await self._take(self._plan.given, staging)
        self._listen(self._frame(1, "find release"))
        hosts = ReleaseHosts.from_environ(self._environ)
        await asyncio.to_thread(make_private, self._root, self._folder)
        async with Fetcher(hosts, self._environ, self._patience) as fetcher:
            asset = await look_up(self._release, fetcher, self._root)
            self._steps = len(asset.files) + _FURTHER_STEPS
            shared = await self._look_up_runtime(fetcher)
            if shared is not None:
                self._steps += STEPS
            await asyncio.to_thread(self._check_space, asset.files, shared)
            if shared is not None:
                await self._have_runtime(fetcher, shared)
            fetched = await self._fetch(fetcher, asset.files)
        try:
            return await self._unpack(asset, fetched, staging)
        except (UnsafeArchive, SetupFailed, ChecksumMismatch):
            await asyncio.to_thread(self.forget)
            raise

    async def _take(self, given: Given, staging: Path) -> Contents:
        """Fill `staging` from what somebody handed over; it stays as it is."""
        self._steps = 2
        remotes = tuple(
            RemoteFile(path.name, f"{given.origin}", size)
            for path, size in zip(given.files, given.sizes, strict=True)
        )
        await asyncio.to_thread(make_private, self._root, self._folder)
        await asyncio.to_thread(self._check_space, remotes, None)
        digest = "" if len(given.files) > 1 else given.sha256
        local = tuple(
            LocalFile(path, size, digest)
            for path, size in zip(given.files, given.sizes, strict=True)
        )
        asset = PublishedAsset(given.name, remotes, given.sha256)
        contents = await self._unpack(asset, local, staging)
        if given.vouched_by == "first use" and is_planned_file(self._release, given.name):
            path = self._release.path_of(given.name)
            await finished(record_digest, self._root, path, given.sha256)
        return contents

    def last_step(self, name: str) -> Progress:
        """A frame for what is left to be done after building."""
        return self._frame(self._steps, name)

    def forget(self) -> None:
        """Remove what was fetched. Blocks."""
        shutil.rmtree(self._folder, ignore_errors=True)

    async def _look_up_runtime(self, fetcher: Fetcher) -> RemoteFile | None:
        """What has to be fetched of it; `None` if nothing."""
        if self._runtime is None or await asyncio.to_thread(self._runtime.is_there):
            return None
        return await self._runtime.look_up(fetcher)

    async def _have_runtime(self, fetcher: Fetcher, source: RemoteFile) -> None:
        assert self._runtime is not None
        self._total = source.size_bytes

        def fetching(have: int, size: int, previously: int) -> None:
            self._listen(self._frame(2, f"fetch {source.name}", have, size, previously))

        def unpacking(done: int, size: int) -> None:
            self._listen(self._frame(3, f"unpack {source.name}", done, size))

        await self._runtime.install(
            fetcher, source, lambda: _free(self._root), fetching, unpacking
        )

    async def _fetch(self, fetcher: Fetcher, files: Sequence[RemoteFile]) -> tuple[LocalFile, ...]:
        sizes = [file.size_bytes for file in files]
        self._total = sum(sizes) if all(sizes) else 0
        wanted = {self._partial(file).name for file in files}
        await asyncio.to_thread(_sweep, self._folder, wanted)
        fetched = [
            await self._fetch_one(fetcher, file, number)
            for number, file in enumerate(files, start=self._steps - len(files) - 1)
        ]
        self._total = sum(local.size_bytes for local in fetched)
        return tuple(fetched)

    async def _fetch_one(self, fetcher: Fetcher, file: RemoteFile, number: int) -> LocalFile:
        loop = asyncio.get_running_loop()

        def report(have: int, size: int, previously: int) -> None:
            frame = self._frame(number, f"fetch {file.name}", have, size, previously)
            loop.call_soon_threadsafe(self._listen, frame)

        local = await fetcher.fetch(file, self._partial(file), report)
        path = self._release.path_of(file.name)
        if not self._release.sha256.get(file.name):
            await finished(record_digest, self._root, path, local.sha256)
        return local

    async def _unpack(
        self, asset: PublishedAsset, fetched: Sequence[LocalFile], staging: Path
    ) -> Contents:
        def show(done: int, size: int) -> None:
            self._listen(self._frame(self._steps - 1, f"unpack {asset.name}", done, size))

        def work(report: Report) -> Contents:
            # Reading archives takes four libraries and half a MiB; most servers never do.
            from lemonade.installer.archive import unpack

            given = self._plan.given
            if given is not None and given.tree:
                staging.mkdir(mode=0o755)
                size = given.sizes[0]
                files = copy_tree(
                    given.files[0], staging / TREE, lambda done: report(min(done, size), size)
                )
            else:
                _check_whole(asset, fetched)
                staging.mkdir(mode=0o755)
                limits = Limits(unpacked_bytes=_free(self._root))
                parts = [file.path for file in fetched]
                files = unpack(asset.name, parts, staging / TREE, limits, report)
            return Contents(
                executable=self._find(staging, files),
                tag=self._release.tag,
                assets=tuple(
                    Asset(remote.name, remote.url, local.size_bytes, local.sha256)
                    for remote, local in zip(asset.files, fetched, strict=True)
                ),
                files=tuple(
                    InstalledFile(f"{TREE}/{file.path}", file.size_bytes, file.sha256)
                    for file in files
                ),
            )

        return await stoppable(work, show)

    def _find(self, staging: Path, files: Sequence[UnpackedFile]) -> str:
        """The program, below `staging`; it may be executed from now on."""
        name = self._release.executable
        found = [file.path for file in files if file.path.rpartition("/")[2] == name]
        if len(found) != 1:
            places = f"in several places: {', '.join(sorted(found)[:5])}" if found else "missing"
            raise SetupFailed(
                f"The program {name} of {self._plan.backend} {self._plan.version} is {places}.",
                remedy="The release is not as the backend's descriptor expects.",
            )
        path = f"{TREE}/{found[0]}"
        mode = stat.S_IMODE((staging / path).stat().st_mode)
        (staging / path).chmod(mode | 0o100 | (mode & 0o044) >> 2)
        return path

    def _check_space(self, files: Sequence[RemoteFile], shared: RemoteFile | None) -> None:
        """Before the first byte: archives and what is in them lie side by side for a while."""
        places = [(file, self._partial(file)) for file in files]
        if shared is not None and self._runtime is not None:
            places.append((shared, self._runtime.partial))
        there = 0
        for file, partial in places:
            try:
                there += min(partial.stat().st_size, file.size_bytes)
            except OSError:
                continue
        packed = sum(file.size_bytes for file, _ in places)
        needed = space_for(packed) - there
        free = shutil.disk_usage(self._root).free
        if needed > free:
            raise NoSpace(
                f"{self._plan.backend} needs about {render_size(needed)} of space while it is "
                f"installed, and {self._root} has {render_size(free)}.",
                remedy="Free some space, or move the cache with LEMONADE_CACHE_DIR.",
                facts={"needed_bytes": needed, "free_bytes": free},
            )

    def _partial(self, file: RemoteFile) -> Path:
        mark = hashlib.sha256(file.url.encode()).hexdigest()[:12]
        return self._folder / f"{mark}-{file.name[-150:]}.partial"

    def _frame(
        self, number: int, name: str, done: int = 0, size: int = 0, previously: int = 0
    ) -> Progress:
        return Progress(name, number, self._steps, done, size, self._total, previously)


def space_for(packed_bytes: int) -> int:
    """What installing archives of that size takes of the disk, while it is done."""
    return packed_bytes * (1 + _UNPACKED) + _RESERVE


def downloads_of(root: Path, backend: BackendId) -> Path:
    """Where the downloads of a backend are."""
    return root / DOWNLOADS / backend.recipe / backend.variant


def drop_downloads(root: Path, plan: InstallPlan) -> None:
    """Remove what was fetched for a bundle that is complete. Blocks."""
    folder = downloads_of(root, plan.backend)
    for file in plan.given.files if plan.given is not None else ():
        if file.parent.parent == folder:
            shutil.rmtree(file.parent, ignore_errors=True)
    if folder.is_dir():
        _sweep(folder, set())
        with contextlib.suppress(OSError):
            folder.rmdir()  # unless somebody handed over something else meanwhile


def make_private(root: Path, folder: Path) -> None:
    """Make a folder for downloads that only its owner may look into. Blocks."""
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path in (root / DOWNLOADS, folder.parent, folder):
        path.mkdir(mode=0o700, exist_ok=True)
    found = (root / DOWNLOADS).lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise SetupFailed(
            f"{root / DOWNLOADS} is not a folder of ours.",
            remedy="Somebody else made it; remove it.",
        )
    (root / DOWNLOADS).chmod(0o700)


def is_planned_file(release: ReleasePlan, name: str) -> bool:
    """Whether that release has a file of that name, as far as the plan knows."""
    return "*" not in release.asset.name and name == release.asset.name


def _sweep(folder: Path, wanted: set[str]) -> None:
    """Remove what was fetched for another version and never used.

    Folders hold what somebody handed over by its address, and perhaps waits to be installed.
    """
    for path in folder.iterdir():
        if not path.is_dir() and path.name.removesuffix(".etag") not in wanted:
            path.unlink(missing_ok=True)


def _check_whole(asset: PublishedAsset, fetched: Sequence[LocalFile]) -> None:
    """Parts may be pinned as a whole only."""
    if not asset.sha256:
        return
    digest = hashlib.sha256()
    for local in fetched:
        with local.path.open("rb") as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
    if digest.hexdigest() != asset.sha256:
        raise ChecksumMismatch(
            f"The parts of {asset.name} are not the file that was pinned; they were thrown away.",
            remedy="Try again; if it stays so, do not trust that source.",
            facts={"file": asset.name, "expected": asset.sha256},
        )


def _free(root: Path) -> int:
    return max(0, shutil.disk_usage(root).free - _RESERVE)
