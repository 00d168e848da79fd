"""Limits of an engine: what options mean, and what is refused before anything happens."""

from __future__ import annotations

import pytest

from lemonade.core.errors import BadOption
from lemonade.core.process import Limits
from lemonade.planning.limits import LIMIT_OPTIONS, check_limit, plan_limits


def test_nothing_said_is_nothing_limited() -> None:
    assert plan_limits({option.name: option.default for option in LIMIT_OPTIONS}) == Limits()
    assert plan_limits({}) == Limits()


def test_what_the_options_mean() -> None:
    values = {"max_open_files": 4096, "nice": 5, "cpus": "8, 0-2", "max_memory": "2 GiB"}
    assert plan_limits(values) == Limits(4096, 5, (0, 1, 2, 8), 2 << 30)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_open_files", 3),
        ("max_open_files", -1),
        ("max_open_files", 1 << 30),
        ("nice", -5),
        ("nice", 20),
        ("cpus", "3-1"),
        ("cpus", "0,,1"),
        ("cpus", "-1"),
        ("cpus", "most"),
        ("cpus", "0-99999999"),
        ("cpus", "٣"),
        ("max_memory", "lots"),
        ("max_memory", "-1GB"),
        ("max_memory", "1MB"),
    ],
)
def test_what_cannot_be_meant_is_refused(name: str, value: object) -> None:
    with pytest.raises(BadOption) as caught:
        check_limit(name, value)
    assert name in caught.value.message
    assert caught.value.remedy


def test_a_model_may_be_let_off_what_holds_for_all() -> None:
    assert plan_limits({"cpus": "all", "max_memory": "none"}) == Limits()
