"""`LatestReleases`: what publishers have released, for those who pinned `latest`.

A load must not wait for anybody, so what is known lies on the disk (`<root>/.latest.json`) and is
asked for again when somebody installs, or in the background. A publisher that has nothing new says
so without sending its list. One that does not answer changes nothing.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from lemonade.catalog import BackendSpec
from lemonade.core.errors import DownloadFailed, LemonadeError
from lemonade.core.inference import JsonObject
from lemonade.core.records import dataclass
from lemonade.hardware import Machine
from lemonade.installer.fetch import Fetcher, Patience
from lemonade.installer.hosts import ReleaseHosts
from lemonade.jobs import TaskOwner
from lemonade.planning.releases import Release, gpu_in_tag, newest_version
from lemonade.storage import changing, read_json, write_json

log = logging.getLogger(__name__)

CACHE: Final = ".latest.json"
FRESH_FOR: Final = 6 * 3600.0
"""Seconds after which a list is asked for again in the background."""

_AGAIN_AFTER: Final = 600.0
"""Seconds after a failure."""

_PATIENCE: Final = Patience(question_retries=0, connect_within=5.0, silent_within=20.0)
_LISTED: Final = 30
_LISTED_FOR_GPUS: Final = 100
"""How many releases are looked at; where there is one for each kind of GPU, ours is among more."""


@dataclass(frozen=True, slots=True)
class _Known:
    """What a publisher said last."""

    releases: tuple[Release, ...] = ()
    etag: str = ""
    asked_at: float = 0.0


class LatestReleases(TaskOwner):
    """Knows and asks. `async with` it; leaving ends what is being asked.

    Made by the composition root.
    """

    def __init__(
        self,
        root: Path,
        environ: Mapping[str, str],
        machine: Machine,
        *,
        allowed: Callable[[], bool],
        clock: Callable[[], float] = time.time,
        patience: Patience = _PATIENCE,
    ) -> None:
        """Nothing is asked yet.

        Args:
            root: directory of all bundles.
            environ: says where releases are.
            machine: what is released must be for it.
            allowed: whether anybody may be asked in the background now.
            clock: seconds since the epoch.
            patience: with the host.
        """
        super().__init__()
        self._file = root / CACHE
        self._environ = environ
        self._machine = machine
        self._allowed = allowed
        self._clock = clock
        self._patience = patience
        self._questions: set[asyncio.Task[None]] = set()
        self._asking: set[str] = set()
        self._failed_at: dict[str, float] = {}
        self._read: tuple[tuple[int, ...], Mapping[str, _Known]] = ((), {})

    async def _end_all(self) -> None:
        for task in tuple(self._questions):
            task.cancel()

    def known(self, spec: BackendSpec) -> str:
        """The newest version of a backend for this machine; empty if nobody has looked.

        Asks nobody; reads a file if it has changed. Blocks for no longer than that.
        """
        if spec.pin.source != "github":
            return ""
        known = self._everything().get(spec.pin.repository)
        return newest_version(spec, self._machine, known.releases) if known else ""

    async def refresh(self, spec: BackendSpec) -> str:
        """Ask the publisher; the newest version for this machine, or empty if there is none.

        Raises:
            DownloadFailed: it does not answer, or not what can be understood.
            LemonadeError: what it says cannot be kept.
        """
        repository = spec.pin.repository
        before = self._everything().get(repository, _Known())
        hosts = ReleaseHosts.from_environ(self._environ)
        what = f"the list of releases of {repository}"
        most = _LISTED_FOR_GPUS if gpu_in_tag(spec) else _LISTED
        async with Fetcher(hosts, self._environ, self._patience) as fetcher:
            url = hosts.releases_url(repository, most)
            body, etag = await fetcher.ask_if_changed(url, what, before.etag)
        now = self._clock()
        if body is None:
            known = replace(before, asked_at=now)
        else:
            known = _Known(_listed(body, what), etag, now)
        await asyncio.to_thread(self._keep, repository, known)
        return self.known(spec)

    def refresh_soon(self, specs: Iterable[BackendSpec]) -> None:
        """Ask for what is stale, in the background, if that is allowed now."""
        if not self._allowed():
            return
        now, everything = self._clock(), self._everything()
        for spec in specs:
            repository = spec.pin.repository
            known = everything.get(repository, _Known())
            failed = self._failed_at.get(repository, -_AGAIN_AFTER)
            stale = not 0 <= now - known.asked_at < FRESH_FOR and now - failed >= _AGAIN_AFTER
            if spec.pin.source == "github" and stale and repository not in self._asking:
                self._asking.add(repository)
                task = self._tasks.create_task(self._refresh_quietly(spec))
                self._questions.add(task)
                task.add_done_callback(self._questions.discard)

    async def _refresh_quietly(self, spec: BackendSpec) -> None:
        repository = spec.pin.repository
        try:
            await self.refresh(spec)
        except (LemonadeError, OSError) as error:
            self._failed_at[repository] = self._clock()
            log.info("The releases of %s are not known anew: %s", repository, error)
        except Exception:  # nobody waits for it, and the group outlives its members
            self._failed_at[repository] = self._clock()
            log.exception("The releases of %s are not known anew", repository)
        finally:
            self._asking.discard(repository)

    def _everything(self) -> Mapping[str, _Known]:
        try:
            stat = self._file.stat()
        except OSError:
            return {}
        stamp = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
        if self._read[0] != stamp:
            self._read = (stamp, _read(self._file))
        return self._read[1]

    def _keep(self, repository: str, known: _Known) -> None:
        self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        entry = {
            "etag": known.etag,
            "asked_at": known.asked_at,
            "releases": [[one.tag, list(one.files)] for one in known.releases],
        }
        with changing(self._file):
            write_json(self._file, {**_document(self._file), repository: entry})


def _document(file: Path) -> JsonObject:
    try:
        return read_json(file) or {}
    except LemonadeError:  # it is asked for anew; nothing is lost
        return {}


def _read(file: Path) -> Mapping[str, _Known]:
    found = {}
    for repository, entry in _document(file).items():
        try:
            releases = tuple(
                Release(str(tag), tuple(str(name) for name in names))
                for tag, names in entry["releases"]
            )
            etag = str(entry["etag"])
            sendable = etag if etag.isprintable() else ""
            found[repository] = _Known(releases, sendable, float(entry["asked_at"]))
        except (KeyError, TypeError, ValueError, OverflowError):
            continue
    return found


def _listed(answer: bytes, what: str) -> tuple[Release, ...]:
    """The releases that are out, as the publisher orders them: the newest first."""
    try:
        return tuple(
            Release(str(one["tag_name"]), tuple(str(file["name"]) for file in one["assets"]))
            for one in json.loads(answer)
            if not one.get("draft") and not one.get("prerelease")
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DownloadFailed(
            f"The answer about {what} cannot be read: {error!r}.",
            remedy="Check LEMONADE_GITHUB_API_URL: it must be the base of an API of releases.",
        ) from error
