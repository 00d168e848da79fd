"""Following a publisher: asked when somebody installs, else in the background, never by a load."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gateway.engines import add_backend, engine_catalog, env_of, publish_engine
from tests.gateway.test_deciding_api import change, row
from tests.programs.release_server import Releases
from tests.programs.release_server import serving as releasing
from tests.serving import Serving, eventually, serving

pytestmark = pytest.mark.slow

ONE = {"recipe": "fake", "backend": "release"}
LIST = "/api/repos/somebody/fake/releases"


@pytest.fixture
def catalog(home: Path) -> Path:
    catalog = engine_catalog(home)
    add_backend(catalog)
    for version in ("v1", "v9", "v10"):
        publish_engine(home, version)
    publish_engine(home, "v11", "fake-v11-windows.zip")
    publish_engine(home, "v12")
    publish_engine(home, "v13")
    return catalog


@pytest.fixture
def releases(home: Path, catalog: Path) -> Iterator[Releases]:
    with releasing(home / "releases") as host:
        host.prereleases, host.drafts = {"v12"}, {"v13"}
        yield host


@pytest.fixture
def server(home: Path, catalog: Path, releases: Releases) -> Iterator[Serving]:
    with serving(
        home, env=env_of(catalog, releases), config={"fake": {"release_bin": "latest"}}
    ) as one:
        yield one


def lists(releases: Releases) -> int:
    return sum(one["path"] == LIST for one in releases.seen)


def test_installed_followed_and_updated(server: Serving, releases: Releases, home: Path) -> None:
    assert server.post("install", ONE).json() == {"status": "success", **ONE}
    assert (row(server)["state"], row(server)["version"]) == ("installed", "v10")
    assert server.post("install", ONE).json() == {"status": "success", **ONE}
    assert (lists(releases), releases.unchanged) == (2, 1), "asked again, and told so"
    assert releases.fetched() == ["fake-v10-linux.tar.gz"]

    releases.prereleases = set()
    asked = len(releases.seen)
    assert server.chat("one").status_code == 200
    assert server.post("unload", {}).status_code == 200
    assert row(server)["state"] == "installed"
    assert len(releases.seen) == asked, "neither a load nor a look asks what is fresh"

    cache = home / "cache" / "bin" / ".latest.json"
    known = json.loads(cache.read_text())
    known["somebody/fake"]["asked_at"] = time.time() - 7 * 3600
    cache.write_text(json.dumps(known))
    row(server)
    eventually(lambda: row(server)["state"] == "update_available", "the list was asked for")
    found = row(server)
    assert found["version"] == "v10"
    assert found["message"] == "v10 is installed, v12 can be had."
    assert found["action"] == "lemonade backends install fake:release"
    assert found["download_filename"] == "fake-v12-linux.tar.gz"
    assert server.chat("one").status_code == 200
    assert releases.fetched() == ["fake-v10-linux.tar.gz"], "a load updates nothing"
    assert server.post("install", ONE).json() == {
        "status": "success", **ONE, "still_running": [{"model_name": "one", "version": "v10"}]
    }  # fmt: skip
    assert (row(server)["state"], row(server)["version"]) == ("installed", "v12")


def test_a_publisher_that_does_not_answer(
    server: Serving, releases: Releases, home: Path, catalog: Path
) -> None:
    assert server.post("install", ONE).status_code == 200
    releases.faults = {"list": [["status:503", -1]]}
    answer = server.post("install", ONE).json()
    assert answer["status"] == "success"
    assert answer["message"].startswith("fake:release stays at v10: the host answers 503")
    assert row(server)["state"] == "installed"
    asked = lists(releases)
    change(server, offline=True)
    answer = server.post("install", ONE).json()
    assert "the setting 'offline' forbids looking for a newer one" in answer["message"]
    cache = home / "cache" / "bin" / ".latest.json"
    cache.write_text("[")
    row(server)
    change(server, offline=False)
    assert lists(releases) == asked, "offline, nobody is asked"
    assert row(server)["state"] == "installed", "a cache that is broken is no reason to fail"


def test_nobody_has_looked_yet(server: Serving, releases: Releases) -> None:
    """A load before any look takes what the descriptor pins, and asks for no list."""
    assert server.chat("one").status_code == 200
    assert lists(releases) == 0
    assert releases.fetched() == ["fake-v1-linux.tar.gz"]
    row(server)
    eventually(lambda: row(server)["state"] == "update_available", "the list was asked for")
    assert lists(releases) == 1


def _asked_at(cache: Path) -> float:
    return float(json.loads(cache.read_text())["somebody/fake"]["asked_at"])


def test_a_list_that_cannot_be_read_ends_no_server(
    server: Serving, releases: Releases, home: Path
) -> None:
    """Asked for in the background, it is nobody's error; neither is what a broken disk kept."""
    assert server.post("install", ONE).status_code == 200
    cache = home / "cache" / "bin" / ".latest.json"
    for etag, fault in (('"x"\r\nX-Evil: 1', ""), ('"x"', "deep")):
        asked = lists(releases)
        releases.faults = {"list": [[fault, -1]]} if fault else {}
        entry = {"etag": etag, "asked_at": 0, "releases": []}
        cache.write_text(json.dumps({"somebody/fake": entry}))
        row(server)
        eventually(lambda before=asked: lists(releases) > before, "the list was asked for")
        if not fault:  # what is written next must not be written over by this answer
            eventually(lambda: _asked_at(cache), "the answer is kept")
    refused = server.post("install", ONE)
    assert refused.json()["message"].startswith("fake:release stays at v10"), refused.text
    assert server.get("health").status_code == 200
    assert "Traceback" not in server.log()
