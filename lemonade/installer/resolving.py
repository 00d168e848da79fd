"""`ResolvedPlan`: what a plan comes to once the release was asked. Changes nothing.

A plan is made without asking anybody. Sizes, published digests and the number of parts are known
to the release alone; where it cannot be asked, the plan stands with what is known.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from lemonade.core.errors import DownloadFailed
from lemonade.core.records import dataclass
from lemonade.installer.fetch import Fetcher, Patience, RemoteFile
from lemonade.installer.hosts import ReleaseHosts
from lemonade.installer.published import look_up
from lemonade.installer.release_build import space_for
from lemonade.installer.runtimes import SharedRuntime
from lemonade.installer.trust import recorded_digest
from lemonade.planning.install import InstallPlan
from lemonade.planning.releases import ReleasePlan

_CONNECT_WITHIN: Final = 5.0
"""Seconds; who only wants to see a plan is not kept waiting for a host that is away."""

_OFFLINE: Final = "the server is offline."


@dataclass(frozen=True, slots=True)
class ResolvedFile:
    """A file that would be fetched.

    Attributes:
        name: may hold `*` if the release could not be asked.
        url: where it is; empty if that is somebody else's business, as with packages.
        size_bytes: 0 if unknown.
        sha256: empty if unknown.
        vouched_by: who says so: `pinned` (the descriptor), `published` (the release), `recorded`
            (an earlier installation), or `first use`: nobody, and it will be recorded.
    """

    name: str
    url: str
    size_bytes: int
    sha256: str
    vouched_by: str


@dataclass(frozen=True, slots=True)
class ResolvedPlan:
    """A plan and what was learnt of it.

    Attributes:
        plan: the one that would be carried out.
        files: what would be fetched.
        download_bytes: of all files; 0 if unknown.
        needed_bytes: what it takes of the disk while it is done; 0 if unknown.
        free_bytes: of that disk.
        unknown: why something is not known, as a sentence; empty if all is.
        unreachable: whether that is because nobody answers.
    """

    plan: InstallPlan
    files: tuple[ResolvedFile, ...]
    download_bytes: int
    needed_bytes: int
    free_bytes: int
    unknown: str = ""
    unreachable: bool = False


async def resolve(
    plan: InstallPlan,
    root: Path,
    environ: Mapping[str, str],
    patience: Patience,
    *,
    online: bool,
) -> ResolvedPlan:
    """Ask, if that is allowed; what cannot be known without an answer stays unknown.

    Raises:
        DownloadFailed: somebody answers, and the release or its file is not there.
    """
    unknown, unreachable = "", False
    if plan.release is None:
        files = await asyncio.to_thread(_packages, plan, environ)
        if plan.locked or not all(file.size_bytes for file in files):
            unknown = "the package index says how large its files are when they are fetched."
    elif not online:
        files, unknown = await asyncio.to_thread(_planned, plan.release, root, environ), _OFFLINE
    else:
        try:
            files = await _asked(plan.release, root, environ, _hasty(patience))
        except DownloadFailed as error:
            if "reason" not in error.facts:
                raise
            files = await asyncio.to_thread(_planned, plan.release, root, environ)
            unknown, unreachable = f"{error.facts['reason']}.", True
    if plan.runtime is not None and plan.release is not None and plan.given is None:
        shared = SharedRuntime(plan.runtime, root, environ)
        if not await asyncio.to_thread(shared.is_there):
            online = online and not unreachable
            more, why = await _runtime(shared, environ, _hasty(patience), online=online)
            files, unknown = (*files, more), unknown or why
    total = sum(file.size_bytes for file in files) if all(f.size_bytes for f in files) else 0
    if files and not total and not unknown:
        unknown = "the host does not say how large it is."
    return ResolvedPlan(
        plan=plan,
        files=files,
        download_bytes=total,
        needed_bytes=space_for(total) if total else 0,
        free_bytes=await asyncio.to_thread(_free, root),
        unknown=unknown,
        unreachable=unreachable,
    )


async def _runtime(
    shared: SharedRuntime, environ: Mapping[str, str], patience: Patience, *, online: bool
) -> tuple[ResolvedFile, str]:
    """The archive of a runtime that is not there yet, and why its size is not known."""
    if not online:
        return _file(await asyncio.to_thread(shared.source)), ""
    try:
        hosts = ReleaseHosts.from_environ(environ)
        async with Fetcher(hosts, environ, patience) as fetcher:
            return _file(await shared.look_up(fetcher)), ""
    except DownloadFailed as error:
        if "reason" not in error.facts:
            raise
        return _file(await asyncio.to_thread(shared.source)), f"{error.facts['reason']}."


def _hasty(patience: Patience) -> Patience:
    within = min(patience.connect_within, _CONNECT_WITHIN)
    return replace(patience, question_retries=0, connect_within=within)


async def _asked(
    release: ReleasePlan, root: Path, environ: Mapping[str, str], patience: Patience
) -> tuple[ResolvedFile, ...]:
    hosts = ReleaseHosts.from_environ(environ)
    async with Fetcher(hosts, environ, patience) as fetcher:
        asset = await look_up(release, fetcher, root)
    return tuple(_file(remote) for remote in asset.files)


def _file(remote: RemoteFile) -> ResolvedFile:
    voucher = remote.vouched_by if remote.sha256 else "first use"
    return ResolvedFile(remote.name, remote.url, remote.size_bytes, remote.sha256, voucher)


def _planned(
    release: ReleasePlan, root: Path, environ: Mapping[str, str]
) -> tuple[ResolvedFile, ...]:
    """What the plan alone says. Blocks."""
    asset = release.asset
    path = release.path_of(asset.name)
    sha256, voucher = asset.sha256, "pinned"
    if not sha256:
        sha256, voucher = recorded_digest(root, path), "recorded"
    named = "*" not in asset.name
    url = ReleaseHosts.from_environ(environ).file_url(path) if named else ""
    return (_file(RemoteFile(asset.name, url, 0, sha256, voucher)),)


def _packages(plan: InstallPlan, environ: Mapping[str, str]) -> tuple[ResolvedFile, ...]:
    """The wheels that suit this machine. Blocks."""
    folder = environ.get("LEMONADE_WHEELS", "")
    found = []
    for name in plan.files:
        local = Path(folder, name)
        size = local.stat().st_size if folder and local.is_file() else 0
        found.append(ResolvedFile(name, "", size, plan.sha256.get(name, ""), "pinned"))
    return tuple(found)


def _free(root: Path) -> int:
    existing = root
    while not existing.exists():
        existing = existing.parent
    return shutil.disk_usage(existing).free
