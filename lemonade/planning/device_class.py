"""Which GPUs are left to an engine's own judgement, and which need a careful start."""

from __future__ import annotations

from typing import Final

from lemonade.hardware.facts import Gpu
from lemonade.planning.facts import LaunchFacts
from lemonade.planning.memory import devices_of, on_processor

_OF_DATA_CENTRES: Final = ("gfx9", "sm_70", "sm_80", "sm_90", "sm_100", "sm_103")
"""Beginnings of families with fast memory of their own that nobody else uses, and with compilers
that engines are developed on: AMD Instinct, and NVIDIA's V100, A100, H100, B200 and their kin."""


def is_of_data_centre(gpu: Gpu | None) -> bool:
    """Whether an engine may take what it likes there; an unknown GPU is not."""
    if gpu is None or gpu.integrated:
        return False
    return gpu.family.startswith("gfx9") or gpu.family in _OF_DATA_CENTRES


def careful(facts: LaunchFacts) -> bool:
    """Whether it computes on a GPU whose memory others need and whose graphs cost much."""
    gpus = devices_of(facts)
    return not on_processor(facts) and not is_of_data_centre(gpus[0] if gpus else None)
