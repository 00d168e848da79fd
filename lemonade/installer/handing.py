"""From a path or an address that somebody names to a `Given`: fetch if need be, then look at it.

What is fetched lies with the other downloads of its backend, and goes with them.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote

from lemonade.catalog import BackendSpec
from lemonade.core.errors import DownloadFailed, MalformedRequest
from lemonade.core.progress import Progress, ProgressListener
from lemonade.hardware import Machine
from lemonade.installer.fetch import Fetcher, Patience, RemoteFile
from lemonade.installer.given import look_at, read_digest
from lemonade.installer.hosts import ReleaseHosts, read_address, shown_url
from lemonade.installer.release_build import downloads_of, make_private
from lemonade.installer.turns import locked
from lemonade.planning.given import Given


def is_address(source: str) -> bool:
    """Whether it has to be fetched."""
    return "://" in source


async def take(
    source: str,
    spec: BackendSpec,
    machine: Machine,
    root: Path,
    environ: Mapping[str, str],
    patience: Patience,
    *,
    sha256: str,
    listen: ProgressListener,
) -> Given:
    """Have it on this machine, and know what it is.

    Args:
        source: an absolute path, or an address.
        spec: the backend it is for, in the version that was named or is pinned.
        machine: where it shall run.
        root: directory of all bundles.
        environ: says whom we may talk to.
        patience: with a host.
        sha256: the digest that whoever hands it over says it has; may be empty.
        listen: told how fetching goes on.

    Raises:
        MalformedRequest: it is not there, cannot be read, or is not what is needed.
        ChecksumMismatch, DownloadFailed, UnsupportedHere: as they say.
    """
    said = read_digest(sha256)
    if is_address(source):
        name = _name_in(source)
        folder = root / spec.backend_id.recipe / spec.backend_id.variant
        # Whoever installs, removes or prunes meanwhile would take it away; and two that fetch the
        # same would write into one file.
        async with locked(folder, listen):
            path = await _fetched(
                source, name, spec, root, environ, patience, said=said, listen=listen
            )
            return await asyncio.to_thread(
                look_at, path, spec, machine, root, said=said, origin=shown_url(source)
            )
    path = Path(source)
    if not path.is_absolute() or "\0" in source:
        raise MalformedRequest(
            f"'{source[:200]}' is not an absolute path.",
            remedy="Paths are those of the server's machine; it has no folder to begin from.",
        )
    return await asyncio.to_thread(look_at, path, spec, machine, root, said=said, origin=source)


def _name_in(url: str) -> str:
    """What the file at an address is called.

    Raises:
        MalformedRequest: it is not the address of a file.
    """
    remedy = "It must be https://HOST/.../FILE; of a file here, give the path."
    try:
        parts = read_address(url)
    except DownloadFailed as error:
        raise MalformedRequest(error.message, remedy=remedy) from error
    name = unquote(parts.path).rpartition("/")[2]
    if parts.scheme not in ("http", "https") or not name or name.startswith(".") or "\0" in name:
        raise MalformedRequest(f"{shown_url(url)} is not the address of a file.", remedy=remedy)
    return name


async def _fetched(
    url: str,
    name: str,
    spec: BackendSpec,
    root: Path,
    environ: Mapping[str, str],
    patience: Patience,
    *,
    said: str,
    listen: ProgressListener,
) -> Path:
    """From that address and no other host than it leads to."""
    folder = downloads_of(root, spec.backend_id)
    mark = hashlib.sha256(url.encode(errors="replace")).hexdigest()[:12]
    place = folder / f"given-{mark}"
    await asyncio.to_thread(make_private, root, folder)
    await asyncio.to_thread(place.mkdir, mode=0o700, exist_ok=True)
    loop = asyncio.get_running_loop()

    def report(have: int, size: int, previously: int) -> None:
        frame = Progress(f"fetch {name}", 1, 3, have, size, size, previously)
        loop.call_soon_threadsafe(listen, frame)

    async with Fetcher(ReleaseHosts.from_environ(environ), environ, patience) as fetcher:
        local = await fetcher.fetch(RemoteFile(name, url, 0, said), place / name[-200:], report)
    return local.path
