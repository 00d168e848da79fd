"""The versions of a backend that are on this disk: listed, used, gone back from, pruned.

Every change is made with the backend's lock held and refused, not waited for, while somebody
installs it. A running engine is never touched: it goes on with the version it was started from.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final, Literal

from lemonade.catalog import BackendSpec
from lemonade.core.bundle import Bundle
from lemonade.core.bus import Bus
from lemonade.core.errors import (
    InstallError,
    LemonadeError,
    Locked,
    NoEarlierVersion,
    NotInstalled,
    UnsupportedHere,
)
from lemonade.core.events import BundleRemoved
from lemonade.core.records import dataclass
from lemonade.installer import activation
from lemonade.installer.bundles import Bundles
from lemonade.installer.compiled import compiled_for_nothing
from lemonade.installer.leases import Unheld, in_use, nobody
from lemonade.installer.legacy import legacy_entries
from lemonade.installer.pointer import Pointer
from lemonade.installer.receipts import Receipt, now
from lemonade.installer.release_build import DOWNLOADS, downloads_of
from lemonade.installer.runtimes import drop_unused, unused
from lemonade.installer.threads import finished
from lemonade.planning.selection import PinKind, Selection
from lemonade.storage import FileLock

log = logging.getLogger(__name__)

Kind = Literal["version", "leftover", "download", "runtime", "compiled"]

_PARTS: Final = 2
"""Folders between the root of downloads and those of one backend."""


@dataclass(frozen=True, slots=True)
class InstalledVersion:
    """One version on this disk.

    Attributes:
        root: its folder.
        receipt: what was installed; `None` of a legacy one.
        usable: whether its program is there and made for this machine's GPU.
        active: whether the next engine is started from it.
        last_good: whether `roll_back` goes to it.
        in_use: whether an engine runs it, of whichever server.
        used_by: who, in words, if that is known: an engine without a server.
        size_bytes: on the disk.
    """

    name: str
    root: Path
    receipt: Receipt | None
    usable: bool
    active: bool
    last_good: bool
    in_use: bool
    size_bytes: int
    used_by: str = ""


@dataclass(frozen=True, slots=True)
class Pruned:
    """Something that was removed, or would be; or, with a reason, something that was kept."""

    backend: str
    kind: Kind
    name: str
    size_bytes: int
    kept_because: str = ""


@dataclass(frozen=True, slots=True)
class _Found:
    """What `prune` would remove."""

    what: Pruned
    path: Path


class Versions:
    """Acts on the versions of backends. Made by the composition root; keeps nothing."""

    def __init__(self, bundles: Bundles, bus: Bus, *, unheld: Unheld = nobody) -> None:
        """`bus` is told of what is removed; `unheld` says who runs from one without a claim."""
        self._bundles = bundles
        self._bus = bus
        self._unheld = unheld

    async def installed(self, selection: Selection) -> tuple[InstalledVersion, ...]:
        """All versions of a backend, the active one first, then the latest installed."""
        return await asyncio.to_thread(self._installed, selection)

    async def use(self, selection: Selection, name: str) -> Bundle:
        """Use a version from now on, given by its folder's name or its tag.

        Raises:
            NotInstalled: it is not there.
            UnsupportedHere: it is for another GPU.
            Locked: the backend is being installed.
        """
        return await finished(self._use, selection, name)

    async def roll_back(self, selection: Selection) -> Bundle:
        """Use the last version that was used before and is there.

        Raises:
            NoEarlierVersion: there is none.
            Locked: the backend is being installed.
        """
        return await finished(self._roll_back, selection)

    async def prune(self, selection: Selection, *, dry_run: bool) -> tuple[Pruned, ...]:
        """Remove what nobody needs: neither used nor the way back, and leftovers.

        Raises:
            InstallError: something cannot be removed.
        """
        pruned = await finished(self._prune, selection, dry_run=dry_run)
        if not dry_run:
            for one in pruned:
                if one.kind == "version" and not one.kept_because:
                    self._bus.publish(BundleRemoved(selection.spec.backend_id, one.name))
        return pruned

    async def prune_shared(
        self, known: tuple[BackendSpec, ...], *, dry_run: bool
    ) -> tuple[Pruned, ...]:
        """Remove runtimes no version needs, and what versions and backends have left behind."""
        return await finished(self._prune_shared, known, dry_run=dry_run)

    # ---- all of this blocks

    def _installed(self, selection: Selection) -> tuple[InstalledVersion, ...]:
        spec, bundles = selection.spec, self._bundles
        active = self._active(selection)
        good = self._last_good(selection)
        good_root = good.root if good is not None else None
        usable = {
            bundle.root
            for bundle in bundles.present(spec)
            if bundles.suits(selection, bundle.version)
        }
        users = self._users()
        places = [(path.name, path) for path in bundles.folders(spec)]
        places += [(legacy.version, legacy.folder) for legacy in bundles.legacy(spec)]
        found = [
            InstalledVersion(
                name=name,
                root=path,
                receipt=bundles.receipt(path),
                usable=path in usable,
                active=active is not None and path == active.root,
                last_good=path == good_root,
                in_use=in_use(path) or os.path.realpath(path) in users,
                size_bytes=self._size(spec, path),
                used_by=users.get(os.path.realpath(path), ""),
            )
            for name, path in places
        ]
        found.sort(key=lambda one: one.receipt.installed_at if one.receipt else "", reverse=True)
        return tuple(sorted(found, key=lambda one: not one.active))

    def _users(self) -> Mapping[str, str]:
        """Of versions that nobody holds. To show only: who removes one asks again."""
        try:
            return self._unheld()
        except OSError as error:
            log.warning("It cannot be told which versions kept engines run from: %s", error)
            return {}

    def _use(self, selection: Selection, name: str) -> Bundle:
        with self._locked(selection.spec):
            bundle = self._named(selection, name)
            self._point(selection, bundle)
            return bundle

    def _roll_back(self, selection: Selection) -> Bundle:
        spec = selection.spec
        with self._locked(spec):
            bundle, pointer = self._last_good(selection), self._bundles.pointer(spec)
            if bundle is None or pointer is None:
                raise NoEarlierVersion(
                    f"{spec.id} has no earlier version to go back to.",
                    remedy=f"`lemonade backends show {spec.id}` lists what is there; "
                    f"`lemonade backends use {spec.id}@VERSION` takes any of it.",
                )
            version = next(v for v in pointer.history if self._is(selection, v, bundle))
            pointer.back_to(version).write(self._bundles.folder(spec))
            return bundle

    def _named(self, selection: Selection, name: str) -> Bundle:
        """The version somebody means: its folder's name, or the tag of one for this GPU."""
        for candidate in (name, f"{name}-{selection.made_for}"):
            bundle = self._bundles.find(selection, candidate)
            if bundle is None:
                continue
            if not self._bundles.suits(selection, bundle.version):
                raise UnsupportedHere(
                    f"{selection.spec.id} {bundle.version} is a build for another GPU.",
                    remedy=f"`lemonade backends show {selection.spec.id}` lists what is there.",
                )
            return bundle
        raise NotInstalled(
            f"{selection.spec.id} {name} is not installed.",
            remedy=f"`lemonade backends install {selection.spec.id}@{name}` gets it.",
        )

    def _point(self, selection: Selection, bundle: Bundle) -> None:
        folder = self._bundles.folder(selection.spec)
        chosen = bundle.version != selection.version
        pointer = self._bundles.pointer(selection.spec)
        if pointer is None:
            before = self._active(selection)
            other = before is not None and before.version != bundle.version
            history = (before.version,) if before is not None and other else ()
            pointer = Pointer(bundle.version, now(), chosen, history)
        else:
            pointer = pointer.moved_to(bundle.version, chosen=chosen)
        pointer.write(folder)

    def _last_good(self, selection: Selection) -> Bundle | None:
        """The newest of those used before that could be used again; each has been tried once."""
        pointer = self._bundles.pointer(selection.spec)
        if pointer is None:
            return None
        earlier = (v for v in pointer.history if v != pointer.version)
        fitting = (v for v in earlier if self._bundles.suits(selection, v))
        found = (self._bundles.find(selection, v) for v in fitting)
        return next((bundle for bundle in found if bundle is not None), None)

    def _is(self, selection: Selection, version: str, bundle: Bundle) -> bool:
        found = self._bundles.find(selection, version)
        return found is not None and found.root == bundle.root

    def _active(self, selection: Selection) -> Bundle | None:
        try:
            return self._bundles.active(selection)
        except LemonadeError:
            return None  # a pin that cannot be used

    def _prune(self, selection: Selection, *, dry_run: bool) -> tuple[Pruned, ...]:
        spec = selection.spec
        folder = self._bundles.folder(spec)
        if not spec.pin.fetched:
            return ()
        if not folder.is_dir() and not self._bundles.legacy(spec):
            return tuple(self._prune_paths(self._downloads(spec), dry_run=dry_run))
        try:
            with self._locked(spec):
                if not dry_run:
                    activation.restore(folder)
                return tuple(self._prune_locked(selection, folder, dry_run=dry_run))
        except Locked as error:
            return (Pruned(spec.id, "version", spec.id, 0, kept_because=error.message),)
        except OSError as error:
            raise InstallError(
                f"{spec.id} cannot be pruned: {error.strerror or error}.",
                remedy=f"Check the owner and permissions of {folder}.",
            ) from error

    def _prune_locked(
        self, selection: Selection, folder: Path, *, dry_run: bool
    ) -> Iterator[Pruned]:
        spec = selection.spec
        gone = []
        for one in self._installed(selection):
            row = Pruned(spec.id, "version", one.name, one.size_bytes, self._why(selection, one))
            if not row.kept_because and not dry_run:
                try:
                    activation.remove(spec.backend_id, folder, one.name, one.root, self._unheld)
                    gone.append(one.name)
                except Locked as error:  # somebody started an engine from it just now
                    row = replace(row, kept_because=error.message)
            yield row
        if gone:
            activation.forget(folder, gone)
        remains = [*activation.leftovers(folder), *activation.strays(folder)]
        found = [
            _Found(Pruned(spec.id, "leftover", path.name, _size(path)), path) for path in remains
        ]
        yield from self._prune_paths([*found, *self._downloads(spec)], dry_run=dry_run)

    def _why(self, selection: Selection, one: InstalledVersion) -> str:
        """Why a version stays; empty if it does not."""
        pointer = self._bundles.pointer(selection.spec)
        if one.active:
            return "it is active"
        if selection.kind is PinKind.TAG and one.name == selection.version:
            return "a setting names it"
        if pointer is not None and one.name == pointer.version and one.receipt is not None:
            return "it is active without the setting that names another"
        if one.last_good:
            return "it is the way back"
        if one.used_by:
            return f"a running engine uses it: {one.used_by}"
        return "a running engine uses it" if one.in_use else ""

    def _downloads(self, spec: BackendSpec) -> list[_Found]:
        path = downloads_of(self._bundles.root, spec.backend_id)
        if not path.is_dir():
            return []
        return [_Found(Pruned(spec.id, "download", path.name, _size(path)), path)]

    def _prune_shared(
        self, known: tuple[BackendSpec, ...], *, dry_run: bool
    ) -> tuple[Pruned, ...]:
        root = self._bundles.root / DOWNLOADS
        wanted = {downloads_of(self._bundles.root, spec.backend_id) for spec in known}
        found = [
            _Found(
                Pruned(":".join(path.parts[-_PARTS:]), "download", path.name, _size(path)), path
            )
            for path in sorted(root.glob("*/*"))
            if path not in wanted
        ]
        here = [
            (
                spec,
                [path.name for path in self._bundles.folders(spec)]
                + [legacy.version for legacy in self._bundles.legacy(spec)],
            )
            for spec in known
        ]
        found += [
            _Found(Pruned("", "compiled", path.name, _size(path)), path)
            for path in compiled_for_nothing(self._bundles.root, here)
        ]
        runtimes = [
            Pruned(path.parent.name, "runtime", path.name, _size(path))
            for path in unused(self._bundles.root)
        ]
        if not dry_run:
            drop_unused(self._bundles.root)
        return (*self._prune_paths(found, dry_run=dry_run), *runtimes)

    def _prune_paths(self, found: list[_Found], *, dry_run: bool) -> Iterator[Pruned]:
        if not dry_run:
            activation.discard([one.path for one in found])
        yield from (one.what for one in found)

    def _size(self, spec: BackendSpec, path: Path) -> int:
        """Of a version; a legacy tree shares its folder with ours, which are not counted."""
        if path != self._bundles.folder(spec):
            return _size(path)
        return sum(_size(entry) for entry in legacy_entries(path))

    @contextmanager
    def _locked(self, spec: BackendSpec) -> Iterator[None]:
        lock = FileLock(self._bundles.folder(spec) / activation.LOCK)
        if not lock.acquire():
            raise Locked(
                f"{spec.id} is being installed or removed just now.",
                remedy="Wait for it to end, or cancel it, and try again.",
            )
        try:
            yield
        finally:
            lock.release()


def _size(path: Path) -> int:
    """Bytes of a file, or of all files below a folder."""
    try:
        if path.is_symlink() or not path.is_dir():
            return path.lstat().st_size
    except OSError:
        return 0
    total = 0
    for place, _, files in os.walk(path):
        for name in files:
            try:
                total += (Path(place) / name).lstat().st_size
            except OSError:
                continue  # it went meanwhile
    return total
