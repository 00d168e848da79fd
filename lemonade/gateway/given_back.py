"""What an unload has given back, and who holds what it has not."""

from __future__ import annotations

from collections.abc import Iterable

from lemonade.core.inference import JsonObject
from lemonade.core.process import ExitReport


def given_back(reports: Iterable[ExitReport | None]) -> JsonObject:
    """What engines that have ended held when they were last seen, and what is not free yet.

    `reports` are theirs; `None` is one that never had an engine.
    """
    still_held: list[JsonObject] = []
    freed = 0
    for report in reports:
        if report is None:
            continue
        programs = dict(zip(report.survivors, report.survivor_programs, strict=False))
        holding = {one.pid for one in report.still_held}
        still_held += [
            _holder(pid, programs.get(pid, ""), alive=True)
            for pid in report.survivors
            if pid not in holding
        ]
        still_held += [
            _holder(one.pid, one.program, one.device, one.bytes, alive=one.start_ticks > 0)
            for one in report.still_held
        ]
        if report.left_bytes:
            still_held.append(_holder(None, "", "memory", report.left_bytes, alive=False))
        # Of those that live on it is not known what part of main memory is theirs.
        if not report.survivors:
            freed += max(0, report.resident_bytes - report.left_bytes)
        freed += max(0, report.device_bytes - sum(one.bytes for one in report.still_held))
    return {"freed_bytes": freed, "still_held": still_held}


def _holder(
    pid: int | None, program: str, device: str = "", size: int | None = None, *, alive: bool
) -> JsonObject:
    name = program.rpartition("/")[2]
    return {"pid": pid, "program": name, "alive": alive, "device": device, "bytes": size}
