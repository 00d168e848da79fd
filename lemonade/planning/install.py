"""`InstallPlan`: what a backend's bundle is made of, where it will be, and what must be checked.

Printable and complete: the installer decides nothing that is not in here, but learns of a release
what the release itself says. Only backends of the sources `github` and `pypi` are installed; the
others are on the machine or are not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import Final

from lemonade.catalog.backend import BackendSpec
from lemonade.catalog.lock import LockedPackage, normal_name
from lemonade.core.bundle import Bundle
from lemonade.core.errors import BadDescriptor, UnsupportedHere
from lemonade.core.ids import BackendId
from lemonade.core.records import dataclass
from lemonade.hardware.facts import Machine
from lemonade.planning.given import Given
from lemonade.planning.releases import ReleasePlan, folder_version, made_for, plan_release
from lemonade.planning.runtimes import RuntimePlan, plan_runtime
from lemonade.planning.selection import PinKind, Selection
from lemonade.planning.support import Verdict, judge

_WHEEL_TAGS: Final = {"x86_64": "x86_64", "arm64": "aarch64"}
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True)
class InstallPlan:
    """One bundle to be built.

    Attributes:
        packages: pinned requirements, for a private environment.
        sha256: digests of the files that may be fetched, by file name; no package is accepted
            without.
        files: those of them that suit this machine.
        target: the bundle's directory; it appears there complete or not at all.
        argv: how its program is started; may hold the placeholders of the descriptor.
        smoke: further arguments with which it must print its version and exit with 0.
        present: the same version, if it is installed already.
        release: what is taken from a release instead of packages.
        made_for: the GPU the build depends on; empty if it depends on none.
        keeps: other versions that are installed, and stay.
        verdict: whether it runs on the machine it was planned for.
        given: what is taken instead of fetching anything.
        locked: for a private environment, instead of `packages` and `sha256`: every package with
            the digests of its files.
        provides: distributions that are only said to be there, name and version.
        python: the versions of Python the environment may have; empty is any.
        environment: variables for the program; same placeholders as its command line.
        smoke_within: how long the start with `smoke` may take, seconds.
        runtime: libraries it needs besides.
        chosen: whether it was asked for by name although another one is wanted.
        pinned: whether it is what the operator's setting names.
    """

    backend: BackendId
    version: str
    packages: tuple[str, ...]
    sha256: Mapping[str, str]
    files: tuple[str, ...]
    target: Path
    argv: tuple[str, ...]
    smoke: tuple[str, ...]
    present: Bundle | None = None
    release: ReleasePlan | None = None
    made_for: str = ""
    keeps: tuple[str, ...] = ()
    given: Given | None = None
    chosen: bool = False
    pinned: bool = False
    verdict: Verdict | None = None
    locked: tuple[LockedPackage, ...] = ()
    provides: Mapping[str, str] = field(default_factory=dict)
    python: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    smoke_within: float = 60.0
    runtime: RuntimePlan | None = None

    @property
    def steps(self) -> tuple[str, ...]:
        """What will be done, in order, in the words of the progress that is shown."""
        if self.release is None:
            return ("create environment", "fetch", "install", "check", "activate")
        if self.given is not None:
            return (f"unpack {self.given.name}", "check", "activate")
        names = [self.release.asset.name]
        if self.runtime is not None and not self.runtime.system:
            names.insert(0, self.runtime.file)
        moves = [step for name in names for step in (f"fetch {name}", f"unpack {name}")]
        return ("find release", *moves, "check", "activate")

    def requirements(self) -> str:
        """The lines of a requirements file for `pip install --require-hashes`."""
        # What an index may not have comes first: pip looks for them one after the other, and
        # fetches each on the way.
        rare = sorted(self.locked, key=lambda package: "+" not in package.version)
        lines = [package.requirement() for package in rare]
        for package in self.packages:
            digests = sorted(
                digest
                for file, digest in self.sha256.items()
                if normal_name(file.partition("-")[0]) == _project(package)
            )
            lines.append(" ".join([package, *(f"--hash=sha256:{digest}" for digest in digests)]))
        return "\n".join(lines) + "\n"


def plan_install(
    selection: Selection,
    machine: Machine,
    present: Sequence[Bundle],
    root: Path,
    *,
    force: bool = False,
    given: Given | None = None,
) -> InstallPlan:
    """Decide how to install what is wanted under `root`, the directory of all bundles.

    `present` is what is installed of it, in any version. `force` asks not whether it runs here.
    `given` is what somebody hands over instead of having it fetched.

    Raises:
        UnsupportedHere: it does not run on this machine, or it is not something we install.
        BadDescriptor: a package has no digest, so nothing could be verified.
    """
    spec = selection.spec
    if not spec.pin.fetched:
        raise UnsupportedHere(
            f"{spec.id} is not installed by Lemonade: it is there or it is not.",
            remedy=f"Install {spec.pin.executable or 'it'} yourself, or choose another backend.",
        )
    verdict = judge(spec, machine)
    if not verdict.supported and not force:
        raise UnsupportedHere(
            f"{spec.id} does not run on this machine. {verdict.reason}", remedy=verdict.remedy
        )
    runtime = plan_runtime(spec, machine)
    fetched = runtime is not None and not runtime.system and given is None
    if runtime is not None and fetched and selection.runtime_method == "wheel":
        raise UnsupportedHere(
            f"{spec.id} needs {runtime.name} {runtime.version}, which is to be installed from "
            "packages: this version cannot do that.",
            remedy=f"`lemonade config set rocm_install_method=auto` takes the archive, or install "
            f"{runtime.name} {runtime.version} yourself and name it in ROCM_PATH.",
        )
    backend = spec.backend_id
    release = plan_release(spec, machine) if spec.pin.source == "github" else None
    if release is None:
        _check_digests(spec)
    version = folder_version(spec, machine) if release is not None else spec.pin.version
    verified = [one for one in present if one.verified]
    return InstallPlan(
        backend=backend,
        version=version,
        packages=spec.pin.packages,
        sha256=dict(spec.pin.sha256),
        files=_files(spec, machine, release),
        target=root / backend.recipe / backend.variant / version,
        argv=spec.bundle.argv,
        smoke=spec.bundle.smoke,
        present=next((one for one in verified if one.version == version), None),
        release=release,
        made_for=made_for(spec, machine),
        runtime=runtime,
        keeps=tuple(one.version for one in present if one.version != version or not one.verified),
        verdict=verdict,
        given=given,
        locked=spec.pin.locked,
        provides=dict(spec.pin.provides),
        python=spec.pin.python,
        environment={**spec.defaults, **spec.environment},
        smoke_within=spec.bundle.smoke_within,
        chosen=selection.named,
        pinned=selection.kind is PinKind.TAG and not selection.named,
    )


def download_name(spec: BackendSpec, machine: Machine) -> str:
    """The file that would be fetched for a machine; empty if there is none for it."""
    try:
        release = plan_release(spec, machine) if spec.pin.source == "github" else None
    except UnsupportedHere:
        return ""
    return next(iter(_files(spec, machine, release)), "")


def _check_digests(spec: BackendSpec) -> None:
    if not spec.pin.packages and not spec.pin.locked:
        raise BadDescriptor(
            f"{spec.id}: pin names no packages.",
            remedy="Give 'packages' with 'sha256', or a 'lock'.",
        )
    for package in spec.pin.packages:
        if not any(
            normal_name(file.partition("-")[0]) == _project(package) for file in spec.pin.sha256
        ):
            raise BadDescriptor(
                f"{spec.id}: pin.sha256 has no file of {package}.",
                remedy="Every file that may be fetched needs its digest.",
            )


def _files(spec: BackendSpec, machine: Machine, release: ReleasePlan | None) -> tuple[str, ...]:
    if release is not None:
        return (release.asset.name,)
    return tuple(file for file in spec.pin.sha256 if _suits(file, machine))


def _suits(file: str, machine: Machine) -> bool:
    """Whether a wheel's name says that it is for this kind of processor, or for any."""
    others = set(_WHEEL_TAGS.values()) - {_WHEEL_TAGS.get(machine.cpu.family, "")}
    return not any(tag in file for tag in others)


def _project(requirement: str) -> str:
    match = _NAME.match(requirement)
    return normal_name(match[0]) if match else ""
