"""Pulls that fail, are interrupted or meet each other."""

from __future__ import annotations

import resource
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.checkpoints.hub_fixture import (
    gguf,
    set_faults,
)
from tests.gateway.pulling import (
    BIG,
    FRAME,
    HELLO,
    LEMON,
    Events,
    Hub,
    definition,
    files_of,
    known,
    left_of,
    pull,
    wait_for_bytes,
)
from tests.serving import Serving, eventually, serving

pytestmark = pytest.mark.engine


# ---- what goes wrong


@pytest.mark.parametrize(
    ("checkpoint", "status", "words"),
    [
        ("o/nothing-here:Q8_0", 404, ["o/nothing-here", "HF_TOKEN"]),
        ("o/some-GGUF:Q2_K", 404, ["Q2_K", "Q8_0"]),
        ("o/gated-GGUF:Q8_0", 403, ["o/gated-GGUF", "HF_TOKEN", "terms"]),
        ("o/page-GGUF:Q8_0", 500, ["page-Q8_0.gguf", "damaged"]),
    ],
)
def test_a_pull_that_fails_leaves_nothing(
    server: Serving, hub: Hub, checkpoint: str, status: int, words: list[str]
) -> None:
    hub.offer("o/some-GGUF", **{"some-Q8_0_gguf": gguf(900)})
    hub.offer("o/gated-GGUF", **{"gated-Q8_0_gguf": gguf(900)})
    hub.offer("o/page-GGUF", **{"page-Q8_0_gguf": b"<html>" * 900})
    reply = server.post("pull", definition("fails", checkpoint))
    assert reply.status_code == status
    assert set(reply.json()) == {"error"}
    for word in words:
        assert word in reply.json()["error"]
    assert not known(server, "fails")
    assert left_of(server, checkpoint.partition(":")[0]) == []


def test_a_hub_nobody_can_reach(home: Path) -> None:
    with serving(home) as server:  # its hub is a port where nobody listens
        reply = server.post("pull", definition("far", "o/far-GGUF:Q8_0"))
        assert reply.status_code == 502
        assert "127.0.0.1:9 cannot be reached" in reply.json()["error"]
        assert "HF_ENDPOINT" in reply.json()["error"]
        assert not known(server, "far")
        assert server.get("pull/variants?checkpoint=o/far-GGUF").status_code == 502
        offline = {"offline": True}
        requests.post(f"{server.url}/internal/set", json=offline, timeout=10).raise_for_status()
        reply = server.post("pull", definition("far", "o/far-GGUF:Q8_0"))
        assert reply.status_code == 400
        assert reply.json()["code"] == "lemond_offline"
        assert not known(server, "far")


def test_a_hub_that_is_down_for_a_known_model(server: Serving, hub: Hub) -> None:
    """What is here stays usable, and is not asked for."""
    hub.offer("o/down-GGUF", **{"down-Q8_0_gguf": LEMON})
    pull(server, "down", "o/down-GGUF:Q8_0")
    set_faults(hub.url, {"path": "*", "where": "listing", "kind": "status", "status": 404})
    failed = server.post("pull", {"model": "user.down"})
    assert failed.status_code == 404
    assert server.get("models/down").json()["downloaded"] is True
    assert server.chat("down").json()["choices"][0]["message"]["content"] == HELLO


def test_wrong_bytes_are_not_a_model(server: Serving, hub: Hub) -> None:
    hub.offer("o/wrong-GGUF", **{"wrong-Q8_0_gguf": gguf(9000)})
    set_faults(hub.url, {"path": "o/wrong-GGUF/*", "kind": "wrong"})
    reply = server.post("pull", definition("wrong", "o/wrong-GGUF:Q8_0"))
    assert reply.status_code == 500
    assert "SHA-256" in reply.json()["error"]
    assert left_of(server, "o/wrong-GGUF") == []
    set_faults(hub.url)
    assert pull(server, "wrong", "o/wrong-GGUF:Q8_0")["downloaded"]


def test_a_disk_that_fills_up(home: Path, hub: Hub) -> None:
    """The kernel lets no file of the server grow any further: as on a full disk."""
    hub.offer("o/fills-GGUF", **{"fills-Q8_0_gguf": gguf(BIG, 7)})
    with serving(home, env={"HF_ENDPOINT": hub.url}) as server:
        limits = resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (BIG // 2, limits[1]))
        reply = server.post("pull", definition("fills", "o/fills-GGUF:Q8_0"))
        assert reply.status_code == 507
        assert "disk is full" in reply.json()["error"]
        assert "pull again" in reply.json()["error"]
        assert not known(server, "fills")
        assert files_of(server, "o/fills-GGUF") == set()
        assert server.get("health").status_code == 200
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, limits)
        *_, (name, frame) = Events(server, definition("fills", "o/fills-GGUF:Q8_0"))
        assert name == "complete"
        assert frame["bytes_previously_downloaded"] == BIG // 2


@pytest.fixture
def small_disk(home: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    place = home / "hub"
    place.mkdir()
    mount = shutil.which("mount")
    if mount is None:
        pytest.skip("there is no `mount`")
    done = subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)],
        capture_output=True,
        check=False,
        text=True,
    )
    if done.returncode:
        pytest.skip(f"mounting is not permitted here: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_what_does_not_fit_is_not_begun(small_disk: Path, home: Path, hub: Hub) -> None:
    hub.offer("o/fits-GGUF", **{"fits-Q8_0_gguf": gguf(BIG, 8), "fits-Q4_0_gguf": gguf(500_000)})
    with serving(home, env={"HF_ENDPOINT": hub.url}) as server:
        reply = server.post("pull", definition("fits", "o/fits-GGUF:Q8_0"))
        assert reply.status_code == 507
        assert "3.0 MB are needed" in reply.json()["error"]
        assert "models_dir" in reply.json()["error"]
        assert not known(server, "fits")
        assert not list(small_disk.rglob("*.incomplete"))
        assert pull(server, "fits", "o/fits-GGUF:Q4_0")["downloaded"]


# ---- interrupted, together, alone


def test_a_client_that_leaves_ends_the_download_and_the_next_continues(
    server: Serving, hub: Hub
) -> None:
    hub.offer("o/left-GGUF", **{"left-Q8_0_gguf": gguf(BIG, 9)})
    # Were the first download still on, the second pull would join it and wait for ever.
    set_faults(hub.url, {"path": "o/left-GGUF/*", "kind": "stall", "after": BIG // 3, "times": 1})
    body = definition("left", "o/left-GGUF:Q8_0")
    events = Events(server, body)
    wait_for_bytes(server, "o/left-GGUF", BIG // 3)
    events.reply.close()
    hub.wait_until_left("o/left-GGUF")
    assert server.get("models/left").json()["downloaded"] is False
    frames = list(Events(server, {"model": "user.left"}))
    assert frames[-1][0] == "complete"
    assert frames[-1][1]["bytes_previously_downloaded"] == BIG // 3
    assert server.get("models/left").json()["downloaded"] is True


def test_two_pulls_share_one_download(server: Serving, hub: Hub) -> None:
    hub.offer("o/shared-GGUF", **{"shared-Q8_0_gguf": gguf(BIG, 10)})
    set_faults(hub.url, {"path": "o/shared-GGUF/*", "kind": "hold", "after": BIG // 3})
    body = definition("shared", "o/shared-GGUF:Q8_0")
    with ThreadPoolExecutor(1) as threads:
        leaves, stays = Events(server, body), Events(server, body)
        waits = threads.submit(server.post, "pull", body)
        wait_for_bytes(server, "o/shared-GGUF", BIG // 3)
        for events in (leaves, stays):
            assert next(iter(events))[1]["bytes_total"] == BIG
        leaves.reply.close()
        set_faults(hub.url)  # the hub goes on
        *_, (name, frame) = stays
        assert (name, frame["bytes_downloaded"]) == ("complete", BIG)
        assert waits.result(30).json()["status"] == "success"
    assert hub.contents_sent("o/shared-GGUF") == ["shared-Q8_0.gguf"]


def test_a_download_of_its_own(server: Serving, hub: Hub) -> None:
    hub.offer("o/own-GGUF", **{"own-Q8_0_gguf": gguf(BIG, 11)})
    set_faults(hub.url, {"path": "o/own-GGUF/*", "kind": "hold", "after": BIG // 3})
    body = {**definition("own", "o/own-GGUF:Q8_0"), "stream": True, "subscribe": False}
    first, second = (server.post("pull", body) for _ in range(2))
    assert first.headers["Content-Type"].startswith("application/json")
    snapshot = first.json()
    assert snapshot["id"] == second.json()["id"] == "model:user.own"
    assert set(snapshot) > FRAME
    assert snapshot["type"] == "model"
    assert snapshot["model_name"] == "user.own"
    assert snapshot["status"] == "downloading"
    assert snapshot["running"] is True
    assert snapshot["complete"] is False
    assert server.get("models/own").json()["downloaded"] is False
    set_faults(hub.url)
    eventually(lambda: server.get("models/own").json()["downloaded"], "it goes on alone")
    assert server.get("models/own").json()["size"] == pytest.approx(BIG / 1e9)


def test_a_download_of_its_own_can_be_paused_and_continued(server: Serving, hub: Hub) -> None:
    hub.offer("o/pause-GGUF", **{"pause-Q8_0_gguf": gguf(BIG, 13)})
    set_faults(hub.url, {"path": "o/pause-GGUF/*", "kind": "stall", "after": BIG // 3, "times": 1})
    body = {**definition("pause", "o/pause-GGUF:Q8_0"), "stream": True, "subscribe": False}
    job = server.post("pull", body).json()["id"]
    wait_for_bytes(server, "o/pause-GGUF", BIG // 3)

    def listed() -> dict[str, Any]:
        return next(row for row in server.get("downloads").json() if row["id"] == job)

    assert listed()["status"] == "downloading"
    paused = server.post("downloads/control", {"id": job, "action": "pause"})
    assert paused.json()["status"] == "paused"
    hub.wait_until_left("o/pause-GGUF")
    assert known(server, "pause")
    assert listed()["status"] == "paused"
    assert server.post("pull", body).json()["id"] == job
    eventually(lambda: server.get("models/pause").json()["downloaded"], "it is continued")
    done = eventually(lambda: listed() if listed()["complete"] else None, "it is completed")
    assert done["bytes_previously_downloaded"] == BIG // 3
    assert server.post("downloads/control", {"id": job, "action": "remove"}).status_code == 200
    assert job not in {row["id"] for row in server.get("downloads").json()}
