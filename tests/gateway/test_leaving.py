"""The end of a server is bounded and complete, whatever its engines and its threads do."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
from contextlib import suppress
from pathlib import Path

import requests

from tests.serving import PATIENCE, Serving, eventually, fake_catalog, fake_model, gone, serving

STUBBORN = ("deaf", "brood", "hiding")


def stubborn(home: Path) -> dict[str, str]:
    folder = fake_catalog(home)
    fake_model(folder, "deaf", args="--ignore-term")
    fake_model(
        folder, "brood", args="--ignore-term --spawn-engine --engine-ignores-term --engine-escapes"
    )
    fake_model(
        folder, "hiding", args="--ignore-term --spawn-engine --double-fork --engine-has-worker"
    )
    return {"LEMONADE_CATALOG": str(folder)}


def loaded(server: Serving) -> list[int]:
    """Pids of the engines, and of what they have started."""
    for name in STUBBORN:
        assert server.post("load", {"model_name": name}).status_code == 200
    found = [row["pid"] for row in server.loaded().values()]
    folder = server.home / "cache" / "state" / "logs"

    def started() -> list[str]:
        text = "".join(path.read_text() for path in folder.glob("*.log"))
        return re.findall(r"(?:engine-core|worker) (\d+)", text)

    eventually(lambda: len(started()) == 3, "they have started more")
    return [*found, *map(int, started())]


def test_engines_that_do_not_listen_are_ended_side_by_side(home: Path) -> None:
    config = {"max_loaded_models": -1}
    with serving(home, env=stubborn(home), config=config) as server:
        pids = loaded(server)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(PATIENCE) == 0
        log = server.log()
    assert [pid for pid in pids if not gone(pid)] == []
    begun = [log.index(f"{name} is being ended") for name in STUBBORN]
    ended = [log.index(f"{name} ended by SIGKILL") for name in STUBBORN]
    assert max(begun) < min(ended), "all were asked before the first had to be killed"
    assert list((home / "cache" / "state" / "children").glob("*.json")) == []


def test_a_second_signal_kills_all_of_them_at_once(home: Path) -> None:
    recipe = fake_catalog(home) / "recipes" / "fake.toml"
    env = stubborn(home)
    recipe.write_text(recipe.read_text().replace('stop_grace = "1s"', 'stop_grace = "10m"'))
    with serving(home, env=env, config={"max_loaded_models": -1}) as server:
        pids = loaded(server)
        server.process.send_signal(signal.SIGINT)
        eventually(lambda: "Shutting down" in server.log(), "the first is heard")
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(PATIENCE) == 0
    assert [pid for pid in pids if not gone(pid)] == []


def test_a_third_signal_ends_a_server_that_waits_for_a_disk(home: Path) -> None:
    """A thread that hangs in the kernel would be waited for without end."""
    with serving(home, env=stubborn(home)) as server:
        folder = home / "cache" / "state" / "incidents"
        folder.mkdir(exist_ok=True)
        os.mkfifo(folder / "261121-115604-312.json")

        def hang() -> None:
            with suppress(requests.RequestException):
                server.get("incidents/261121-115604-312")

        asking = threading.Thread(target=hang)
        asking.start()
        assert server.post("load", {"model_name": "deaf"}).status_code == 200
        pid = server.loaded()["deaf"]["pid"]
        server.process.send_signal(signal.SIGTERM)
        eventually(lambda: "Shutting down" in server.log(), "the first is heard")
        for number in (signal.SIGINT, signal.SIGTERM):
            server.process.send_signal(number)
            eventually(lambda: gone(pid), "the engine is killed")
        assert server.process.wait(PATIENCE) == 70
        asking.join()
        assert "does not come to its end" in server.log()


def test_the_log_can_be_had_as_records(home: Path) -> None:
    env = {**stubborn(home), "LEMONADE_CI_MODE": "1"}
    with serving(home, env=env, config={"log_format": "json"}) as server:
        assert server.chat("brood").status_code == 200
        server.post("unload")
    lines = [line for line in server.log().splitlines() if line.startswith("{")]
    records = [json.loads(line) for line in lines]
    assert {"time", "level", "logger", "pid", "message"} <= set(records[0])
    assert any(one.get("model") == "brood" for one in records), "what an engine printed"
    assert any(one.get("request_id") for one in records)
    assert any("Bye" in one["message"] for one in records)
