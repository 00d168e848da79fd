"""A machine like this one with another GPU, to see what would be installed there."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Final

from lemonade.core.errors import UnsupportedHere
from lemonade.hardware.facts import Evidence, Gpu, Machine

_AMD: Final = re.compile(r"gfx[0-9a-f]{2,3}[0-9a-fX]")
_NVIDIA: Final = re.compile(r"sm_\d{2,3}")


def with_gpu(machine: Machine, family: str) -> Machine:
    """The machine, and in it one GPU of that family (`gfx942`, `sm_86`) and no other.

    What is known about a GPU of that family that is here stays known; one that is not here is
    taken to work.

    Raises:
        UnsupportedHere: that is no family of GPUs.
    """
    here = next((gpu for gpu in machine.gpus if gpu.family == family), None)
    if here is not None:
        return replace(machine, gpus=(here,))
    amd = _AMD.fullmatch(family) is not None
    if not amd and not _NVIDIA.fullmatch(family):
        raise UnsupportedHere(
            f"'{family}' is not a family of GPUs.",
            remedy="AMD's are called like gfx1151 or gfx120X, NVIDIA's like sm_86.",
        )
    gpu = Gpu(
        vendor="amd" if amd else "nvidia",
        name=f"a GPU of {family}",
        family=family,
        integrated=False,
        cwsr_bytes=0,
        ctl_stack_bytes=0,
        seen=Evidence("the request", family),
    )
    return replace(machine, gpus=(gpu,))
