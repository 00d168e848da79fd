"""From settings and options to how patient we are; policies may change while they are used."""

from __future__ import annotations

import pytest

from lemonade.config import Settings
from lemonade.core.ids import IncidentId
from lemonade.residency import Circuits, CrashPolicy, crash_policy, hang_policy
from lemonade.residency.policies import patience_with
from lemonade.residency.wellness import HangPolicy, Look, Patience, Wellness
from tests.residency.stage import CATALOG

RECIPE = CATALOG.recipe("llamacpp")
NEVER = Patience()


def settings(**groups: dict[str, object]) -> Settings:
    return Settings.model_validate(groups)


def test_the_defaults_of_the_settings_are_those_of_the_policies() -> None:
    assert crash_policy(Settings()) == CrashPolicy()
    assert hang_policy(Settings()) == HangPolicy()


def test_every_number_can_be_decided() -> None:
    chosen = settings(
        crash={
            "failures": 5, "window_s": 1, "backoff_first_s": 2, "backoff_max_s": 3,
            "backoff_jitter": 0.5, "open_s": 4, "open_max_s": 5,
        },
        hang={"watch": False, "timeout_s": 6, "idle_s": 7},
    )  # fmt: skip
    assert crash_policy(chosen) == CrashPolicy(5, 1, 2, 3, 0.5, 4, 5)
    assert hang_policy(chosen) == HangPolicy(idle_patience=7, watch=False, timeout=6)


@pytest.mark.parametrize(
    ("group", "options", "expected"),
    [
        ({}, {}, Patience(30, 300, 99)),
        ({"timeout_s": 5}, {}, Patience(30, 5, 5)),
        ({"timeout_s": 5, "idle_s": 2}, {"hang_timeout": 7}, Patience(2, 7, 7)),
        ({"timeout_s": 5}, {"hang_timeout": 0}, Patience(30, 5, 5)),
        ({"watch": False}, {}, NEVER),
        ({"watch": False}, {"watch_hangs": True}, Patience(30, 300, 99)),
        ({}, {"watch_hangs": False, "hang_timeout": 7}, NEVER),
        ({"watch": False}, {"watch_hangs": None}, NEVER),
    ],
)
def test_the_model_decides_before_the_server_and_that_before_the_recipe(
    group: dict[str, object], options: dict[str, object], expected: Patience
) -> None:
    policy = hang_policy(settings(hang=group))
    assert patience_with(policy, RECIPE, options, stall_timeout=99) == expected


def test_who_is_not_watched_never_hangs() -> None:
    wellness = Wellness()
    for now in range(0, 10_000, 5):
        look = Look(float(now), healthy=False, requests=now % 2, silence=float(now))
        assert wellness.hangs(look, NEVER) == ""


def failing(circuits: Circuits, times: int = 1, *, severe: bool = False) -> None:
    for _ in range(times):
        circuits.failed("f", key="k", model="m", incident=IncidentId("1"), severe=severe)


def test_a_circuit_that_may_not_open_does_not() -> None:
    circuits = Circuits(lambda: CrashPolicy(failures=0), clock=lambda: 0.0, chance=lambda: 0.0)
    failing(circuits, 9, severe=True)
    assert circuits.open("f") is None
    assert circuits.wait("f") == 60.0


def test_a_change_of_the_policy_is_felt_at_the_next_failure() -> None:
    policies = [CrashPolicy(failures=9)]
    circuits = Circuits(lambda: policies[-1], clock=lambda: 0.0, chance=lambda: 1.0)
    failing(circuits, 2)
    assert circuits.wait("f") == 1.2
    policies.append(CrashPolicy(failures=3, first_pause=7.0))
    failing(circuits)
    opened = circuits.open("f")
    assert opened is not None
    assert opened.retry_after == 7.0
