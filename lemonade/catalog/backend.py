"""`BackendSpec`: one file of `backends/`, what to install, where it runs and how it is started."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from lemonade.catalog.lock import LockedPackage, normal_name
from lemonade.core.errors import BadSetting, MalformedRequest
from lemonade.core.ids import BackendId
from lemonade.core.units import parse_duration

_MINOR_PYTHON: Final = re.compile(r"3\.\d+")
_PROVIDED: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")

SlotPolicy = Literal["standard", "exclusive-npu", "coexist-by-type", "unmetered"]


class Declared(BaseModel):
    """Written by a human: frozen, and no key passes unread."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class AssetSpec(Declared):
    """One file of a release, and the machines it is for; the first that fits is taken.

    Attributes:
        name: as the release has it. Placeholders: `{version}`, `{number}` (that without a `v` in
            front), `{short}` (without a number in its middle), `{gfx}` (`gfx1201`), `{family}`
            (`gfx120X`), `{sm}` (`sm_86`), `{os}`, `{cpu}`; `*` stands for anything.
        os: `linux`, `windows`, `macos`; empty is any.
        cpu: `x86_64`, `arm64`; empty is any.
        parts: whether it may have been split, which a file `NAME.partcount` says.
    """

    name: str
    os: tuple[str, ...] = ()
    cpu: tuple[str, ...] = ()
    parts: bool = False


class PinSpec(Declared):
    """Where a bundle comes from, and which version.

    Attributes:
        source: `github` (files of a release), `pypi` (packages in a private environment), `system`
            (an executable on PATH) or `path` (only what the operator configures).
        version: the pinned version; empty for `system` and `path`.
        packages: requirements for `pypi`, each pinned with `==`.
        lock: for `pypi`, instead of `packages` and `sha256`: a file beside the descriptor with
            every package, its version and the digests of its files.
        locked: what is in it; filled in by whoever reads the descriptor.
        provides: for `pypi`: distributions that are only said to be there, name and version, for
            engines that ask for themselves by another name than the one they are published under.
        python: for `pypi`: the versions of Python there are files for (`3.11`); empty is any.
        sha256: digest of the files we may fetch, by file name. For `pypi` of every one; for
            `github` it may be left out, then the digest that the release publishes holds.
        executable: the program's name; for `github` exactly one file of the archive has it.
        release_url: page about the releases, for people.
        repository: for `github`: `owner/name`.
        tag: for `github`: the release's tag; same placeholders as `assets.name`, but `*`.
        assets: for `github`: the files, for each kind of machine one.
        base_for: for `github`: other versions for some GPUs, by `{gfx}` or `{family}`.
    """

    source: Literal["github", "pypi", "system", "path"]
    version: str = ""
    packages: tuple[str, ...] = ()
    lock: str = ""
    locked: tuple[LockedPackage, ...] = ()
    provides: dict[str, str] = Field(default_factory=dict)
    python: tuple[str, ...] = ()
    sha256: dict[str, str] = Field(default_factory=dict)
    executable: str = ""
    release_url: str = ""
    repository: str = ""
    tag: str = "{version}"
    assets: tuple[AssetSpec, ...] = ()
    base_for: dict[str, str] = Field(default_factory=dict)

    @property
    def fetched(self) -> bool:
        """Whether Lemonade installs it; otherwise it is on the machine or is not."""
        return self.source in ("github", "pypi")

    @property
    def versions(self) -> tuple[str, ...]:
        """The pinned versions, on whatever machine."""
        return tuple(dict.fromkeys((self.version, *self.base_for.values())))

    @model_validator(mode="after")
    def _packages_are_pinned_once(self) -> Self:
        given = {
            "lock": bool(self.lock),
            "provides": bool(self.provides),
            "python": bool(self.python),
        }
        if self.source != "pypi":
            for key in (key for key, there in given.items() if there):
                raise ValueError(f"'{key}' means something for the source pypi only")
        if self.locked:
            raise ValueError("'locked' is what the file 'lock' holds; it cannot be given")
        if self.lock and (self.packages or self.sha256):
            raise ValueError("'lock' says what 'packages' and 'sha256' would; give one of them")
        if "/" in self.lock or "\\" in self.lock:
            raise ValueError("'lock' must be the name of a file beside this one")
        for python in self.python:
            if not _MINOR_PYTHON.fullmatch(python):
                raise ValueError(f"'{python}' is no version of Python as in 3.11")
        for word in (*self.provides, *self.provides.values()):
            if not _PROVIDED.fullmatch(word):
                raise ValueError(f"'{word}' in 'provides' is no name or version")
        return self

    def with_lock(self, locked: tuple[LockedPackage, ...]) -> Self:
        """The same with what its lock holds.

        Raises:
            ValueError: what it provides is among the packages.
        """
        names = {package.name for package in locked}
        for name in self.provides:
            if normal_name(name) in names:
                raise ValueError(f"{name} is one of its packages, so it need not be provided")
        return self.model_copy(update={"locked": locked})

    @model_validator(mode="after")
    def _a_release_is_whole(self) -> Self:
        given = {
            "repository": bool(self.repository),
            "assets": bool(self.assets),
            "base_for": bool(self.base_for),
        }
        if self.source != "github":
            for key in (key for key, there in given.items() if there):
                raise ValueError(f"'{key}' means something for the source github only")
            return self
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", self.repository):
            raise ValueError("'repository' must be owner/name")
        for version in self.versions:  # it becomes the name of a folder
            if not re.fullmatch(r"[A-Za-z0-9][\w.+-]*", version):
                raise ValueError(f"'{version}' cannot be a version")
        if not self.assets:
            raise ValueError("'assets' must name at least one file")
        if not self.executable or "/" in self.executable:
            raise ValueError("'executable' must be the name of a program in the archive")
        return self


class RunsOnSpec(Declared):
    """One row of the support matrix; a machine must match every key that is given.

    Attributes:
        os: `linux`, `windows`, `macos`.
        cpu: `x86_64`, `arm64`.
        cpu_features: flags as /proc/cpuinfo names them; all of them must be there. Only looked at
            on x86_64.
        gpu: GPU families; a trailing `X` stands for the last digit (`gfx110X`), a trailing `*` for
            any end (`gfx*`).
        npu: NPU families (`XDNA2`).
        needs: what the system must do for that device beside having its driver. `cwsr`: the kernel
            says how much a gfx1151 needs to save its queues.
        automatic: whether it is taken there when nobody named it. Where it is off, the backend
            runs, and is taken once it is installed or named.
    """

    os: tuple[str, ...] = ()
    cpu: tuple[str, ...] = ()
    cpu_features: tuple[str, ...] = ()
    gpu: tuple[str, ...] = ()
    npu: tuple[str, ...] = ()
    needs: tuple[Literal["cwsr"], ...] = ()
    automatic: bool = True


class RuntimeSpec(Declared):
    """Libraries that builds need and come without; the system's own, or one that is fetched.

    Attributes:
        name: of the folder in which all backends that need it share it.
        version: what the builds were made for.
        os: systems that it is needed on.
        library: the file that shows that it is there.
        libraries: folders below its root in which engines find libraries.
        base_url: where its publisher has it.
        url_variable: variable that names another place.
        file: the archive below `base_url`. Placeholders: `{version}` and `{variant}`.
        variants: what `{variant}` is, by `{gfx}`; a GPU that is not listed is its own.
        sha256: digests of archives, by file name; without one the first archive is believed.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    version: str = Field(pattern=r"^[0-9]+(\.[0-9]+)+$")
    os: tuple[str, ...] = ("linux",)
    library: str
    libraries: tuple[str, ...] = ("lib", "lib64")
    base_url: str
    url_variable: str = ""
    file: str
    variants: dict[str, str] = Field(default_factory=dict)
    sha256: dict[str, str] = Field(default_factory=dict)


class ChannelSpec(Declared):
    """Another line of builds of the same backend, for those who choose it.

    Attributes:
        pin: where they come from; takes the place of the backend's own.
        runs_on: its support matrix; empty is the backend's own.
        runtime: what they need besides; nothing, if it is left out.
    """

    pin: PinSpec
    runs_on: tuple[RunsOnSpec, ...] = ()
    runtime: RuntimeSpec | None = None


class BundleSpec(Declared):
    """What is in a bundle.

    Attributes:
        argv: the program and its fixed first arguments. Placeholders: `{python}` (interpreter of
            the private environment), `{overlay}` (folder of files shipped beside the descriptor,
            `backends/<stem>.overlay`), `{executable}`, `{folder}` (where the executable is).
        smoke: further arguments that make it print something about itself and exit with 0.
        smoke_within: how long that may take, seconds.
    """

    argv: tuple[str, ...]
    smoke: tuple[str, ...] = ("--version",)
    smoke_within: float = 60.0

    @field_validator("smoke_within", mode="before")
    @classmethod
    def _duration(cls, value: str | float) -> float:
        try:
            return parse_duration(value)
        except BadSetting as error:
            raise ValueError(str(error)) from error


class BackendSpec(Declared):
    """One backend.

    Attributes:
        schema_version: of this file format (`schema` in the file).
        id: `recipe:variant`.
        title: for people.
        preference: lower is tried first when the backend is `auto`.
        devices: what it computes on: `cpu`, `gpu`, `npu`.
        stage: `stable` or `experimental`.
        embedded: whether it is what Lemonade shows itself with: small, and to be had anywhere.
        slots: how its residents share the machine, if not as the recipe says.
        not_for: checkpoints it cannot run, though its recipe can: patterns with `*`, in small
            letters, for the repository or the whole name.
        environment: variables set for the child; same placeholders as `bundle.argv`.
        visible_by: the variable that tells it which devices it may see; empty if none does.
        runtime: libraries that its builds need and come without.
        channels: other lines of builds by name; `pin` itself is the channel `stable`.
        channel_setting: key of `config.json` that names the channel.
        files: SHA-256 of files beside the descriptor that belong to it, by their path from its
            folder.
        defaults: the same, but where the server was started with a variable of that name, its
            value holds.
    """

    schema_version: Literal[1] = Field(alias="schema")
    id: str
    title: str
    preference: int
    devices: tuple[Literal["cpu", "gpu", "npu"], ...]
    stage: Literal["stable", "experimental"] = "stable"
    embedded: bool = False
    slots: SlotPolicy | None = None
    not_for: tuple[str, ...] = ()
    pin: PinSpec
    runs_on: tuple[RunsOnSpec, ...]
    bundle: BundleSpec
    environment: dict[str, str] = Field(default_factory=dict)
    defaults: dict[str, str] = Field(default_factory=dict)
    visible_by: Literal[
        "", "HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES", "GGML_VK_VISIBLE_DEVICES"
    ] = ""
    runtime: RuntimeSpec | None = None
    channels: dict[str, ChannelSpec] = Field(default_factory=dict)
    channel_setting: str = ""
    files: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _channels_can_be_chosen(self) -> Self:
        if bool(self.channels) != bool(self.channel_setting):
            raise ValueError("'channels' and 'channel_setting' belong together")
        return self

    @field_validator("id")
    @classmethod
    def _id_has_two_parts(cls, value: str) -> str:
        try:
            BackendId.parse(value)
        except MalformedRequest as error:
            raise ValueError(f"'{value}' is not recipe:variant in small letters") from error
        return value

    @property
    def backend_id(self) -> BackendId:
        """`id`, parsed."""
        return BackendId.parse(self.id)

    def runs(self, checkpoint: str) -> bool:
        """Whether it can run such a checkpoint, as far as its name says."""
        name = checkpoint.lower()
        names = {name, name.partition(":")[0]}
        return not any(fnmatchcase(one, pattern) for one in names for pattern in self.not_for)
