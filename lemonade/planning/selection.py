"""`Selection`: which build of a backend is wanted here, and who said so.

A descriptor pins one version. The operator may choose another channel, pin another release or the
latest one, or point at a program; a command may name a version. All of that is applied here, once,
so that everything after it reads one descriptor that says what is wanted.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Final

from lemonade.catalog.backend import BackendSpec
from lemonade.core.errors import UnsupportedHere
from lemonade.core.records import dataclass
from lemonade.hardware.facts import Machine
from lemonade.planning.releases import (
    family_of,
    folder_version,
    gpu_in_tag,
    is_newer,
    is_tag,
    made_for,
    pinned_version,
    with_version,
)
from lemonade.planning.support import deciding_gpu
from lemonade.storage import expanded

_BUILTIN: Final = frozenset({"", "builtin"})
LATEST: Final = "latest"
"""The pin of those who follow the publisher."""


class PinKind(StrEnum):
    """Who decides the version."""

    BUILTIN = "builtin"
    LATEST = "latest"
    TAG = "tag"
    PATH = "path"


@dataclass(frozen=True, slots=True)
class Selection:
    """What of a backend is wanted on this machine.

    Attributes:
        spec: the descriptor as it reads with the channel and the version applied.
        kind: who decides the version: the descriptor, its publisher, or the operator.
        version: the bundle that is wanted, as its folder is called; empty where nobody can say
            (the latest release was never looked up, or it is not ours to install).
        made_for: the GPU its build depends on; empty if it depends on none.
        path: the operator's own program, for the kind `path`.
        named: whether another version than the settings want was asked for by name in a command.
        runtime_method: how the operator wants a runtime to be installed; empty leaves it to us.
    """

    spec: BackendSpec
    kind: PinKind
    version: str
    made_for: str = ""
    path: Path | None = None
    named: bool = False
    runtime_method: str = ""

    def satisfied_by(self, version: str) -> bool:
        """Whether a bundle of that version is as good as what is wanted.

        A publisher may order releases as it likes: for `latest` it must only not be newer.
        """
        if self.kind is PinKind.LATEST:
            return not self.version or not is_newer(self.version, version)
        return self.version in ("", version)


def select(
    spec: BackendSpec,
    machine: Machine,
    *,
    pin: str = "builtin",
    channel: str = "",
    version: str = "",
    latest: str = "",
) -> Selection:
    """Apply what the operator decided to a descriptor.

    Args:
        spec: the backend.
        machine: where it shall run.
        pin: the operator's: `builtin`, `latest`, a release, or the absolute path of a program.
        channel: name of one; one the backend does not have is its own pin.
        version: a release named in a command; comes before `pin`.
        latest: the newest release, if somebody looked.

    Raises:
        UnsupportedHere: this backend cannot be had in that version, or it is for another GPU.
    """
    spec = on_channel(spec, channel)
    if version:
        return _as_released(spec, machine, version, named=True)
    if pin in _BUILTIN:
        return _resolved(spec, machine, PinKind.BUILTIN)
    if (path := expanded(pin)).is_absolute():
        return Selection(spec, PinKind.PATH, "", path=path)
    if pin != LATEST:
        return _as_released(spec, machine, pin, named=False)
    _must_be_released(spec, pin)
    if not latest:
        return Selection(spec, PinKind.LATEST, "", made_for(spec, machine))
    return _resolved(_with_version(spec, machine, latest, named=True), machine, PinKind.LATEST)


def on_channel(spec: BackendSpec, channel: str) -> BackendSpec:
    """The descriptor as it reads on a channel; one it does not have changes nothing."""
    chosen = spec.channels.get(channel)
    if chosen is None:
        return spec
    runs_on = chosen.runs_on or spec.runs_on
    return spec.model_copy(
        update={"pin": chosen.pin, "runs_on": runs_on, "runtime": chosen.runtime}
    )


def _as_released(spec: BackendSpec, machine: Machine, tag: str, *, named: bool) -> Selection:
    if tag in spec.pin.versions and not gpu_in_tag(spec) and spec.pin.source == "pypi":
        return _resolved(spec, machine, PinKind.BUILTIN, named=named)
    _must_be_released(spec, tag)
    if not is_tag(tag):
        raise UnsupportedHere(
            f"'{tag}' cannot be a version of {spec.id}.",
            remedy="Give 'builtin', 'latest', the tag of a release, or the absolute path of a "
            "program.",
        )
    wanted = _with_version(spec, machine, tag, named=named)
    return _resolved(wanted, machine, PinKind.TAG, named=named)


def _must_be_released(spec: BackendSpec, wanted: str) -> None:
    if spec.pin.source == "github":
        return
    if spec.pin.source == "pypi":
        raise UnsupportedHere(
            f"{spec.id} cannot be had as '{wanted}': only the pinned version {spec.pin.version} "
            "can be verified.",
            remedy="Give 'builtin' or the absolute path of a program.",
        )
    raise UnsupportedHere(
        f"{spec.id} cannot be had as '{wanted}': Lemonade does not install it.",
        remedy="Give 'builtin' or the absolute path of a program.",
    )


def _with_version(spec: BackendSpec, machine: Machine, tag: str, *, named: bool) -> BackendSpec:
    """The descriptor with another version, whose tag may already say which GPU it is for."""
    version = tag
    if gpu_in_tag(spec) and (gpu := deciding_gpu(spec, machine)) is not None:
        ours = family_of(gpu.family)
        version = tag.removesuffix(f"-{ours}").removesuffix(f"-{gpu.family}")
        if version == tag and (other := tag.rpartition("-")[2]).startswith("gfx"):
            raise UnsupportedHere(
                f"{spec.id} {tag} is a build for {other}, and this machine has {gpu.family}.",
                remedy=f"Leave the ending out: '{tag.removesuffix(f'-{other}')}'.",
            )
    if version == spec.pin.version and not named:
        return spec  # it says what was pinned anyway, which may be another one for this GPU
    return with_version(spec, version)


def _resolved(
    spec: BackendSpec, machine: Machine, kind: PinKind, *, named: bool = False
) -> Selection:
    if spec.pin.source != "github":
        return Selection(spec, kind, spec.pin.version, named=named)
    try:
        version = folder_version(spec, machine)
    except UnsupportedHere:  # said by those who judge or plan it; a list shows what is pinned
        version = pinned_version(spec, machine)
    return Selection(spec, kind, version, made_for(spec, machine), named=named)
