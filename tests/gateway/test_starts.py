"""What clients see of an engine that takes its time to start, or hangs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.serving import PATIENCE, ROOT, Serving, eventually, fake_catalog, fake_model, serving

SAID = r"weights\x2020\x20%\nweights\x2080\x20%\nwarming\x20up\n"


@pytest.fixture
def server(home: Path) -> Iterator[Serving]:
    catalog = fake_catalog(home)
    fake_model(catalog, "steady", args=f"--ready-after 0.5 --prints '{SAID}'")
    fake_model(catalog, "endless", args=f"--never-ready --computes --prints '{SAID}'")
    fake_model(catalog, "wedged", args=f"--never-ready --prints '{SAID}'")
    with serving(home, env={"LEMONADE_CATALOG": str(catalog)}) as one:
        yield one


def events(reply: requests.Response) -> list[tuple[str, dict[str, Any]]]:
    assert reply.status_code == 200
    assert reply.headers["Content-Type"].startswith("text/event-stream")
    found = []
    for block in reply.text.strip().split("\n\n"):
        name, data = block.split("\n", 1)
        found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


def test_a_streamed_load_tells_its_phases(server: Serving) -> None:
    told = events(server.post("load", {"model_name": "steady", "stream": True}))
    phases = [(data["phase"], data["percent"]) for name, data in told if name == "progress"]
    assert phases == [("weights", 20), ("weights", 80), ("warm-up", 0)]
    assert told[-1][0] == "complete"
    assert told[-1][1]["status"] == "success"
    assert told[-1][1]["backend"] == "fake:program"
    assert server.chat("steady").status_code == 200
    again = events(server.post("load", {"model_name": "steady", "stream": True}))
    assert [name for name, _ in again] == ["complete"]


def test_health_shows_where_a_start_is(server: Serving) -> None:
    with requests.post(
        f"{server.api}/load", json={"model_name": "endless", "stream": True}, stream=True,
        timeout=PATIENCE,
    ):  # fmt: skip

        def step() -> str:
            rows = server.get("health").json()["models_loading"]
            return str(rows[0]["step"]) if rows else ""

        eventually(lambda: step() == "starting: warm-up", "health names the phase")
    eventually(lambda: not step(), "a load that nobody waits for is given up")


def test_a_start_that_hangs_is_named(server: Serving) -> None:
    body = {"model_name": "wedged", "stall_timeout": 0.5}
    refused = server.post("load", body)
    assert refused.status_code == 500
    message = refused.json()["error"]["message"]
    assert "did nothing for 0.5 s during 'warm-up'" in message
    told = events(server.post("load", {**body, "stream": True}))
    assert told[-1][0] == "error"
    assert "did nothing" in told[-1][1]["error"]["message"]


def test_what_is_refused_is_no_stream(server: Serving) -> None:
    for body, status in (
        ({"model_name": "nobody"}, 404),
        ({"model_name": "steady", "fake_args": "--host x"}, 400),
        ({"model_name": "steady", "stall_timeout": "soon"}, 400),
    ):
        reply = server.post("load", {**body, "stream": True})
        assert (reply.status_code, reply.headers["Content-Type"]) == (
            status,
            "application/json",
        )


def test_the_command_line_shows_them_as_lines(server: Serving) -> None:
    said = subprocess.run(
        [sys.executable, "-m", "lemonade", "load", "steady"],
        env={**os.environ, "LEMONADE_PORT": server.url.rpartition(":")[2],
             "PYTHONPATH": str(ROOT), "HOME": str(server.home)},
        capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert said.returncode == 0, said.stderr
    lines = said.stdout.splitlines()
    start = lines.index("Loading model: steady")
    assert lines[start + 1 : start + 3] == ["  weights 20 %", "  warm-up"]
