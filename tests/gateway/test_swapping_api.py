"""A setting says that another build runs: models move to it, and stay where that fails."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gateway.engines import add_backend, engine_catalog, env_of, publish_engine
from tests.gateway.test_deciding_api import change, row
from tests.programs.release_server import Releases
from tests.programs.release_server import serving as releasing
from tests.serving import Serving, eventually, gone, serving

pytestmark = pytest.mark.slow

ONE = {"recipe": "fake", "backend": "release"}


@pytest.fixture
def releases(home: Path) -> Iterator[Releases]:
    for version in ("v1", "v2"):
        publish_engine(home, version)
    publish_engine(home, "v3", program="import sys\nsys.exit(3)\n")
    with releasing(home / "releases") as host:
        yield host


@pytest.fixture
def server(home: Path, releases: Releases) -> Iterator[Serving]:
    catalog = engine_catalog(home)
    add_backend(catalog)
    with serving(home, env=env_of(catalog, releases)) as one:
        yield one


def pid(server: Serving) -> int:
    found = server.loaded().get("one", {}).get("pid", 0)
    return int(found or 0)


def program(number: int) -> str:
    return Path(f"/proc/{number}/cmdline").read_bytes().decode()


def test_models_follow_the_setting(server: Serving, releases: Releases, home: Path) -> None:
    assert server.chat("one").status_code == 200
    first = pid(server)
    answer = change(server, fake={"release_bin": "v2"})
    assert answer["status"] == "success"
    eventually(lambda: pid(server) not in (0, first), "another engine serves")
    second = pid(server)
    assert "/fake/release/v2/" in program(second)
    eventually(lambda: gone(first), "the old one ends")
    assert row(server)["version"] == "v2"
    assert server.chat("one").status_code == 200
    assert pid(server) == second

    fetched = releases.fetched()
    change(server, fake={"release_bin": "builtin"})
    eventually(lambda: pid(server) not in (0, second), "and back, without fetching anything")
    assert "/fake/release/v1/" in program(pid(server))
    assert releases.fetched() == fetched

    mine = home / "cache" / "bin" / "fake" / "release" / "v2" / "tree" / "bin" / "fake-server"
    third = pid(server)
    change(server, fake_release_bin=str(mine))
    eventually(lambda: pid(server) not in (0, third), "a program of one's own")
    assert "/fake/release/v2/" in program(pid(server))


def test_what_fails_leaves_the_engine_that_runs(server: Serving) -> None:
    assert server.chat("one").status_code == 200
    first = pid(server)
    for pin, words in (("v3", "v3 was fetched, but does not start"), ("v9", "v9")):
        change(server, fake={"release_bin": pin})
        message = eventually(
            lambda: (found := row(server)["message"]) and "could not be moved" in found and found,
            "it is said",
        )
        assert words in message
        assert server.chat("one").status_code == 200
        assert pid(server) == first
        change(server, fake={"release_bin": "v1"})
        eventually(lambda: row(server)["message"] == "", "a new setting begins anew")
        first = eventually(lambda: pid(server), "it serves")
    change(server, offline=True)
    change(server, fake={"release_bin": "v2"})
    eventually(lambda: "'offline' forbids fetching v2" in row(server)["message"], "it is said")
    assert server.chat("one").status_code == 200


def test_a_change_that_changes_nothing_moves_nobody(server: Serving) -> None:
    assert server.chat("one").status_code == 200
    first = pid(server)
    change(server, fake={"release_bin": "builtin"})
    change(server, ctx_size=2048)
    answer = change(server, ryzenai={"server_bin": "v1"})
    assert "ryzenai.server_bin says: ignored" in answer["message"]
    assert server.chat("one").status_code == 200
    assert pid(server) == first
