"""One look at the machine: asks each detector, keeps what answers, records what could not.

A detector that fails never takes the others down, and a device that is there but cannot be used is
part of the answer with its reason. Reads files, some milliseconds' worth, and asks more only about
NVIDIA's GPUs where there are any and the caller has given the means. Writes nothing, opens no
device, needs no privileges.
"""

from __future__ import annotations

import logging
import os
import platform
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from lemonade.hardware import linux
from lemonade.hardware.amd import find_amd_gpus
from lemonade.hardware.facts import Cpu, Gpu, Machine, Npu, RocmRoot
from lemonade.hardware.instruments import Instruments
from lemonade.hardware.nvidia import find_nvidia_gpus
from lemonade.hardware.rocm import find_rocm
from lemonade.hardware.xdna import find_xdna_npus

log = logging.getLogger(__name__)

T = TypeVar("T")

_SYSTEMS: Final = {"darwin": "macos", "win32": "windows"}
_FILES_ONLY: Final = Instruments()
_FAMILIES: Final = {"amd64": "x86_64", "x86_64": "x86_64", "aarch64": "arm64", "arm64": "arm64"}


def detect(root: Path = Path("/"), instruments: Instruments = _FILES_ONLY) -> Machine:
    """What this machine is. Never raises.

    Args:
        root: where `/proc`, `/sys`, `/dev` and `/etc` are.
        instruments: what may be asked beside files.
    """
    problems: list[str] = []

    def ask(what: str, detector: Callable[[Path], T], otherwise: T) -> T:
        try:
            return detector(root)
        except (OSError, ValueError, LookupError) as error:
            log.debug("%s could not be detected", what, exc_info=True)
            problems.append(f"{what} could not be detected: {error}.")
            return otherwise

    if sys.platform != "linux":
        return _elsewhere()
    unknown = Cpu("unknown", "unknown", 1, 1, frozenset())
    no_gpus: tuple[Gpu, ...] = ()
    no_npus: tuple[Npu, ...] = ()
    no_rocm: tuple[RocmRoot, ...] = ()
    return Machine(
        os="linux",
        os_version=ask("The operating system", linux.os_version, "Linux"),
        kernel=ask("The kernel", linux.kernel, ""),
        cpu=ask("The processor", linux.cpu, unknown),
        memory_bytes=ask("The memory", linux.memory_bytes, 0),
        gpus=ask("AMD GPUs", partial(find_amd_gpus, instruments=instruments), no_gpus)
        + ask("NVIDIA GPUs", partial(find_nvidia_gpus, instruments=instruments), no_gpus),
        npus=ask("NPUs", partial(find_xdna_npus, instruments=instruments), no_npus),
        rocm=ask("ROCm", partial(find_rocm, named=instruments.rocm_path), no_rocm),
        problems=tuple(problems),
    )


def _elsewhere() -> Machine:
    """What psutil and the standard library know where we have no detectors of our own."""
    import psutil  # 7 ms and 0.9 MiB that a server on Linux does without

    return Machine(
        os=_SYSTEMS.get(sys.platform, sys.platform),
        os_version=platform.platform(terse=True),
        kernel=platform.release(),
        cpu=Cpu(
            name=platform.processor() or platform.machine(),
            family=_FAMILIES.get(platform.machine().lower(), "unknown"),
            cores=psutil.cpu_count(logical=False) or 1,
            threads=os.cpu_count() or 1,
            features=frozenset(),
        ),
        memory_bytes=psutil.virtual_memory().total,
        problems=("GPUs and NPUs are looked for on Linux only.",),
    )
