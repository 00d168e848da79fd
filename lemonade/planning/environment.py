"""Which of our own variables a child gets: few, and of those that hide devices exactly one.

The environment of a child is built from nothing. What passes is on a list; what an operator said
about devices is put into the one variable that the backend listens to, because engines, and the
libraries below them, disagree about what several of them mean together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Final

from lemonade.catalog.backend import BackendSpec
from lemonade.core.records import dataclass
from lemonade.hardware.facts import QUARANTINED, Machine

HIP: Final = "HIP_VISIBLE_DEVICES"
ROCR: Final = "ROCR_VISIBLE_DEVICES"
CUDA: Final = "CUDA_VISIBLE_DEVICES"

_ALIASES: Final[Mapping[str, tuple[str, ...]]] = {HIP: (HIP, CUDA, "GPU_DEVICE_ORDINAL")}
"""The names that HIP itself looks at, first come, first served."""

_VENDORS: Final[Mapping[str, str]] = {HIP: "amd", ROCR: "amd", CUDA: "nvidia"}
"""Whose GPUs are counted by which name."""

_VISIBILITY: Final = frozenset(
    {
        HIP, ROCR, CUDA, "GPU_DEVICE_ORDINAL", "GGML_VK_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES",
        "ONEAPI_DEVICE_SELECTOR", "ZE_AFFINITY_MASK",
    }
)  # fmt: skip

_PASSED_ON: Final = frozenset(
    {
        # who and where we are
        "HOME", "LANG", "LOGNAME", "PATH", "TMPDIR", "TZ", "USER", "XDG_CACHE_HOME",
        # how devices are counted, and taken for others
        "CUDA_DEVICE_ORDER", "HSA_OVERRIDE_GFX_VERSION", "VK_ICD_FILENAMES",
        # where their libraries are
        "CUDA_HOME", "HIP_PATH", "ROCM_PATH",
        # how many threads
        "GOMP_CPU_AFFINITY", "OMP_NUM_THREADS", "OMP_PLACES", "OMP_PROC_BIND",
        # without these no Windows program starts
        "SYSTEMROOT", "TEMP", "TMP", "USERPROFILE",
    }
)  # fmt: skip
"""Everything else of our environment is withheld: tokens and keys of ours, and settings of Python
and of the dynamic linker that were meant for us and would reach into a bundle."""

_OWN_LIBRARIES: Final = frozenset({"LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"})

CLEAN_PYTHON: Final[Mapping[str, str]] = {
    # Neither ~/.local nor the folder that the server was started in reaches into a bundle.
    "PYTHONNOUSERSITE": "1",
    "PYTHONSAFEPATH": "1",
}


@dataclass(frozen=True, slots=True)
class VisibleDevices:
    """What a child is told of the devices it may see.

    Attributes:
        variables: none or one, unless the program is the operator's own.
        notice: what was made of contradictory wishes; empty if there were none.
    """

    variables: Mapping[str, str] = field(default_factory=dict)
    notice: str = ""


def passed_on(
    environ: Mapping[str, str], backend: BackendSpec, machine: Machine, *, own_program: bool
) -> dict[str, str]:
    """Of our environment what a child gets.

    Args:
        environ: all of it.
        backend: what the child is of.
        machine: where it runs.
        own_program: it is not part of a bundle: it runs with the operator's own libraries.
    """
    wanted = _PASSED_ON | _OWN_LIBRARIES if own_program else _PASSED_ON
    env = {
        name: value for name, value in environ.items() if name in wanted or name.startswith("LC_")
    }
    env.update(visible_devices(environ, backend, machine, own_program=own_program).variables)
    return env


def visible_devices(
    environ: Mapping[str, str], backend: BackendSpec, machine: Machine, *, own_program: bool
) -> VisibleDevices:
    """What an operator's variables mean for a backend, in the one that it listens to."""
    given = {name: environ[name] for name in sorted(_VISIBILITY & environ.keys())}
    if own_program:  # only its owner knows what it listens to
        return VisibleDevices(given)
    name = backend.visible_by
    if not name:
        return VisibleDevices()
    aliases = [alias for alias in _ALIASES.get(name, (name,)) if alias in given]
    if name == HIP and any(gpu.vendor == "nvidia" for gpu in machine.gpus):
        aliases = [alias for alias in aliases if alias != CUDA]  # it speaks of the others
    used = aliases[:1]
    chosen = given[used[0]] if used else None
    if name == HIP and ROCR in given:
        # HIP counts among what ROCR leaves.
        chosen = given[ROCR] if chosen is None else _among(given[ROCR], chosen)
        used.append(ROCR)
    if chosen is None:
        return _hidden(name, machine)
    heeded = {*aliases, *used}
    notice = ""
    if used != [name] or len({given[alias] for alias in heeded}) > 1:
        said = ", ".join(f"{alias}={given[alias]}" for alias in sorted(heeded))
        notice = f"{said} is given to {backend.id} as {name}={chosen}."
    return VisibleDevices({name: chosen}, notice)


def can_hide(backend: BackendSpec) -> bool:
    """Whether it can be kept from using one of several GPUs."""
    return backend.visible_by in _VENDORS


def _hidden(name: str, machine: Machine) -> VisibleDevices:
    """All GPUs but those that are quarantined, where nobody has chosen any."""
    vendor = _VENDORS.get(name, "")
    mine = [gpu for gpu in machine.gpus if gpu.vendor == vendor]
    left = [gpu for gpu in mine if gpu.problem is None or gpu.problem.rule != QUARANTINED]
    if not left or left == mine:
        return VisibleDevices()
    named = vendor == "nvidia" and all(gpu.uuid for gpu in left)
    words = [gpu.uuid if named else str(mine.index(gpu)) for gpu in left]
    hidden = " and ".join(gpu.name for gpu in mine if gpu not in left)
    return VisibleDevices(
        {name: ",".join(words)}, f"{hidden} is not used: memory of it did not come back."
    )


def _among(outer: str, inner: str) -> str:
    """What `inner` picks from the devices listed in `outer`; -1 is none.

    As the driver reads it: a number that means nothing ends the list.
    """
    offered = [word.strip() for word in outer.split(",") if word.strip()]
    picked = []
    for word in (part.strip() for part in inner.split(",")):
        if not word.isdecimal():
            if not word.startswith("GPU-"):
                break
            picked.append(word)
        elif int(word) < len(offered):
            picked.append(offered[int(word)])
        else:
            break
    return ",".join(picked) or "-1"
