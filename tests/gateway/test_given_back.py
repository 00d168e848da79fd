"""What an unload says of memory: freed, or who holds it."""

from __future__ import annotations

from lemonade.core.process import DeviceHold, ExitReport
from lemonade.gateway.given_back import given_back

GB = 10**9


def report(**held: object) -> ExitReport:
    return ExitReport(0, None, 1.0, expected=True, **held)  # type: ignore[arg-type]


def test_of_several_models_all_counts() -> None:
    one = report(resident_bytes=2 * GB, device_bytes=20 * GB)
    other = report(resident_bytes=GB)
    assert given_back([one, None, other]) == {"freed_bytes": 23 * GB, "still_held": []}
    assert given_back([]) == {"freed_bytes": 0, "still_held": []}


def test_what_a_driver_keeps_is_not_freed() -> None:
    kept = DeviceHold(7, "nvidia:0", 5 * GB, program="/opt/engine/bin/server")
    told = given_back([report(resident_bytes=GB, device_bytes=20 * GB, still_held=(kept,))])
    assert told["freed_bytes"] == 16 * GB
    assert told["still_held"] == [
        {"pid": 7, "program": "server", "alive": False, "device": "nvidia:0", "bytes": 5 * GB}
    ]


def test_who_cannot_be_ended_is_named_once() -> None:
    kept = DeviceHold(7, "0000:03:00.0", 5 * GB, program="/x/engine", start_ticks=99)
    told = given_back(
        [
            report(
                resident_bytes=GB,
                device_bytes=5 * GB,
                survivors=(7, 8),
                survivor_programs=("/x/engine", "/x/worker"),
                still_held=(kept,),
            )
        ]
    )
    assert told["freed_bytes"] == 0
    assert [(one["pid"], one["program"], one["alive"]) for one in told["still_held"]] == [
        (8, "worker", True),
        (7, "engine", True),
    ]


def test_files_it_has_left_in_memory_are_not_freed() -> None:
    told = given_back([report(resident_bytes=3 * GB, left_bytes=GB)])
    assert told["freed_bytes"] == 2 * GB
    (left,) = told["still_held"]
    assert (left["pid"], left["device"], left["bytes"]) == (None, "memory", GB)
