"""Engines that outlive their server: who kept them, who takes them over, and who does not."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import requests

from tests.keeping.conftest import (
    KEEP,
    files,
    kept,
    killed,
    loaded,
    taken_over,
    unloaded,
)
from tests.serving import PATIENCE, environment, eventually, gone, serving, survivors

pytestmark = pytest.mark.slow


def no_load_since(text: str, before: str) -> None:
    assert "starting" not in text[len(before) :]


def test_a_killed_server_leaves_its_engine_to_the_next(home: Path, env: dict[str, str]) -> None:
    with serving(home, *KEEP, env=env) as first:
        row = loaded(first, "one", pinned=True)
        assert row["adopted"] is False
        pid = row["pid"]
        killed(first)
    assert not gone(pid)
    with serving(home, *KEEP, env=env) as second:
        again = taken_over(second, "one")
        for key in ("pid", "backend_url", "since", "pinned", "recipe_options", "backend"):
            assert again[key] == row[key], key
        assert second.chat("one").status_code == 200
        assert not [line for line in second.log().splitlines() if "starting /" in line][1:]
        assert "listening on" in second.get("logs?model=one&lines=20").text
        unloaded(second, "one", pid)


def test_one_that_ends_in_order_leaves_it_too(home: Path, env: dict[str, str]) -> None:
    with serving(home, env={**env, "LEMONADE_ON_EXIT": "keep"}) as first:
        pid = loaded(first, "brood")["pid"]
        reply = requests.post(f"{first.url}/internal/shutdown", timeout=PATIENCE).json()
        assert reply["kept"] == ["brood"]
        assert first.process.wait(PATIENCE) == 0
        assert not gone(pid)
        assert len(kept(home)) == 1
    with serving(home, env=env) as second:
        assert taken_over(second, "brood")["pid"] == pid
        eventually(lambda: not kept(home), "this one is not to keep it")
        core = json.loads(files(home, ".json")[0].read_text())["descendants"][0]["pid"]
        assert not gone(core)
        unloaded(second, "brood", pid)
        assert gone(core)


def test_who_does_not_keep_ends_what_was_kept(home: Path, env: dict[str, str]) -> None:
    with serving(home, *KEEP, env=env) as first:
        pid = loaded(first, "brood")["pid"]
        killed(first)
    with serving(home, env=env) as second:
        taken_over(second, "brood")
        eventually(lambda: not kept(home), "this one is not to keep it")
        killed(second)
    eventually(lambda: not survivors(home), "the guardian has ended it")
    assert gone(pid)


def test_what_is_loading_is_not_left_behind(home: Path, env: dict[str, str]) -> None:
    with serving(home, *KEEP, env=env) as server:
        with pytest.raises(requests.Timeout):
            server.post("load", {"model_name": "slow"}, timeout=0.5)
        eventually(lambda: files(home, ".json"), "it has been started")
        killed(server)
    eventually(lambda: not survivors(home), "the guardian has ended it")
    assert files(home, ".json") == []


def test_the_key_is_for_the_owner_only(home: Path, env: dict[str, str]) -> None:
    with serving(home, *KEEP, env=env) as server:
        loaded(server, "one")
        [file] = files(home, ".kept")
        assert file.stat().st_mode & 0o777 == 0o600
        assert json.loads(file.read_text())["facts"]["spec"]["env"] == {}
        [out] = files(home, ".out")
        assert out.stat().st_mode & 0o777 == 0o600
        server.post("unload", {"model_name": "one"})


def test_what_changes_is_written_down(home: Path, env: dict[str, str]) -> None:
    with serving(home, *KEEP, env=env) as first:
        loaded(first, "one")
        body = {"model": "one", "pinned": True}
        requests.post(f"{first.url}/internal/pin", json=body, timeout=PATIENCE)
        eventually(lambda: kept(home)[0]["facts"]["pinned"], "the pin is written down")
        killed(first)
    with serving(home, env=env) as second:
        assert taken_over(second, "one")["pinned"] is True


def test_one_that_crashes_later_is_reported_and_loaded_again(
    home: Path, env: dict[str, str]
) -> None:
    with serving(home, *KEEP, env=env) as first:
        pid = loaded(first, "one", pinned=True)["pid"]
        killed(first)
    with serving(home, env=env) as second:
        taken_over(second, "one")
        os.kill(pid, signal.SIGKILL)
        row = eventually(
            lambda: (found := second.loaded().get("one")) and found["pid"] != pid and found,
            "it is loaded again",
        )
        assert row["adopted"] is False
        [incident] = second.get("incidents").json()["incidents"]
        assert incident["kind"] == "crashed"
        facts = second.get(f"incidents/{incident['id']}").json()
        assert "nobody can say how" in facts["ended"]


def test_one_that_ended_meanwhile_is_forgotten(home: Path, env: dict[str, str]) -> None:
    with serving(home, *KEEP, env=env) as first:
        pid = loaded(first, "one")["pid"]
        killed(first)
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: gone(pid), "it has ended")
    with serving(home, env=env) as second:
        assert "one is not taken over: it has ended" in second.log()
        assert second.loaded() == {}
        assert files(home, ".json") == []
        assert second.chat("one").status_code == 200


def rewritten(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def left_alone(home: Path, env: dict[str, str], pid: int) -> str:
    """Start a server over it, and have it end again; its log."""
    with serving(home, env=env) as server:
        assert server.loaded() == {}
        assert not gone(pid)
        assert server.post("load", {"model_name": "one"}).status_code == 200
        text = server.log()
    assert not gone(pid)
    os.kill(pid, signal.SIGKILL)
    return text


def reaped(home: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "lemonade", "reap", "--dry-run"],
        env=environment(home),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    return done.stdout + done.stderr


@pytest.mark.parametrize("suffix", [".kept", ".json"])
def test_a_format_of_the_future_is_left_alone(
    home: Path, env: dict[str, str], suffix: str
) -> None:
    with serving(home, *KEEP, env=env) as first:
        pid = loaded(first, "one")["pid"]
        killed(first)
    [file] = files(home, suffix)
    rewritten(file, format=99, schema=99)
    text = file.read_text()
    assert "newer Lemonade" in reaped(home)
    assert "newer Lemonade" in left_alone(home, env, pid)
    assert file.read_text() == text


def test_another_start_time_is_another_process(home: Path, env: dict[str, str]) -> None:
    with serving(home, *KEEP, env=env) as first:
        row = loaded(first, "one")
        killed(first)
    for suffix in (".json", ".kept"):
        [file] = files(home, suffix)
        ticks = json.loads(file.read_text())["start_ticks"] + 1
        rewritten(file, start_ticks=ticks, cgroup="")  # its cgroup would prove it all the same
    text = left_alone(home, env, row["pid"])
    assert f"one is not taken over: it started at another time (pid {row['pid']})" in text
    assert f"Process {row['pid']} is not the one recorded for one" in text


def test_a_stranger_on_its_port_is_not_used(home: Path, env: dict[str, str]) -> None:
    """The engine is proven and of no use: it is ended, and the stranger is not touched."""
    with serving(home, *KEEP, env=env) as first:
        pid = loaded(first, "one")["pid"]
        killed(first)
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        port = stranger.getsockname()[1]
        [file] = files(home, ".json")
        rewritten(file, port=port)
        with serving(home, env=env) as second:
            assert f"another program listens on its port {port}" in second.log()
            assert gone(pid)
            assert second.loaded() == {}


def test_a_model_that_is_declared_otherwise_is_loaded_anew(
    home: Path, env: dict[str, str]
) -> None:
    with serving(home, *KEEP, env=env) as first:
        pid = loaded(first, "one")["pid"]
        killed(first)
    registry = home / "catalog" / "server_models.json"
    models = json.loads(registry.read_text())
    models["one"]["recipe_options"] = {"fake_args": "--chunks 7"}
    registry.write_text(json.dumps(models))
    with serving(home, env=env) as second:
        eventually(lambda: gone(pid), "the engine of what it was is ended")
        assert "one is not taken over: the model is declared otherwise now" in second.log()
        assert second.chat("one").status_code == 200


def test_one_that_is_not_well_is_ended(home: Path, env: dict[str, str]) -> None:
    with serving(home, *KEEP, env=env) as first:
        row = loaded(first, "one")
        killed(first)
    requests.post(row["backend_url"].removesuffix("/v1") + "/fake/hang", timeout=PATIENCE)
    with serving(home, env=env) as second:
        assert [one["model_name"] for one in second.get("health").json()["models_loading"]] == [
            "one"
        ]
        # Who insists does not wait for the answer.
        assert second.post("unload", {"model_name": "one"}).status_code == 200
        assert gone(row["pid"])
        assert second.chat("one").status_code == 200


def test_servers_of_different_places_do_not_take_each_other_s(
    home: Path, env: dict[str, str]
) -> None:
    with serving(home / "a", *KEEP, env=env) as first:
        pid = loaded(first, "one")["pid"]
        killed(first)
    with serving(home / "b", env=env) as other:
        assert other.loaded() == {}
        assert not gone(pid)
    with serving(home / "a", env=env) as second:
        assert taken_over(second, "one")["pid"] == pid


def test_a_living_server_s_engine_is_not_taken(home: Path, env: dict[str, str]) -> None:
    with serving(home, *KEEP, env=env) as first:
        pid = loaded(first, "one")["pid"]
        with serving(home, env=env) as second:
            assert second.loaded() == {}
        assert first.loaded()["one"]["pid"] == pid
        assert first.chat("one").status_code == 200
        first.post("unload", {"model_name": "one"})
