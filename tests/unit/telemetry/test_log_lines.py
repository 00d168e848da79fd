"""Records of the server's log as JSON: one line each, whatever they hold."""

from __future__ import annotations

import json
import logging
import sys
from datetime import datetime
from typing import Any

from lemonade.telemetry import JsonLines


def written(text: object, *args: object, name: str = "lemonade.x", **more: Any) -> dict[str, Any]:
    record = logging.LogRecord(
        name, logging.WARNING, "/x.py", 1, text, args, more.pop("exc", None)
    )
    for key, value in more.items():
        setattr(record, key, value)
    line = JsonLines().format(record)
    assert "\n" not in line
    assert line.isascii()
    found: dict[str, Any] = json.loads(line)
    return found


def test_a_record() -> None:
    one = written("%s is ready after %.1f s", "one", 2.0, request_id="r-1")
    assert datetime.fromisoformat(one.pop("time")).tzinfo is not None
    assert one.pop("pid") > 0
    assert one == {
        "level": "warning",
        "logger": "lemonade.x",
        "message": "one is ready after 2.0 s",
        "request_id": "r-1",
    }


def test_noise_is_harmless() -> None:
    text = "a\nb\r\x00\x1b[31m \ud800 ü " + "x" * 100_000
    assert written("%s", text)["message"] == text


def test_what_an_engine_printed_names_its_model() -> None:
    assert written("x", name="lemonade.child.Tiny-1.5")["model"] == "Tiny-1.5"


def test_a_traceback_is_part_of_its_record() -> None:
    try:
        raise ValueError("why")
    except ValueError:
        one = written("failed", exc=sys.exc_info())
    assert one["exception"].endswith("ValueError: why")
    assert "request_id" not in one
