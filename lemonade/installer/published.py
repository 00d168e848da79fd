"""What a release says of its files: names, sizes and digests, and whether one is there in parts.

Asked of the release API. If that does not answer, what is named exactly can be fetched all the
same; the file host then says the size.
"""

from __future__ import annotations

import asyncio
import fnmatch
import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from lemonade.core.errors import DownloadFailed
from lemonade.core.records import dataclass
from lemonade.installer.fetch import Fetcher, RemoteFile
from lemonade.installer.trust import recorded_digest
from lemonade.planning.releases import PlannedAsset, ReleasePlan

log = logging.getLogger(__name__)

_DIGEST: Final = re.compile(r"sha256:([0-9a-fA-F]{64})")
_ENDING: Final = re.compile(r"(\.tar\.[a-z0-9]+|\.[a-z0-9]+)\Z")
_MOST_PARTS: Final = 99


@dataclass(frozen=True, slots=True)
class PublishedAsset:
    """An archive as it is there.

    Attributes:
        files: it, or its parts in order.
        sha256: of the whole, where only that is pinned; otherwise empty.
    """

    name: str
    files: tuple[RemoteFile, ...]
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class _Listed:
    size_bytes: int
    sha256: str


async def look_up(plan: ReleasePlan, fetcher: Fetcher, root: Path) -> PublishedAsset:
    """Learn what is to be fetched; `root` has the record of earlier digests.

    Raises:
        DownloadFailed: the release or a file is not there, or nobody answers.
    """
    release = _Release(plan, fetcher, root)
    asset = plan.asset
    if "*" in asset.name or asset.parts or not asset.sha256:
        await release.read_list(needed="*" in asset.name)
    return await release.find(asset)


class _Release:
    def __init__(self, plan: ReleasePlan, fetcher: Fetcher, root: Path) -> None:
        self._plan = plan
        self._fetcher = fetcher
        self._root = root
        self._listed: Mapping[str, _Listed] | None = None

    async def read_list(self, *, needed: bool) -> None:
        plan = self._plan
        what = f"the list of files of {plan.repository} {plan.tag}"
        url = self._fetcher.hosts.release_url(plan.repository, plan.tag)
        try:
            answer = await self._fetcher.ask(url, what)
            if answer is not None:
                self._listed = _read_list(answer, what)
        except DownloadFailed as error:
            if needed:
                raise
            log.warning("%s Going on without its digests.", error.message)
            return
        if answer is None and needed:
            raise DownloadFailed(
                f"{plan.repository} has no release {plan.tag}.",
                remedy="It may have been taken back.",
            )

    async def find(self, asset: PlannedAsset) -> PublishedAsset:
        if "*" in asset.name:
            return await self._whole(self._match(asset.name), asset)
        if asset.parts and (count := await self._part_count(asset.name)):
            return await self._parts(asset, count)
        return await self._whole(asset.name, asset)

    def _match(self, pattern: str) -> str:
        # Only the star means something, brackets and question marks are themselves.
        literal = re.sub(r"([\[?])", r"[\1]", pattern)
        names = [n for n in self._listed or () if fnmatch.fnmatchcase(n, literal)]
        if len(names) == 1:
            return names[0]
        said = ", ".join(sorted(names)) if names else "there is none"
        raise DownloadFailed(
            f"Exactly one file of {self._plan.repository} {self._plan.tag} should be called "
            f"{pattern}: {said}.",
            remedy="The release is not as the backend's descriptor expects.",
        )

    async def _whole(self, name: str, asset: PlannedAsset) -> PublishedAsset:
        return PublishedAsset(name, (await self._file(name, asset.sha256),))

    async def _part_count(self, name: str) -> int:
        """In how many parts it is; 0 if in one piece."""
        file = f"{_stem(name)}.partcount"
        if self._listed is not None and file not in self._listed:
            return 0
        url = self._fetcher.hosts.file_url(self._plan.path_of(file))
        answer = await self._fetcher.ask(url, file)
        if answer is None:
            return 0
        text = answer.strip().decode("ascii", "replace")
        if not text.isdigit() or not 1 <= int(text) <= _MOST_PARTS:
            raise DownloadFailed(
                f"{file} should say in how many parts {name} is, and says '{text[:40]}'.",
                remedy="The release is damaged.",
            )
        return int(text)

    async def _parts(self, asset: PlannedAsset, count: int) -> PublishedAsset:
        stem = _stem(asset.name)
        ending = asset.name.removeprefix(stem)
        names = [f"{stem}.part{n:02}-of-{count:02}{ending}" for n in range(1, count + 1)]
        files = tuple([await self._file(name, "") for name in names])
        return PublishedAsset(asset.name, files, asset.sha256)

    async def _file(self, name: str, pinned: str) -> RemoteFile:
        plan = self._plan
        path = plan.path_of(name)
        url = self._fetcher.hosts.file_url(path)
        listed = (self._listed or {}).get(name)
        sha256, voucher = pinned or plan.sha256.get(name, ""), "pinned"
        if not sha256:
            sha256, voucher = (listed.sha256 if listed else ""), "published"
        if not sha256:
            sha256 = await asyncio.to_thread(recorded_digest, self._root, path)
            voucher = "recorded" if sha256 else ""
        if listed is not None:
            return RemoteFile(name, url, listed.size_bytes, sha256, voucher)
        if self._listed is not None:
            raise DownloadFailed(
                f"{plan.repository} {plan.tag} has no file {name}.",
                remedy="The release may not be complete yet, or has nothing for this machine.",
            )
        return RemoteFile(name, url, await self._size(url, name), sha256, voucher)

    async def _size(self, url: str, name: str) -> int:
        try:
            size = await self._fetcher.size_of(url, name)
        except DownloadFailed as error:
            if "status" in error.facts:
                return 0  # storage hosts may sign an address for reading alone
            raise
        if size is None:
            raise DownloadFailed(
                f"{self._plan.repository} {self._plan.tag} has no file {name}.",
                remedy="The release may have been taken back, or the mirror may not have it.",
            )
        return size


def _stem(name: str) -> str:
    return _ENDING.sub("", name)


def _read_list(answer: bytes, what: str) -> dict[str, _Listed]:
    try:
        listed = {}
        for entry in json.loads(answer)["assets"]:
            digest = _DIGEST.fullmatch(entry.get("digest") or "")
            sha256 = digest[1].lower() if digest else ""
            listed[str(entry["name"])] = _Listed(int(entry.get("size") or 0), sha256)
        return listed
    except (
        ArithmeticError,
        LookupError,
        TypeError,
        ValueError,
        AttributeError,
        RecursionError,
    ) as error:
        raise DownloadFailed(
            f"The answer about {what} cannot be read: {error!r}.",
            remedy="Check LEMONADE_GITHUB_API_URL: it must be the base of an API of releases.",
        ) from error
