"""Installations the server carries on by itself: started, joined, listed, stopped, continued."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.releasing import ARCHIVE, ONE, installing, left_in, releasing, state
from tests.gateway.test_backends_api import FRAME, events
from tests.programs.release_server import PATIENCE, Releases
from tests.serving import Serving, eventually, survivors

pytestmark = pytest.mark.slow

ALONE = {**ONE, "stream": True, "subscribe": False}
ID = "backend:fake:release"
HOLD = """
import os, sys, time
while "--version" in sys.argv and os.path.exists({path!r}):
    time.sleep(0.01)
"""


@pytest.fixture
def held(home: Path) -> Path:
    """While this file is there, the program does not get past its check."""
    return home / "hold"


@pytest.fixture
def releases(home: Path, held: Path) -> Iterator[Releases]:
    with releasing(home, HOLD.format(path=str(held))) as host:
        yield host


@pytest.fixture
def server(home: Path, releases: Releases) -> Iterator[Serving]:
    with installing(home, releases) as one:
        yield one


def start(server: Serving) -> dict[str, Any]:
    reply = server.post("install", ALONE)
    assert reply.status_code == 200, reply.text
    job: dict[str, Any] = reply.json()
    return job


def listed(server: Serving) -> dict[str, Any]:
    (job,) = server.get("downloads").json()
    found: dict[str, Any] = job
    return found


def control(server: Serving, action: str, name: str = ID) -> Any:
    reply = server.post("downloads/control", {"id": name, "action": action})
    assert reply.status_code == 200, reply.text
    return reply.json()


def stopped(server: Serving) -> dict[str, Any]:
    """The job when nothing of it runs any more."""

    def look() -> dict[str, Any] | None:
        return None if listed(server)["running"] else listed(server)

    found: dict[str, Any] = eventually(look, "it has ended")
    return found


def half_way(releases: Releases, server: Serving) -> dict[str, Any]:
    """The job when the first half has come and the host keeps the rest."""
    assert releases.reached.wait(PATIENCE)

    def look() -> dict[str, Any] | None:
        job = listed(server)
        return job if 0 < job["bytes_downloaded"] < job["bytes_total"] else None

    found: dict[str, Any] = eventually(look, "half of it is here")
    return found


def begin_of(asked: str) -> int:
    """Where a range begins."""
    return int(asked.removeprefix("bytes=").removesuffix("-"))


def test_it_answers_at_once_and_goes_on_alone(server: Serving, releases: Releases) -> None:
    assert server.get("downloads").json() == []
    releases.faults = {ARCHIVE: [["slow", 1]]}
    job = start(server)
    assert set(job) == FRAME | {
        "id", "type", "model_name", "status", "running", "completed_files_bytes",
        "cumulative_bytes_downloaded", "overall_bytes_downloaded", "complete",
    }  # fmt: skip
    assert (job["id"], job["type"], job["model_name"]) == (ID, "backend", "fake:release")
    assert (job["status"], job["running"], job["complete"]) == ("downloading", True, False)
    assert start(server)["id"] == ID
    job = half_way(releases, server)
    size = (releases.folder / "somebody" / "fake" / "v1" / ARCHIVE).stat().st_size
    assert job["bytes_total"] == job["total_download_size"] == size
    assert job["overall_bytes_downloaded"] == job["bytes_downloaded"] <= size // 2
    assert (job["file_index"], job["total_files"]) == (2, 4)
    assert state(server) == "installable"
    releases.go.set()
    job = stopped(server)
    assert (job["status"], job["complete"], job["percent"]) == ("completed", True, 100)
    assert state(server) == "installed"
    assert releases.fetched() == [ARCHIVE]
    assert control(server, "cancel")["status"] == "completed", "too late changes nothing"
    assert state(server) == "installed"
    assert control(server, "remove") == {"status": "ok"}
    assert control(server, "remove") == {"status": "ok", "missing": True}
    assert server.get("downloads").json() == []


def test_what_is_installed_is_a_job_with_nothing_to_do(server: Serving) -> None:
    assert server.post("install", ONE).status_code == 200
    start(server)
    assert stopped(server)["status"] == "completed"
    ((name, frame),) = events(server.post("install", {**ONE, "stream": True}))
    assert (name, frame["file"], frame["percent"]) == ("complete", "fake:release", 100)
    assert (frame["file_index"], frame["total_files"]) == (1, 1)


def test_those_who_join_may_leave(server: Serving, releases: Releases) -> None:
    releases.faults = {ARCHIVE: [["slow", 1]]}
    start(server)
    half_way(releases, server)
    with ThreadPoolExecutor(2) as threads:
        chat = threads.submit(server.chat, "one")
        stays = threads.submit(server.post, "install", {**ONE, "stream": True})
        leaves = server.post("install", {**ONE, "stream": True}, stream=True)
        assert b"event: progress" in next(leaves.iter_content(chunk_size=None))
        leaves.close()
        releases.go.set()
        assert events(stays.result(PATIENCE))[-1][0] == "complete"
        assert chat.result(PATIENCE).status_code == 200
    assert releases.fetched() == [ARCHIVE]


def test_it_goes_on_when_all_who_joined_have_left(server: Serving, releases: Releases) -> None:
    releases.faults = {ARCHIVE: [["slow", 1]]}
    first = server.post("install", {**ONE, "stream": True}, stream=True)
    assert releases.reached.wait(PATIENCE)
    assert server.get("downloads").json() == [], "with a subscriber it is the subscriber's"
    start(server)
    first.close()
    half_way(releases, server)
    releases.go.set()
    assert stopped(server)["status"] == "completed"
    assert releases.fetched() == [ARCHIVE]


def test_the_last_subscriber_ends_it(server: Serving, releases: Releases, home: Path) -> None:
    releases.faults = {ARCHIVE: [["slow", 1]]}
    one, two = (server.post("install", {**ONE, "stream": True}, stream=True) for _ in range(2))
    assert releases.reached.wait(PATIENCE)
    partials = home / "cache" / "bin" / ".downloads" / "fake" / "release"
    eventually(lambda: [p for p in partials.glob("*.partial") if p.stat().st_size], "half is here")
    one.close()
    busy = server.post("uninstall", ONE)
    assert (busy.status_code, "is being installed" in busy.json()["error"]) == (409, True)
    two.close()
    eventually(lambda: server.post("uninstall", ONE).status_code == 200, "it has ended")
    assert left_in(home) == []
    assert state(server) == "installable"
    releases.go.set()
    assert server.post("install", ONE).json()["status"] == "success"


def test_paused_and_continued(server: Serving, releases: Releases, home: Path) -> None:
    releases.faults = {ARCHIVE: [["slow", 1]]}
    start(server)
    half = half_way(releases, server)["bytes_downloaded"]
    with ThreadPoolExecutor(1) as threads:
        joined = threads.submit(server.post, "install", ONE)
        follower = server.post("install", {**ONE, "stream": True}, stream=True).iter_lines()
        assert next(follower) == b"event: progress", "it has joined"
        assert control(server, "pause")["status"] == "paused"
        assert b"was paused" in [line for line in follower if line][-1]
        assert joined.result(PATIENCE).status_code in (200, 409)  # it may have come too late
    if joined.result().status_code == 409:
        assert stopped(server)["status"] == "paused"
        assert left_in(home) == []
        releases.go.set()
        assert start(server)["status"] == "downloading"
        job = stopped(server)
        assert job["status"] == "completed"
        asked = [one["range"] for one in releases.seen if one["storage"]]
        assert asked[0] == ""
        assert begin_of(asked[1]) >= half
    assert state(server) == "installed"


@pytest.mark.parametrize("stage", ["find release", f"fetch {ARCHIVE}", "check"])
@pytest.mark.parametrize("action", ["pause", "cancel", "remove"])
def test_stopped_at_any_stage_nothing_half_is_left(
    server: Serving, releases: Releases, home: Path, held: Path, stage: str, action: str
) -> None:
    held.touch()
    releases.faults = {"find release": {"api": [["slow", 1]]}, "check": {}}.get(
        stage, {ARCHIVE: [["slow", 1]]}
    )
    start(server)
    eventually(lambda: listed(server)["file"] == stage, f"it is at {stage}")
    job = control(server, action)
    assert job["status"] == ("paused" if action == "pause" else "cancelled")
    assert stopped(server)["status"] == job["status"]
    assert left_in(home) == []
    assert len(survivors(home)) == 1, "the server"
    assert state(server) == "installable"
    held.unlink()
    releases.go.set()
    assert server.post("install", ONE).json()["status"] == "success"
    assert server.chat("one").status_code == 200


def test_ending_the_server_ends_its_jobs(home: Path, releases: Releases) -> None:
    releases.faults = {ARCHIVE: [["slow", 1]]}
    with installing(home, releases) as server:
        start(server)
        half = half_way(releases, server)["bytes_downloaded"]
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(PATIENCE) == 0
        assert "Traceback" not in server.log()
    assert left_in(home) == []
    releases.go.set()
    with installing(home, releases) as server:
        assert server.get("downloads").json() == []
        start(server)
        assert stopped(server)["status"] == "completed"
        assert state(server) == "installed"
    assert begin_of([one["range"] for one in releases.seen if one["storage"]][-1]) >= half


def test_what_fails_stays_in_the_list_with_its_reason(server: Serving, releases: Releases) -> None:
    releases.faults = {ARCHIVE: [["corrupt", -1]]}
    start(server)
    job = stopped(server)
    assert (job["status"], job["complete"], job["code"]) == ("error", False, "checksum-mismatch")
    assert "SHA-256" in job["error"]
    releases.faults = {}
    start(server)
    assert stopped(server)["status"] == "completed"
    assert "error" not in listed(server)


def test_what_cannot_be_is_refused_at_once(server: Serving) -> None:
    for change, status in (
        ({"backend": "nothing"}, 500),
        ({"recipe": ""}, 400),
        ({"subscribe": "perhaps"}, 400),
        ({"backend": 1}, 400),
    ):
        reply = server.post("install", {**ALONE, **change})
        assert (reply.status_code, set(reply.json()) >= {"error"}) == (status, True), change
    assert server.get("downloads").json() == []
    for body, status in (
        ({"id": ID, "action": "pause"}, 404),
        ({"id": ID, "action": "explode"}, 400),
        ({"id": ID}, 400),
        ({"action": "pause"}, 400),
        ([ID], 400),
    ):
        reply = server.post("downloads/control", body)
        assert reply.status_code == status, body
        assert isinstance(reply.json()["error"], str), json.dumps(reply.json())
