"""Which libraries a build needs besides its own, and whether this machine has them already.

Some builds come without the runtime of their accelerator, which is several times their size and
the same for all of them. If the system's own fits, it is used; otherwise one is fetched, once for
each kind of GPU, and shared.
"""

from __future__ import annotations

from collections.abc import Mapping

from lemonade.catalog.backend import BackendSpec, RuntimeSpec
from lemonade.core.records import dataclass
from lemonade.hardware.facts import Machine, RocmRoot
from lemonade.planning.support import deciding_gpu


@dataclass(frozen=True, slots=True)
class RuntimePlan:
    """The runtime for one backend on one machine.

    Attributes:
        name: what it is; also the folder it is shared in.
        version: as its publisher names it.
        folder: below `name`: the GPU it is for, and the version.
        system: root of the system's own, which is used then; otherwise empty, and it is fetched.
        base_url: where its publisher has it.
        url_variable: variable that names another place.
        path: of the file, below that.
        sha256: pinned digest, or empty.
        library: file that must be in one of `libraries`.
        libraries: folders that engines look for libraries in, below its root.
    """

    name: str
    version: str
    folder: str
    system: str
    base_url: str
    url_variable: str
    path: str
    sha256: str
    library: str
    libraries: tuple[str, ...]

    @property
    def file(self) -> str:
        """The name of what is fetched."""
        return self.path.rpartition("/")[2]

    def url(self, environ: Mapping[str, str]) -> str:
        """Where it is fetched from."""
        return f"{(environ.get(self.url_variable) or self.base_url).rstrip('/')}/{self.path}"


def plan_runtime(spec: BackendSpec, machine: Machine) -> RuntimePlan | None:
    """Decide what the backend's builds need here; `None` if nothing."""
    runtime = spec.runtime
    gpu = deciding_gpu(spec, machine)
    if runtime is None or gpu is None or gpu.vendor != "amd" or machine.os not in runtime.os:
        return None
    fitting = (root.path for root in machine.rocm if _fits(root, runtime))
    variant = runtime.variants.get(gpu.family, gpu.family)
    path = runtime.file.replace("{variant}", variant).replace("{version}", runtime.version)
    return RuntimePlan(
        name=runtime.name,
        version=runtime.version,
        folder=f"{gpu.family}-{runtime.version}",
        system=next(fitting, ""),
        base_url=runtime.base_url,
        url_variable=runtime.url_variable,
        path=path,
        sha256=runtime.sha256.get(path.rpartition("/")[2], ""),
        library=runtime.library,
        libraries=runtime.libraries,
    )


def _fits(root: RocmRoot, runtime: RuntimeSpec) -> bool:
    """Whom an operator names is believed if it is nearly the same; what just lies there, less."""
    wanted = runtime.version.split(".")
    has = root.version.split(".") if root.version else []
    if root.named:
        return not has or has[:2] == wanted[:2]
    shorter = min(len(has), len(wanted))
    return shorter > 1 and has[:shorter] == wanted[:shorter]
