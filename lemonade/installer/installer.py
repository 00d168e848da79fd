"""Runs an `InstallPlan`: build beside the target, check, then rename into place.

Whatever goes wrong or is killed, what was installed before is still there and nothing half is
visible: a bundle appears by one rename, with its receipt inside. Two requests for the same target
in one server are one installation; two servers take turns.
"""

from __future__ import annotations

import asyncio
import errno
import re
import shutil
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final, TypeAlias

from lemonade.catalog import BackendSpec, shipped
from lemonade.core.bundle import Bundle
from lemonade.core.bus import Bus
from lemonade.core.errors import (
    InstallError,
    InstallStopped,
    LemonadeError,
    Locked,
    NoSpace,
    OutOfDisk,
    SetupFailed,
)
from lemonade.core.events import BundleInstalled, BundleRemoved
from lemonade.core.ids import BackendId
from lemonade.core.inference import JsonObject
from lemonade.core.progress import Progress, ProgressListener
from lemonade.hardware import Machine
from lemonade.installer.activation import LOCK, point, put_to_use, remove_all, staging_for, sweep
from lemonade.installer.bundles import VENV, Bundles, bundle_of
from lemonade.installer.environments import (
    check,
    create_environment,
    install_packages,
    local_sizes,
    missing_wheels,
)
from lemonade.installer.fetch import Patience
from lemonade.installer.handing import take
from lemonade.installer.leases import Unheld, claimed, nobody
from lemonade.installer.pip_output import CHECK, CREATE, PipReader
from lemonade.installer.pointer import read_pointer
from lemonade.installer.python import finish_environment
from lemonade.installer.receipts import Package, Receipt, now, read_receipt
from lemonade.installer.release_build import ReleaseBuilder, downloads_of, drop_downloads
from lemonade.installer.resolving import ResolvedPlan, resolve
from lemonade.installer.runtimes import SharedRuntime, drop_unused, held
from lemonade.installer.threads import committed, finished
from lemonade.installer.turns import locked
from lemonade.jobs import Job, Jobs, Kind, TaskOwner
from lemonade.planning.given import Given
from lemonade.planning.install import InstallPlan
from lemonade.storage import FileLock

_PATIENCE: Final = Patience()
_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

TrialListener: TypeAlias = Callable[[str, str], None]
"""Told the name of a step that takes time, and what people should know of it, or nothing."""

Trial: TypeAlias = Callable[[InstallPlan, Bundle, TrialListener], Awaitable[None]]
"""Uses a bundle that is complete but for its receipt, once; raises `SetupFailed` if that fails.
May do nothing at all: not every engine can be asked."""

_VERSION: Final = re.compile(r"^version:\s*([^\s(]+)", re.MULTILINE)


def shipped_overlay(backend: BackendId) -> Path:
    """Where the files beside a shipped descriptor are."""
    return shipped() / "backends" / f"{backend.file_stem}.overlay"


_KIND: Final = Kind(
    type="backend",
    stopped=lambda name, status: InstallStopped(
        f"The installation of {name} was {status}.",
        remedy="Install it again to continue; what was fetched of it is kept.",
    ),
    broken=lambda error: InstallError(f"The installation failed: {error!r}."),
)


class Installer(TaskOwner):
    """Installs and removes bundles. Owns the running installations.

    `async with` it: leaving ends what is running. An installation belongs to all who wait for it
    and is given up when the last of them has left, unless it was started on its own. `jobs` are
    the installations.
    """

    def __init__(
        self,
        bundles: Bundles,
        bus: Bus,
        environ: Mapping[str, str],
        *,
        overlay_of: Callable[[BackendId], Path] = shipped_overlay,
        patience: Patience = _PATIENCE,
        trials: Sequence[Trial] = (),
        unheld: Unheld = nobody,
    ) -> None:
        """Nothing is done yet.

        Args:
            bundles: where bundles lie.
            bus: told of what was installed and removed.
            environ: for pip, and for the variables that say where things are fetched from.
            overlay_of: where the files beside a backend's descriptor are.
            patience: with hosts that releases are fetched from.
            trials: what is done with a build before it takes its place; how engines are run is
                not this room's business.
            unheld: who runs from a version without a claim on it.
        """
        super().__init__()
        self._bundles = bundles
        self._bus = bus
        self._environ = environ
        self._overlay_of = overlay_of
        self._patience = patience
        self._trials = trials
        self._unheld = unheld
        self.jobs: Jobs[Bundle | None] = Jobs(_KIND, self._tasks)

    async def _end_all(self) -> None:
        self.jobs.stop_all()

    async def install(
        self, plan: InstallPlan, listen: ProgressListener, *, force: bool = False
    ) -> Bundle:
        """Have the planned bundle on this disk.

        If it is there already, that is all, unless `force` builds it anew. If it is being built,
        this waits for the same. Cancelled safely: the last waiter's departure ends it, and nothing
        of it stays.

        Raises:
            InstallError: with the reason; what was there before still is.
        """
        if plan.present is not None and not force and self._is_used(plan):
            listen(Progress(str(plan.backend), complete=True))
            return plan.present
        job = self._begin(plan, force=force)
        try:
            bundle = await job.wait(listen)
        except asyncio.CancelledError:
            if not job.may_be_joined:
                await job.ended()  # nothing of it is left when its last waiter has gone
            raise
        assert bundle is not None
        return bundle

    def detach(
        self, backend: BackendId, plan: InstallPlan | None, *, force: bool = False
    ) -> JsonObject:
        """Start an installation that runs on its own, or let one that runs do so; its snapshot.

        Without a plan, or if the bundle is there, it is a job that has nothing to do.
        """
        if plan is None or (plan.present is not None and not force and self._is_used(plan)):
            there = plan.present if plan is not None else None
            job = self.jobs.begin(str(backend), str(backend), _nothing_to_do(there))
        else:
            job = self._begin(plan, force=force)
        job.detached = True
        return job.as_json()

    async def resolve(self, plan: InstallPlan, *, online: bool = True) -> ResolvedPlan:
        """Learn what the plan does not say, without fetching or changing anything.

        Raises:
            InstallError: it cannot be carried out: the release has no such file.
        """
        return await resolve(
            plan, self._bundles.root, self._environ, self._patience, online=online
        )

    async def take(
        self,
        source: str,
        spec: BackendSpec,
        machine: Machine,
        *,
        sha256: str,
        listen: ProgressListener,
    ) -> Given:
        """Look at what somebody hands over, a path or an address, to plan with.

        `spec` is the backend in the version that was named or is pinned; `sha256` what it is said
        to be, or empty.

        Raises:
            MalformedRequest: it is not there, cannot be read, or is not what is needed.
            ChecksumMismatch: it is not what it is called, or said to be.
            DownloadFailed: the address does not answer.
        """
        return await take(
            source,
            spec,
            machine,
            self._bundles.root,
            self._environ,
            self._patience,
            sha256=sha256,
            listen=listen,
        )

    async def uninstall(self, spec: BackendSpec) -> bool:
        """Remove every version of the backend; whether there was any.

        Raises:
            Locked: it is being installed, or a running engine uses a version; nothing is removed.
            InstallError: it cannot be removed.
        """
        folder = self._bundles.folder(spec)
        if not spec.pin.fetched or not (folder.is_dir() or self._bundles.legacy(spec)):
            return False
        lock = FileLock(folder / LOCK)
        if self.jobs.is_running(spec.id) or not lock.acquire():
            raise Locked(
                f"{spec.id} is being installed just now.",
                remedy="Wait for it to end, or cancel it, and try again.",
            )
        try:
            removed = await finished(remove_all, spec.backend_id, folder, self._unheld)
            downloads = downloads_of(self._bundles.root, spec.backend_id)
            await asyncio.to_thread(shutil.rmtree, downloads, ignore_errors=True)
            await asyncio.to_thread(drop_unused, self._bundles.root)
        except OSError as error:
            raise InstallError(
                f"{spec.id} cannot be removed: {error.strerror or error}.",
                remedy=f"Check the owner and permissions of {folder}.",
            ) from error
        finally:
            lock.release()
        self.jobs.forget(spec.id)
        for version in removed:
            self._bus.publish(BundleRemoved(spec.backend_id, version))
        return bool(removed)

    async def ask_version(self, spec: BackendSpec, bundle: Bundle) -> str:
        """Run somebody else's program with `--version` and remember what it says.

        Raises:
            SetupFailed: it does not start.
        """
        output = await check((*bundle.argv, *spec.bundle.smoke), self._environ)
        match = _VERSION.search(output)
        self._bundles.learn_version(bundle, match[1] if match else "")
        return self._bundles.version_of(bundle)

    def _begin(self, plan: InstallPlan, *, force: bool) -> Job[Bundle | None]:
        async def work(job: Job[Bundle | None]) -> Bundle:
            try:
                bundle = await self._install_alone(plan, job.tell, force=force)
            except (LemonadeError, OSError) as error:
                raise _typed(plan, error) from error
            job.tell(Progress(str(plan.backend), complete=True))
            return bundle

        return self.jobs.begin(str(plan.target), str(plan.backend), work)

    async def _install_alone(
        self, plan: InstallPlan, listen: ProgressListener, *, force: bool
    ) -> Bundle:
        """Install while no other process does."""
        folder = plan.target.parent
        async with locked(folder, listen):
            await asyncio.to_thread(sweep, folder)
            if not force and (there := self._there(plan)) is not None:
                # It was there, or another process was quicker, or the sweep brought it back.
                await finished(point, plan)
                return there
            async with held(plan.runtime, self._bundles.root, self._environ, listen) as runtime:
                return await self._build(plan, runtime, listen)

    async def _build(
        self, plan: InstallPlan, runtime: SharedRuntime | None, listen: ProgressListener
    ) -> Bundle:
        staging = staging_for(plan.target)
        if plan.target.exists():  # said before anything is fetched; `activate` asks again
            await asyncio.to_thread(self._may_go, plan)
        try:
            receipt, last = await self._fill(plan, runtime, staging, listen)
            await self._check(plan, staging, receipt)
            await self._try(plan, staging, receipt, partial(_tell, listen, last))
            if plan.release is not None:  # first, or who is killed in between leaves them for ever
                await finished(drop_downloads, self._bundles.root, plan)
            await committed(put_to_use, receipt, staging, plan, self._unheld)
        finally:
            await finished(_discard, staging)
        self._bus.publish(BundleInstalled(plan.backend, plan.version))
        bundle = self._there(plan)
        if bundle is None:
            raise SetupFailed(f"{plan.backend} was removed while it was being installed.")
        return bundle

    def _may_go(self, plan: InstallPlan) -> None:
        """Raises `Locked` if an engine runs from what is to be replaced. Blocks."""
        with claimed(str(plan.backend), [(plan.version, plan.target)], self._unheld):
            pass

    async def _fill(
        self,
        plan: InstallPlan,
        runtime: SharedRuntime | None,
        staging: Path,
        listen: ProgressListener,
    ) -> tuple[Receipt, Progress]:
        """Have everything in the staging folder but the receipt; also the last step shown."""
        python, contents = "", None
        packages: tuple[Package, ...] = ()
        if plan.release is not None:
            builder = ReleaseBuilder(
                plan, self._bundles.root, self._environ, self._patience, listen, runtime
            )
            contents = await builder.build(staging)
            last = builder.last_step(CHECK)
        else:
            environ = await asyncio.to_thread(_with_wheels, plan, self._environ)
            sizes = await asyncio.to_thread(local_sizes, plan, environ)
            reader = PipReader(len(plan.packages) + len(plan.locked), sizes)
            listen(reader.step(CREATE))
            pip = await create_environment(staging / VENV, self._environ, plan.python)
            scratch = staging / "scratch"
            packages = await install_packages(pip, plan, scratch, environ, reader, listen)
            await asyncio.to_thread(shutil.rmtree, scratch, ignore_errors=True)
            python = await asyncio.to_thread(finish_environment, staging / VENV, plan.provides)
            last = reader.step(CHECK)
        listen(last)
        used = None
        # What somebody hands over may bring its own; then nothing is fetched, this neither.
        if runtime is not None and (
            plan.given is None or await asyncio.to_thread(runtime.is_there)
        ):
            used = runtime.used
        receipt = Receipt(
            backend=str(plan.backend),
            version=plan.version,
            python=python,
            packages=packages,
            installed_at=now(),
            contents=contents,
            made_for=plan.made_for,
            source="" if plan.given is None else "file",
            origin="" if plan.given is None else plan.given.origin,
            runtime=used,
        )
        return receipt, last

    async def _check(self, plan: InstallPlan, staging: Path, receipt: Receipt) -> None:
        """Start the program from where it lies now, with the variables it will have."""
        there = bundle_of(receipt, plan.backend, staging, (*plan.argv, *plan.smoke))
        if there is None:
            raise SetupFailed(f"{plan.backend} {plan.version} was fetched without its program.")
        overlay = str(self._overlay_of(plan.backend))
        declared = plan.environment
        names, values = list(declared), tuple(declared.values())
        filled = bundle_of(receipt, plan.backend, staging, values)
        variables = filled.argv if filled is not None else ()
        try:
            await check(
                [word.replace("{overlay}", overlay) for word in there.argv],
                self._environ,
                {
                    name: value.replace("{overlay}", overlay)
                    for name, value in zip(names, variables, strict=True)
                },
                within=plan.smoke_within,
            )
        except SetupFailed as error:
            raise SetupFailed(
                f"{plan.backend} {plan.version} was fetched, but does not start: {error.message}",
                remedy=error.remedy,
                facts=error.facts,
            ) from error

    async def _try(
        self, plan: InstallPlan, staging: Path, receipt: Receipt, tell: TrialListener
    ) -> None:
        """Have those who run engines run this one."""
        bundle = bundle_of(receipt, plan.backend, staging, plan.argv)
        if bundle is not None:
            for trial in self._trials:
                await trial(plan, bundle, tell)

    def _is_used(self, plan: InstallPlan) -> bool:
        """Whether nothing is left to be done for a version that is there."""
        pointer = read_pointer(plan.target.parent)
        if pointer is None:
            return False
        same = (plan.version, plan.chosen) == (pointer.version, pointer.chosen)
        return same or plan.pinned

    def _there(self, plan: InstallPlan) -> Bundle | None:
        return bundle_of(read_receipt(plan.target), plan.backend, plan.target, plan.argv)


def _tell(listen: ProgressListener, last: Progress, step: str, message: str) -> None:
    listen(replace(last, file=step, message=message))


def _nothing_to_do(
    there: Bundle | None,
) -> Callable[[Job[Bundle | None]], Awaitable[Bundle | None]]:
    async def work(job: Job[Bundle | None]) -> Bundle | None:
        job.tell(Progress(job.name, complete=True))
        return there

    return work


def _with_wheels(plan: InstallPlan, environ: Mapping[str, str]) -> Mapping[str, str]:
    """The environment in which pip finds what somebody handed over, and asks nobody else."""
    if plan.given is None:
        return environ
    folder = plan.given.files[0].parent
    if missing := missing_wheels(folder, plan):
        raise SetupFailed(
            f"{folder} lacks {', '.join(missing[:5])}{' and more' if len(missing) > 5 else ''}.",
            remedy="It must hold a wheel of every package, in the pinned version.",
            facts={"missing": missing},
        )
    return {**environ, "LEMONADE_WHEELS": str(folder)}


def _discard(staging: Path) -> None:
    shutil.rmtree(staging, ignore_errors=True)


def _typed(plan: InstallPlan, error: Exception) -> InstallError:
    if isinstance(error, InstallError):
        return error
    full = isinstance(error, OSError) and error.errno in _FULL
    if full or isinstance(error, OutOfDisk):
        return NoSpace(
            f"There is no space left to install {plan.backend}.",
            remedy="Free some space, or move the cache with LEMONADE_CACHE_DIR, and try again.",
        )
    remedy = f"Check the owner and permissions of {plan.target.parent}."
    if isinstance(error, LemonadeError):
        why, remedy = error.message.rstrip("."), error.remedy or remedy
    else:
        why = str(error)
    return InstallError(f"{plan.backend} could not be installed: {why}.", remedy=remedy)
