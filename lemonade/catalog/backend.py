"""`BackendSpec`: one file of `backends/`, what to install, where it runs and how it is started."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from lemonade.core.errors import MalformedRequest
from lemonade.core.ids import BackendId


class Declared(BaseModel):
    """Written by a human: frozen, and no key passes unread."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class PinSpec(Declared):
    """Where a bundle comes from, and which version.

    Attributes:
        source: `pypi` (packages in a private environment), `system` (an executable on PATH) or
            `path` (only what the operator configures).
        version: the pinned version; empty for `system` and `path`.
        packages: requirements for `pypi`, each pinned with `==`.
        sha256: digest of every file we may fetch, by file name.
        executable: for `system` and `path`: the program's name.
        release_url: page about the releases, for people.
    """

    source: Literal["pypi", "system", "path"]
    version: str = ""
    packages: tuple[str, ...] = ()
    sha256: dict[str, str] = Field(default_factory=dict)
    executable: str = ""
    release_url: str = ""


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
    """

    os: tuple[str, ...] = ()
    cpu: tuple[str, ...] = ()
    cpu_features: tuple[str, ...] = ()
    gpu: tuple[str, ...] = ()
    npu: tuple[str, ...] = ()
    needs: tuple[Literal["cwsr"], ...] = ()


class BundleSpec(Declared):
    """What is in a bundle.

    Attributes:
        argv: the program and its fixed first arguments. Placeholders: `{python}` (interpreter of
            the private environment), `{overlay}` (folder of files shipped beside the descriptor,
            `backends/<stem>.overlay`), `{executable}`.
        smoke: further arguments that make it print its version and exit with 0.
    """

    argv: tuple[str, ...]
    smoke: tuple[str, ...] = ("--version",)


class BackendSpec(Declared):
    """One backend.

    Attributes:
        schema_version: of this file format (`schema` in the file).
        id: `recipe:variant`.
        title: for people.
        preference: lower is tried first when the backend is `auto`.
        devices: what it computes on: `cpu`, `gpu`, `npu`.
        stage: `stable` or `experimental`.
        environment: variables set for the child; same placeholders as `bundle.argv`.
    """

    schema_version: Literal[1] = Field(alias="schema")
    id: str
    title: str
    preference: int
    devices: tuple[Literal["cpu", "gpu", "npu"], ...]
    stage: Literal["stable", "experimental"] = "stable"
    pin: PinSpec
    runs_on: tuple[RunsOnSpec, ...]
    bundle: BundleSpec
    environment: dict[str, str] = Field(default_factory=dict)

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
