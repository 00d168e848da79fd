"""What clients and operators see of an engine that fails: the record, the rest, the recovery."""

from __future__ import annotations

import json
import os
import signal
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.serving import PATIENCE, Serving, eventually, fake_catalog, fake_model, serving


@pytest.fixture
def server(home: Path) -> Iterator[Serving]:
    catalog = fake_catalog(home)
    fake_model(catalog, "good")
    fake_model(catalog, "steady", args="--chunks 500 --slow-chunks 0.05")
    fake_model(catalog, "dies", args="--exit-at-start 3 --prints hurts")
    fake_model(catalog, "poison", args="--answers crash")
    with serving(home, env={"LEMONADE_CATALOG": str(catalog)}) as one:
        yield one


def kill(server: Serving, model: str) -> None:
    os.kill(server.loaded()[model]["pid"], signal.SIGKILL)


def incident(server: Serving, name: str) -> dict[str, Any]:
    reply = server.get(f"incidents/{name}")
    assert reply.status_code == 200, reply.text
    record: dict[str, Any] = reply.json()
    return record


def test_a_failed_start_is_recorded_and_the_third_gives_it_a_rest(
    server: Serving, home: Path
) -> None:
    replies = [server.post("load", {"model_name": "dies"}) for _ in range(3)]
    assert [reply.status_code for reply in replies] == [500, 500, 500]
    told = replies[0].json()["error"]
    record = incident(server, told["incident"])
    assert (record["kind"], record["model"]) == ("start-failed", "dies")
    assert (record["exit_status"], record["signal"]) == (3, None)
    assert record["argv"][-2:] == ["--prints", "hurts"]
    assert record["backend"] == "fake:program"
    assert record["options"] == {"fake_args": "--exit-at-start 3 --prints hurts"}

    started = server.log().count("dies: starting")
    refused = server.post("load", {"model_name": "dies"})
    assert refused.status_code == 503
    assert 1 <= int(refused.headers["Retry-After"]) <= 60
    error = refused.json()["error"]
    assert error["incident"] == replies[2].json()["error"]["incident"]
    assert error["facts"]["failures"] == 3
    assert server.chat("dies").status_code == 503
    streamed = server.post("load", {"model_name": "dies", "stream": True})
    assert streamed.status_code == 503
    assert server.log().count("dies: starting") == started

    (failing,) = server.get("health").json()["models_failing"]
    assert failing["model_name"] == "dies"
    assert failing["failures"] == 3
    assert failing["open_until"] > 0
    assert failing["incident"] == error["incident"]

    insisted = server.post("load", {"model_name": "dies", "force": True})
    assert insisted.status_code == 500
    assert server.log().count("dies: starting") > started

    found = server.get("incidents?limit=2").json()["incidents"]
    assert len(found) == 2
    assert found[0]["id"] > found[1]["id"]
    file = home / "cache" / "state" / "incidents" / f"{found[1]['id']}.json"
    eventually(file.exists, "it is on the disk")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_request_without_an_answer_is_asked_again_once_and_counted_once(
    server: Serving,
) -> None:
    reply = server.chat("poison")
    assert reply.status_code == 502
    error = reply.json()["error"]
    record = incident(server, error["incident"])
    assert record["kind"] == "crashed"
    assert record["signal"] == signal.SIGABRT
    assert record["requests"] == 1
    assert "no kernel image" in record["last_lines"][-1]
    assert "Hello" not in json.dumps(record)
    found = server.get("incidents?model=poison").json()["incidents"]
    assert [one["kind"] for one in found] == ["crashed", "crashed"]
    assert server.log().count("poison chat: 502") == 1


def test_a_stream_that_lost_its_engine_ends_with_an_event_that_names_the_incident(
    server: Serving,
) -> None:
    with server.chat("steady", stream=True) as reply:
        lines = reply.iter_lines()
        assert next(lines).startswith(b"data: ")
        kill(server, "steady")
        rest = [line for line in lines if line.startswith(b"data: ")]
    error = json.loads(rest[-1].removeprefix(b"data: "))["error"]
    assert error["code"] == "connection_lost"
    record = incident(server, error["incident"])
    assert record["signal"] == signal.SIGKILL
    assert record["requests"] == 1


def test_a_pinned_model_that_crashes_is_loaded_again(server: Serving) -> None:
    assert server.post("load", {"model_name": "good", "pinned": True}).status_code == 200
    before = server.loaded()["good"]["pid"]
    kill(server, "good")

    def revived() -> bool:
        row = server.loaded().get("good")
        return row is not None and row["pid"] not in (None, before)

    eventually(revived, "it is loaded again")
    assert server.loaded()["good"]["pinned"] is True
    (failing,) = server.get("health").json()["models_failing"]
    assert (failing["failures"], failing["open_until"]) == (1, None)
    assert server.chat("good").status_code == 200


def test_the_records_are_there_for_the_next_server(home: Path) -> None:
    catalog = fake_catalog(home)
    fake_model(catalog, "dies", args="--exit-at-start 3")
    env = {"LEMONADE_CATALOG": str(catalog)}
    with serving(home, env=env) as server:
        name = server.post("load", {"model_name": "dies"}).json()["error"]["incident"]
    with serving(home, env=env) as server:
        assert incident(server, name)["id"] == name


@pytest.mark.parametrize("name", ["nothing", "..%2Fchildren", "261121-115604-312"])
def test_an_incident_that_is_not_there_is_said_so(server: Serving, name: str) -> None:
    reply = requests.get(f"{server.api}/incidents/{name}", timeout=PATIENCE)
    assert reply.status_code == 404
    assert "lemonade incidents" in reply.json()["error"]["message"] or "%2F" in name


def test_a_limit_must_be_a_number(server: Serving) -> None:
    assert server.get("incidents?limit=many").status_code == 400
