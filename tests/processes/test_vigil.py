"""Each sign of work keeps a start alive, and nothing else does."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from lemonade.core.process import DeviceHold, ProbeSpec
from lemonade.supervisor.processes import Effort, effort_of
from lemonade.supervisor.vigil import Vigil

MIB = 1 << 20
WORKS_FOR = 30
"""Looks; four times as many as patience lasts for."""


@dataclass
class Working:
    """Obeys `Watched`: shows one kind of work at each look for a while, and then nothing."""

    kind: str
    step: int
    looks: int = 0

    def _so_far(self) -> int:
        return self.step * min(self.looks, WORKS_FOR)

    async def effort(self) -> Effort:
        self.looks += 1
        if self.kind not in Effort.__slots__:
            return Effort()
        return Effort(**{self.kind: self._so_far()})

    async def of_devices(self) -> tuple[DeviceHold, ...]:
        held = self._so_far() if self.kind == "device" else 0
        return (DeviceHold(1, "gpu", held), DeviceHold(2, "gpu", 7))


async def looks_at(kind: str, step: int) -> int:
    """How often it is looked at until it is given up."""
    working = Working(kind, step)
    printed = (lambda: min(working.looks, WORKS_FOR)) if kind == "printed" else (lambda: 0)
    await Vigil(ProbeSpec("/", stall_timeout=0.08), working, printed).watch()
    return working.looks


@pytest.mark.parametrize(
    ("kind", "step"),
    [
        ("printed", 1),
        ("cpu_seconds", 1),
        ("read_bytes", 1),
        ("written_bytes", 1),
        ("resident_bytes", 2 * MIB),
        ("device", 2 * MIB),
    ],
)
async def test_work_is_seen(kind: str, step: int) -> None:
    assert await looks_at(kind, step) > WORKS_FOR


@pytest.mark.parametrize(
    ("kind", "step"),
    [("nothing", 0), ("resident_bytes", 10), ("device", 10), ("cpu_seconds", 0)],
)
async def test_what_is_no_work_is_none(kind: str, step: int) -> None:
    assert await looks_at(kind, step) < WORKS_FOR


def test_what_a_process_writes_is_read_where_the_kernel_tells() -> None:
    def told() -> int:
        lines = Path("/proc/self/io").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("write_bytes")).split()[1])

    before, seen, after = told(), effort_of([os.getpid()]).written_bytes, told()
    assert before <= seen <= after
