"""Runtimes that engines share: fetched once for each kind of GPU, removed with the last user.

They lie in `<root>/.runtimes/<name>/<gfx>-<version>/`, with a receipt as bundles have. Who
installs a backend that needs one holds the lock of the name until the backend is there, so that
nobody takes away what has just been fetched for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from lemonade.core.errors import ChecksumMismatch, DownloadFailed, SetupFailed, UnsafeArchive
from lemonade.core.progress import ProgressListener
from lemonade.core.records import dataclass
from lemonade.installer.activation import LOCK, activate, staging_for, sweep
from lemonade.installer.fetch import Fetcher, LocalFile, RemoteFile
from lemonade.installer.receipts import (
    RECEIPT,
    RUNTIMES,
    TREE,
    Asset,
    Contents,
    InstalledFile,
    Receipt,
    UsedRuntime,
    now,
    read_receipt,
)
from lemonade.installer.threads import committed, finished, stoppable
from lemonade.installer.trust import record_digest, recorded_digest
from lemonade.installer.turns import locked
from lemonade.installer.unpacked import Limits, Report, UnpackedFile
from lemonade.planning.runtimes import RuntimePlan
from lemonade.storage import FileLock

STEPS: Final = 2
"""How many steps of an installation fetching and unpacking it are."""


@dataclass(frozen=True, slots=True)
class SharedRuntime:
    """One runtime under a directory of bundles. Looks at the disk at every question."""

    plan: RuntimePlan
    root: Path
    environ: Mapping[str, str]

    @property
    def target(self) -> Path:
        """Where it is, or would be."""
        return self.root / RUNTIMES / self.plan.name / self.plan.folder

    @property
    def partial(self) -> Path:
        """Where it is while it is being fetched; whoever needs it next may go on there."""
        return self.target.parent / f".{self.plan.folder}.partial"

    @property
    def used(self) -> UsedRuntime:
        """What the receipt of a bundle that needs it says."""
        folder = self.plan.system or f"{self.plan.name}/{self.plan.folder}/{TREE}"
        return UsedRuntime(folder, self.plan.library, self.plan.libraries)

    def is_there(self) -> bool:
        """Whether nothing has to be fetched. Blocks."""
        if self.plan.system:
            return True
        return self.used.folders(self.root) is not None and read_receipt(self.target) is not None

    def source(self) -> RemoteFile:
        """What is to be fetched, as far as nobody has to be asked. Blocks."""
        plan = self.plan
        sha256, voucher = plan.sha256, "pinned"
        if not sha256:
            sha256, voucher = recorded_digest(self.root, self._trusted_as), "recorded"
        url = plan.url(self.environ)
        return RemoteFile(plan.file, url, 0, sha256, voucher if sha256 else "")

    async def look_up(self, fetcher: Fetcher) -> RemoteFile:
        """Learn how large it is.

        Raises:
            DownloadFailed: it is not there, or nobody answers.
        """
        source = await asyncio.to_thread(self.source)
        try:
            size = await fetcher.size_of(source.url, source.name)
        except DownloadFailed as error:
            if "status" not in error.facts:
                raise self._unreachable(error) from error
            size = 0  # whoever gives files away need not answer questions about them
        if size is None:
            raise DownloadFailed(
                f"{self.plan.name} {self.plan.version} has no file {source.name}.",
                remedy=f"Check {self.plan.url_variable}, or install {self.plan.name} "
                f"{self.plan.version} yourself.",
            )
        return RemoteFile(source.name, source.url, size, source.sha256, source.vouched_by)

    async def install(
        self,
        fetcher: Fetcher,
        source: RemoteFile,
        free: Callable[[], int],
        fetching: Callable[[int, int, int], None],
        unpacking: Report,
    ) -> None:
        """Have it there, complete or not at all. Only with the lock held.

        Args:
            fetcher: to fetch it with.
            source: what `look_up` said.
            free: how many bytes it may take unpacked.
            fetching: told of bytes that are there, of how many, and how many were before.
            unpacking: told of bytes of the archive.

        Raises:
            InstallError: with the reason. What may be continued is kept, what is wrong is not.
        """
        loop = asyncio.get_running_loop()

        def tell(have: int, size: int, previously: int) -> None:
            loop.call_soon_threadsafe(fetching, have, size, previously)

        try:
            local = await fetcher.fetch(source, self.partial, tell)
        except DownloadFailed as error:
            raise self._unreachable(error) from error
        if not self.plan.sha256:
            await finished(record_digest, self.root, self._trusted_as, local.sha256)
        staging = staging_for(self.target)
        try:
            files = await stoppable(
                lambda report: _unpacked(source.name, local, staging, free(), report), unpacking
            )
            receipt = self._receipt(source, local, files)
            await committed(activate, receipt, staging, self.target)
        except (UnsafeArchive, SetupFailed, ChecksumMismatch):
            await finished(_forget, self.partial)
            raise
        finally:
            await finished(shutil.rmtree, staging, ignore_errors=True)
        await finished(_forget, self.partial)

    def _unreachable(self, error: DownloadFailed) -> DownloadFailed:
        """It is not the host of releases that somebody would have to look after."""
        plan = self.plan
        remedy = (
            f"Check network and proxy, name a mirror in {plan.url_variable}, or install "
            f"{plan.name} {plan.version} yourself; what has come so far is kept."
        )
        return DownloadFailed(error.message, remedy=remedy, facts=error.facts)

    @property
    def _trusted_as(self) -> str:
        return f"{self.plan.name}/{self.plan.path}"

    def _receipt(
        self, source: RemoteFile, local: LocalFile, files: Sequence[UnpackedFile]
    ) -> Receipt:
        plan = self.plan
        paths = {file.path for file in files}
        wanted = [f"{folder}/{plan.library}" for folder in plan.libraries]
        # It may be a link, which is not among the files; what it leads to has a longer name.
        found = [path for path in sorted(paths) if path.startswith(tuple(wanted))]
        if not found:
            raise SetupFailed(
                f"{source.name} holds no {plan.library} in {', '.join(plan.libraries)}.",
                remedy="It is not what its name says.",
            )
        return Receipt(
            backend=plan.name,
            version=plan.version,
            python="",
            packages=(),
            installed_at=now(),
            contents=Contents(
                executable=f"{TREE}/{found[0]}",
                tag=plan.version,
                assets=(Asset(source.name, source.url, local.size_bytes, local.sha256),),
                files=tuple(
                    InstalledFile(f"{TREE}/{file.path}", file.size_bytes, file.sha256)
                    for file in files
                ),
            ),
            made_for=plan.folder.partition("-")[0],
        )


@contextlib.asynccontextmanager
async def held(
    plan: RuntimePlan | None, root: Path, environ: Mapping[str, str], listen: ProgressListener
) -> AsyncIterator[SharedRuntime | None]:
    """The runtime of a plan, which nobody else installs or removes meanwhile; `None` if none."""
    if plan is None:
        yield None
        return
    runtime = SharedRuntime(plan, root, environ)
    if plan.system:
        yield runtime
        return
    async with locked(runtime.target.parent, listen):
        await asyncio.to_thread(sweep, runtime.target.parent)
        yield runtime


def drop_unused(root: Path) -> list[str]:
    """Remove the runtimes that no bundle needs; their names. Blocks.

    Those of a name that is being installed stay until the next time.
    """
    dropped: list[str] = []
    for folder in sorted((root / RUNTIMES).glob("*/")):
        lock = FileLock(folder / LOCK)
        if not lock.acquire():
            continue
        try:
            sweep(folder)
            for path in _unused_in(folder, root):
                name = f"{folder.name}/{path.name}"
                if path.is_dir():
                    (path / RECEIPT).unlink(missing_ok=True)
                    shutil.rmtree(path)
                    dropped.append(name)
                else:
                    path.unlink()  # what was fetched of one, for nobody any more
        finally:
            lock.release()
    return dropped


def unused(root: Path) -> list[Path]:
    """What `drop_unused` would remove. Blocks."""
    found: list[Path] = []
    for folder in sorted((root / RUNTIMES).glob("*/")):
        lock = FileLock(folder / LOCK)
        if lock.acquire():
            found += _unused_in(folder, root)
            lock.release()
    return found


def _unused_in(folder: Path, root: Path) -> list[Path]:
    needed = _needed(root)
    return [
        path
        for path in sorted(folder.iterdir())
        if path.name != LOCK and f"{folder.name}/{path.name}/{TREE}" not in needed
    ]


def _needed(root: Path) -> set[str]:
    receipts = (read_receipt(path.parent) for path in root.glob(f"[!.]*/*/*/{RECEIPT}"))
    return {one.runtime.folder for one in receipts if one is not None and one.runtime is not None}


def _unpacked(
    name: str, local: LocalFile, staging: Path, free: int, report: Report
) -> tuple[UnpackedFile, ...]:
    # Reading archives takes four libraries and half a MiB; most servers never do.
    from lemonade.installer.archive import unpack

    staging.mkdir(mode=0o755)
    return unpack(name, [local.path], staging / TREE, Limits(unpacked_bytes=free), report)


def _forget(partial: Path) -> None:
    for path in partial.parent.glob(f"{partial.name}*"):
        path.unlink(missing_ok=True)
