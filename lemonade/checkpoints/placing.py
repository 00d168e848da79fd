"""One file of a repository into the cache: what is there is kept, what is lacking is fetched.

Blocks; runs in a thread. The content's lock, which huggingface-hub takes as well, keeps other
processes that share the cache out of the way.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from lemonade.checkpoints.gguf_header import is_gguf_file
from lemonade.checkpoints.hub_api import HubApi, Report
from lemonade.checkpoints.layout import RepoCache
from lemonade.checkpoints.patience import patiently
from lemonade.checkpoints.threads import StopSignal
from lemonade.checkpoints.transfer import Content, transfer
from lemonade.core.errors import CheckpointError
from lemonade.planning.checkpoint import RepoFile, RepoListing
from lemonade.planning.gguf import is_gguf

log = logging.getLogger(__name__)

_SHA256_LENGTH: Final = 64
_GIT_LENGTH: Final = 40
_LOCK_PATIENCE: Final = 0.5
"""How long one try for a lock takes, seconds; in between it is looked whether to stop."""


def place(
    api: HubApi, listing: RepoListing, file: RepoFile, report: Report, stop: StopSignal
) -> Path:
    """Have the file complete in the snapshot of the listing's commit.

    Returns:
        Where it is.

    Raises:
        DamagedFile: what came is not what the hub says it is.
        Stopped: told to; what came so far is used by the next try.
        Exception: what huggingface-hub, its HTTP library or the disk raised.
    """
    cache = RepoCache.of(api.access.cache_dir, listing.repository)
    path = cache.snapshot(listing.revision) / file.path
    if is_whole(path, file.path, file.size_bytes):
        size = path.stat().st_size
        report(size, size)
        return path
    path.unlink(missing_ok=True)
    etag, size = patiently(lambda: api.facts(listing, file), stop, api.patience)
    if size <= api.patience.largest_plain_bytes:
        content = Content(
            path=file.path,
            url=api.url(listing, file.path),
            headers=api.headers(),
            size_bytes=size,
            sha256=file.sha256 or (etag if len(etag) == _SHA256_LENGTH else ""),
            # A proxy's names can be other hashes of that length: only if both agree is it git's.
            git_sha1=etag if etag == file.blob_id and len(etag) == _GIT_LENGTH else "",
        )
        _have_blob(cache, content, etag, report, stop, api)
    else:
        log.info("%s is too large to be continued later; it is fetched in one go.", file.path)
    patiently(lambda: api.link(listing, file, report, stop), stop, api.patience)
    if not is_whole(path, file.path, size):
        raise CheckpointError(
            f"{file.path} was fetched, but it is not in the cache as it should be.",
            remedy=f"Remove {cache.root} and pull again.",
        )
    return path


def bytes_lacking(cache_dir: Path, listing: RepoListing, files: tuple[RepoFile, ...]) -> int:
    """How many bytes of the files would still have to be fetched."""
    cache = RepoCache.of(cache_dir, listing.repository)
    lacking = 0
    for file in files:
        if is_whole(cache.snapshot(listing.revision) / file.path, file.path, file.size_bytes):
            continue
        name = file.sha256 or file.blob_id
        here = 0
        if name:
            whole, partial = cache.blobs / name, cache.blobs / f"{name}.incomplete"
            here = max(_size(whole), _size(partial))
        lacking += max(0, file.size_bytes - here)
    return lacking


def is_whole(path: Path, name: str, size_bytes: int) -> bool:
    """Whether the file is there, has the size (if that is known) and begins as its name says.

    Raises:
        OSError: it is there and cannot be read.
    """
    try:
        size = path.stat().st_size
        if size_bytes and size != size_bytes:
            return False
        return not is_gguf(name) or is_gguf_file(path)
    except FileNotFoundError:
        return False


def _have_blob(
    cache: RepoCache,
    content: Content,
    etag: str,
    report: Report,
    stop: StopSignal,
    api: HubApi,
) -> None:
    blob = cache.blobs / etag
    cache.blobs.mkdir(parents=True, exist_ok=True)
    with _held(cache.lock(etag), stop):
        if is_whole(blob, content.path, content.size_bytes):
            size = blob.stat().st_size
            report(size, size)
            return
        blob.unlink(missing_ok=True)
        partial = blob.with_name(f"{etag}.incomplete")
        transfer(content, partial, report, stop, api.patience)
        partial.replace(blob)


@contextlib.contextmanager
def _held(lock: Path, stop: StopSignal) -> Iterator[None]:
    """Hold the content's lock; whoever else fetches it is waited for."""
    # What huggingface-hub itself locks with, down to file systems without locks.
    from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]

    lock.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        while True:
            stop.check()
            try:
                stack.enter_context(WeakFileLock(lock, timeout=_LOCK_PATIENCE))
                break
            except TimeoutError:
                continue
        yield


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
