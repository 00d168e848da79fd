"""While a kept engine has no server: what it is called, who ends it, and what it runs from."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.gateway.releasing import ONE, catalog_of, left_in, releasing
from tests.keeping.conftest import KEEP, children, files, killed, loaded, taken_over, unloaded
from tests.serving import PATIENCE, environment, eventually, fake_model, gone, serving

pytestmark = pytest.mark.slow

AHEAD = "was kept for this server and is to be taken over"


def lemonade(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The command line, in the place of the server that has ended."""
    return subprocess.run(
        [sys.executable, "-m", "lemonade", *words],
        env=environment(home),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )


def records(home: Path, *words: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(lemonade(home, *words, "--json").stdout)["records"]
    return found


def test_it_is_no_orphan(home: Path, env: dict[str, str]) -> None:
    with serving(home, *KEEP, env=env) as first:
        pid = loaded(first, "one")["pid"]
        killed(first)
    listed = lemonade(home, "ps", "--orphans")
    orphans, kept = listed.stdout.split("\n\n")
    assert orphans == "No engine was left behind by a server that died."
    heading, *_, row = kept.splitlines()
    assert heading.startswith("Kept")
    assert row.split()[:2] == ["one", str(first.process.pid)]
    assert str(pid) in row.split()
    assert "`lemonade reap --kept` ends" in listed.stderr

    [told] = records(home, "ps", "--orphans")
    [started] = [json.loads(file.read_text())["started_at"] for file in files(home, ".kept")]
    assert (told["outcome"], told["model"], told["started_at"]) == ("kept", "one", started)
    assert told["server"] == first.process.pid

    foretold = lemonade(home, "reap", "--dry-run")
    assert foretold.stdout.startswith("Would be done: nothing about one, kept for the next")
    done = lemonade(home, "reap")
    assert done.stdout.startswith(f"one is kept for the next server and left alone: {pid} ")
    assert "`lemonade reap --kept` ends" in done.stderr
    assert not gone(pid)

    with serving(home, env=env) as second:
        assert taken_over(second, "one")["pid"] == pid
        unloaded(second, "one", pid)


def test_it_is_ended_when_somebody_says_so(home: Path, env: dict[str, str]) -> None:
    with serving(home, *KEEP, env=env) as first:
        pid = loaded(first, "brood")["pid"]
        killed(first)
    foretold = lemonade(home, "reap", "--kept", "--dry-run").stdout
    assert foretold.startswith("Would be done: end brood, kept for the next server")
    assert not gone(pid)
    [record] = records(home, "reap", "--kept")
    assert record["outcome"] == "ended"
    assert pid in [one["pid"] for one in record["processes"]]
    assert gone(pid)
    assert [path.name for path in children(home).iterdir()] == ["taking-over.lock"]


def test_what_no_server_would_take_is_an_orphan(home: Path, env: dict[str, str]) -> None:
    """Its leader is dead; what that has started is of no use to anybody."""
    with serving(home, *KEEP, env=env) as first:
        pid = loaded(first, "brood")["pid"]
        [file] = files(home, ".json")
        core = eventually(
            lambda: [one["pid"] for one in json.loads(file.read_text())["descendants"]],
            "its descendant is recorded",
        )[0]
        killed(first)
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: gone(pid), "it has ended")
    assert not gone(core)
    [record] = records(home, "reap")
    assert record["outcome"] == "ended"
    assert [one["pid"] for one in record["processes"]] == [core]
    assert gone(core)


@pytest.mark.parametrize("flags", [(), KEEP], ids=["end", "keep"])
def test_the_log_of_a_restart_says_what_happens(
    home: Path, env: dict[str, str], flags: tuple[str, ...]
) -> None:
    with serving(home, *flags, env=env) as server:
        assert server.post("load", {"model_name": "one"}).status_code == 200
        pid = server.loaded()["one"]["pid"]
        before = len(server.log())
        requests.post(f"{server.url}/internal/restart", timeout=PATIENCE).raise_for_status()
        ready = f"one is taken over (pid {pid})"
        eventually(lambda: ready in server.log(), "it is taken over")
        said = server.log()[before:]
        assert said.count(f"one {AHEAD} (pid {pid})") == 1
        assert "left alone" not in said
        assert taken_over(server, "one")["pid"] == pid
        unloaded(server, "one", pid)


def test_the_version_that_it_runs_stays(home: Path) -> None:
    """A server that shares the directories, and takes over nothing while it runs, is told who."""
    with releasing(home) as releases:
        catalog = catalog_of(home)
        fake_model(catalog, "one")
        env = {"LEMONADE_CATALOG": str(catalog), **releases.environ}
        with serving(home, *KEEP, env=env) as first:
            assert first.post("install", ONE).status_code == 200
            pid = loaded(first, "one")["pid"]
            with serving(home, env=env) as second:
                killed(first)
                who = f"one (pid {pid}), kept for the next server"
                for path, body in (("uninstall", ONE), ("install", {**ONE, "force": True})):
                    refused = second.post(path, body)
                    assert refused.status_code == 409, path
                    assert f"is used by a running engine: {who}. " in refused.json()["error"]
                [row] = second.get("backends/fake/release").json()["versions"]
                assert row["in_use"] is True
                assert left_in(home) == ["v1"]
                assert not gone(pid)

                lemonade(home, "reap", "--kept")
                assert gone(pid)
                assert second.post("uninstall", ONE).status_code == 200
                assert left_in(home) == []
