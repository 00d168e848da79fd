"""What a look at the machine may ask beside files: NVIDIA's library, one program, the kernel.

They are parameters of `detect`, so that a recorded machine is never mixed with the real one. Both
ways to NVIDIA are taken only after files have shown that its driver is loaded. The one file of
this room that starts a program.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import logging
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from typing import Final, cast

from lemonade.core.records import dataclass
from lemonade.hardware.access import MayOpen, may_open
from lemonade.hardware.nvml import Nvml

log = logging.getLogger(__name__)

RunProgram = Callable[[Sequence[str], float], str | None]
"""Runs a program for so many seconds at most; what it printed, `None` if it did not succeed."""

_DEFAULT_PLACES: Final = "/usr/bin:/bin"
_DYING_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Instruments:
    """What may be asked; the default asks files only.

    Attributes:
        may_open: whether this user may open a device.
        run: runs a program; `None`: no program is run.
        nvml: gives NVIDIA's library, or `None` if there is none.
        rocm_path: where the operator says that ROCm is; may be empty.
    """

    may_open: MayOpen = may_open
    run: RunProgram | None = None
    nvml: Callable[[], Nvml | None] = lambda: None
    rocm_path: str = ""


def real_instruments(environ: Mapping[str, str]) -> Instruments:
    """Those of the machine we run on. `environ` is for its `PATH` and `ROCM_PATH`."""
    path = environ.get("PATH", os.defpath)

    def run(argv: Sequence[str], within: float) -> str | None:
        # A service may have a short PATH; the driver's packages put its programs into /usr/bin.
        program = shutil.which(argv[0], path=f"{path}{os.pathsep}{_DEFAULT_PLACES}")
        return run_program((program, *argv[1:]), within) if program else None

    return Instruments(run=run, nvml=installed_nvml, rocm_path=environ.get("ROCM_PATH", ""))


def installed_nvml() -> Nvml | None:
    """NVIDIA's bindings (`nvidia-ml-py`), if they are installed beside us."""
    if importlib.util.find_spec("pynvml") is None:
        return None
    try:
        return cast("Nvml", importlib.import_module("pynvml"))
    except ImportError:
        return None


def run_program(argv: Sequence[str], within: float) -> str | None:
    """What the program printed; `None` if it failed or took too long.

    It is killed with what it started when its time is over, and not waited for if even that does
    not end it: a program that hangs in a driver cannot be killed, and we would hang with it.
    """
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={"PATH": _DEFAULT_PLACES, "LC_ALL": "C"},
            start_new_session=True,
        )
    except OSError:
        log.debug("%s could not be started", argv[0], exc_info=True)
        return None
    try:
        printed, _ = process.communicate(timeout=within)
    except subprocess.TimeoutExpired:
        log.warning("%s did not answer within %g seconds.", argv[0], within)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_DYING_SECONDS)
        if process.stdout is not None:
            process.stdout.close()
        return None
    return printed.decode(errors="replace") if process.returncode == 0 else None
