"""Which file of a release is for this machine: templates filled with what the machine is.

Nothing is asked of anybody: a name may still hold a `*`, and sizes and digests that are not
pinned are for the installer to learn.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Mapping
from typing import Final

from lemonade.catalog.backend import AssetSpec, BackendSpec
from lemonade.core.errors import UnsupportedHere
from lemonade.core.records import dataclass
from lemonade.hardware.facts import Gpu, Machine
from lemonade.planning.support import deciding_gpu

_FAMILIES: Final[Mapping[str, tuple[str, ...]]] = {
    "gfx120X": ("gfx1200", "gfx1201"),
    "gfx110X": ("gfx1100", "gfx1101", "gfx1102", "gfx1103"),
    "gfx103X": tuple(f"gfx103{digit}" for digit in range(7)),
}
"""AMD's GPUs that share builds; every other one is a family by itself."""

_PLACEHOLDER: Final = re.compile(r"\{([a-z]+)\}")
_COUNTED: Final = re.compile(r"(.+)-\d+-([^-]+)")
"""A version with a number in its middle: `master-820-de298c2`."""

_GPU_WORDS: Final = ("gfx", "family", "sm")
_NEEDS: Final = {
    "gfx": "an AMD GPU",
    "family": "an AMD GPU",
    "sm": "an NVIDIA GPU",
}


@dataclass(frozen=True, slots=True)
class PlannedAsset:
    """A file to be fetched.

    Attributes:
        name: as the release has it; may hold `*`.
        sha256: its pinned digest, or empty.
        parts: whether it may be there in parts.
    """

    name: str
    sha256: str = ""
    parts: bool = False


@dataclass(frozen=True, slots=True)
class ReleasePlan:
    """What to take from which release.

    Attributes:
        repository: `owner/name`.
        tag: the release's.
        asset: the file that is the bundle.
        sha256: pinned digests by file name, of parts as well.
        executable: name of the program that must be in there once.
        environment: variables for the program; same placeholders as its command line.
    """

    repository: str
    tag: str
    asset: PlannedAsset
    sha256: Mapping[str, str]
    executable: str
    environment: Mapping[str, str]

    def path_of(self, name: str) -> str:
        """Where a file is, below the host of releases."""
        return f"{self.repository}/releases/download/{self.tag}/{name}"


_TAG: Final = re.compile(r"[A-Za-z0-9][\w.+-]{0,149}", re.ASCII)
"""What can be a tag here: it becomes the name of a folder, with the GPU and a mark behind it."""

_TAKEN: Final = frozenset({"active.json", "version.txt"})
"""Files beside the folders of versions, in whose place none may be put."""


def is_tag(text: str) -> bool:
    """Whether it could be the version of a release."""
    return _TAG.fullmatch(text) is not None and text not in _TAKEN


def gpu_in_tag(spec: BackendSpec) -> bool:
    """Whether the releases of a backend are made for one kind of GPU each."""
    return any(word in _GPU_WORDS for word in _PLACEHOLDER.findall(spec.pin.tag))


def made_for(spec: BackendSpec, machine: Machine) -> str:
    """The GPU that the build for this machine depends on, as file names say it; or empty."""
    asset = next((one for one in spec.pin.assets if _suits(one, machine)), None)
    templates = (spec.pin.tag, asset.name if asset is not None else "")
    found = [word for text in templates for word in _PLACEHOLDER.findall(text)]
    words = _words(spec, machine)
    return next((words[word] for word in found if word in _GPU_WORDS and word in words), "")


def folder_version(spec: BackendSpec, machine: Machine) -> str:
    """What a bundle for this machine is called: its tag, and the GPU if the tag says nothing.

    Raises:
        UnsupportedHere: it depends on a device that is not here.
    """
    tag = _filled(spec.pin.tag, _words(spec, machine), spec)
    gpu = made_for(spec, machine)
    return f"{tag}-{gpu}" if gpu and not gpu_in_tag(spec) else tag


def family_of(gfx: str) -> str:
    """The family whose builds a GPU of AMD runs."""
    return next((family for family, members in _FAMILIES.items() if gfx in members), gfx)


def pinned_version(spec: BackendSpec, machine: Machine) -> str:
    """The version for this machine, which may be another one for its GPU."""
    gpu = deciding_gpu(spec, machine)
    if gpu is None:
        return spec.pin.version
    own = spec.pin.base_for
    return own.get(gpu.family) or own.get(family_of(gpu.family)) or spec.pin.version


@dataclass(frozen=True, slots=True)
class Release:
    """What a publisher lists: a tag, and the names of its files."""

    tag: str
    files: tuple[str, ...]


def newest_version(spec: BackendSpec, machine: Machine, releases: Iterable[Release]) -> str:
    """The version of the first release that has what this machine needs; empty if none has.

    `releases` are as the publisher orders them, the newest first. A tag may be for another GPU,
    and a release may have nothing for this backend, or nothing yet.
    """
    for release in releases:
        version = _version_of(spec, machine, release.tag)
        if version and _has_ours(spec, machine, version, release):
            return version
    return ""


def is_newer(version: str, than: str) -> bool:
    """Whether it has the higher numbers, compared one by one from the left."""
    return _numbers(version) > _numbers(than)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(run) for run in re.findall(r"\d+", version))


def _version_of(spec: BackendSpec, machine: Machine, tag: str) -> str:
    """What stands for the version in a tag that this machine can use; or empty."""
    words = {key: re.escape(word) for key, word in _words(spec, machine).items()}
    words["version"] = "(.+)"
    template = _PLACEHOLDER.sub("\0\\1\0", spec.pin.tag).split("\0")
    try:
        parts = [
            words[part] if index % 2 else re.escape(part) for index, part in enumerate(template)
        ]
    except KeyError:
        return ""  # it is for a device that is not here
    match = re.fullmatch("".join(parts), tag)
    return match[1] if match and match.groups() and is_tag(match[1]) else ""


def _has_ours(spec: BackendSpec, machine: Machine, version: str, release: Release) -> bool:
    try:
        asset = plan_release(with_version(spec, version), machine).asset
    except UnsupportedHere:
        return False
    # Only the star means something, brackets and question marks are themselves.
    pattern = re.sub(r"([\[?])", r"[\1]", asset.name)
    return any(
        fnmatch.fnmatchcase(name, pattern)
        or (asset.parts and name.endswith(".partcount") and asset.name.startswith(name[:-10]))
        for name in release.files
    )


def with_version(spec: BackendSpec, version: str) -> BackendSpec:
    """The descriptor with another version, the same for every GPU."""
    pin = spec.pin.model_copy(update={"version": version, "base_for": {}})
    return spec.model_copy(update={"pin": pin})


def plan_release(spec: BackendSpec, machine: Machine) -> ReleasePlan:
    """Choose the files for this machine.

    Raises:
        UnsupportedHere: the release has none, or its name needs a device that is not here.
    """
    pin = spec.pin
    asset = next((one for one in pin.assets if _suits(one, machine)), None)
    if asset is None:
        raise UnsupportedHere(
            f"{spec.id} has no build for {machine.os} on {machine.cpu.family}.",
            remedy="`lemonade backends --all` shows what runs here.",
        )
    words = _words(spec, machine)
    name = _filled(asset.name, words, spec)
    return ReleasePlan(
        repository=pin.repository,
        tag=_filled(pin.tag, words, spec),
        asset=PlannedAsset(name, pin.sha256.get(name, ""), asset.parts),
        sha256=dict(pin.sha256),
        executable=f"{pin.executable}.exe" if machine.os == "windows" else pin.executable,
        environment=dict(spec.environment),
    )


def _suits(asset: AssetSpec, machine: Machine) -> bool:
    os_fits = not asset.os or machine.os in asset.os
    return os_fits and (not asset.cpu or machine.cpu.family in asset.cpu)


def _words(spec: BackendSpec, machine: Machine) -> dict[str, str]:
    version = pinned_version(spec, machine)
    words = {
        "version": version,
        "number": re.sub(r"\Av(?=\d)", "", version),
        "short": _COUNTED.sub(r"\1-\2", version),
        "os": machine.os,
        "cpu": machine.cpu.family,
    }
    gpu: Gpu | None = deciding_gpu(spec, machine)
    if gpu is not None and gpu.vendor == "amd":
        words |= {"gfx": gpu.family, "family": family_of(gpu.family)}
    elif gpu is not None:
        words["sm"] = gpu.family
    return words


def _filled(template: str, words: Mapping[str, str], spec: BackendSpec) -> str:
    def value(match: re.Match[str]) -> str:
        if match[1] in words:
            return words[match[1]]
        raise UnsupportedHere(
            f"Which build of {spec.id} to take depends on {_NEEDS.get(match[1], match[1])}, and "
            "this machine has none that can be used.",
            remedy="`lemonade backends --all` shows what runs here and why the rest does not.",
        )

    return _PLACEHOLDER.sub(value, template)
