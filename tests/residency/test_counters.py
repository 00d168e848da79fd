"""What counters on a page of metrics add up to."""

from __future__ import annotations

import pytest

from lemonade.residency.counters import total

PAGE = b"""\
# HELP x:made_total Made.
# TYPE x:made_total counter
x:made_total{a="1",b="}"} 2
x:made_total{a="2"} 3.5e1 1700000000000
x:made_total_more 100
x:other 7
x:broken nothing
"""


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["x:made_total"], 37.0),
        (["x:made_total", "x:other"], 44.0),
        (["x:none"], None),
        ([], None),
    ],
)
def test_samples_of_the_names_are_added_up(names: list[str], expected: float | None) -> None:
    assert total(PAGE, names) == expected


def test_what_is_no_page_has_no_counters() -> None:
    assert total(b"\xff\x00<html>", ["x"]) is None
