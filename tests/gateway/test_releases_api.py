"""An engine from a host of releases, installed over HTTP with its events, and used."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.gateway.releasing import ONE, catalog_of, installing, releasing, state
from tests.gateway.test_backends_api import FRAME, events
from tests.programs.release_server import Releases
from tests.serving import Serving, eventually, gone, serving, survivors

pytestmark = pytest.mark.slow

CANARY = """
[canary]
model = "tiny-lemon-Q8_0.gguf"
options = {{ fake_args = "{args}" }}
"""


@pytest.fixture
def releases(home: Path) -> Iterator[Releases]:
    with releasing(home) as host:
        yield host


@pytest.fixture
def server(home: Path, releases: Releases) -> Iterator[Serving]:
    with installing(home, releases) as one:
        yield one


def test_installed_with_events_used_and_removed(
    server: Serving, releases: Releases, home: Path
) -> None:
    assert state(server) == "installable"
    seen = events(server.post("install", {**ONE, "stream": True}))
    assert seen[-1][0] == "complete"
    assert all(set(data) == FRAME for _, data in seen)
    steps = list(dict.fromkeys(data["file"] for _, data in seen))
    name = "fake-v1-linux.tar.xz"
    assert steps == ["find release", f"fetch {name}", f"unpack {name}", "check", "fake:release"]
    fetched = [data for _, data in seen if data["file"] == f"fetch {name}"]
    assert fetched[-1]["bytes_downloaded"] == fetched[-1]["bytes_total"] > 0
    assert state(server) == "installed"

    answer = server.chat("one")
    assert answer.status_code == 200
    assert answer.json()["choices"][0]["message"]["content"]
    row = server.loaded()["one"]
    assert row["backend"] == "fake:release"
    assert releases.fetched() == [name]

    assert server.post("uninstall", ONE).json() == {"status": "success", **ONE}
    assert gone(row["pid"])
    assert state(server) == "installable"
    assert [p.name for p in (home / "cache" / "bin" / "fake" / "release").iterdir()] == [".lock"]


def test_a_load_installs_it(server: Serving, releases: Releases) -> None:
    assert server.chat("one").status_code == 200
    asked = len(releases.seen)
    assert server.post("unload", {}).status_code == 200
    assert server.chat("one").status_code == 200
    assert len(releases.seen) == asked, "a load of what is installed asks nobody"


def test_what_fails_says_why(server: Serving, releases: Releases) -> None:
    releases.faults = {"fake-v1-linux.tar.xz": [["corrupt", -1]]}
    reply = server.post("install", ONE)
    assert reply.status_code >= 500
    assert "SHA-256" in reply.json()["error"]
    last = events(server.post("install", {**ONE, "stream": True}))[-1]
    assert last[0] == "error"
    assert "SHA-256" in json.dumps(last[1])
    assert state(server) == "installable"
    releases.faults = {}
    assert server.post("install", ONE).json() == {"status": "success", **ONE}


def with_canary(home: Path, args: str) -> None:
    """The recipe asks for a token; the engine it asks has bad habits."""
    recipe = home / "catalog" / "recipes" / "fake.toml"
    recipe.write_text(recipe.read_text() + CANARY.format(args=args))


@pytest.fixture
def trying(home: Path, releases: Releases) -> Iterator[Callable[[str], Serving]]:
    """Starts the server of this test with a canary of the given habits."""
    catalog = catalog_of(home)
    with ExitStack() as stack:

        def start(args: str) -> Serving:
            with_canary(home, args)
            env = {"LEMONADE_CATALOG": str(catalog), **releases.environ}
            return stack.enter_context(serving(home, env=env))

        yield start


def test_an_engine_that_makes_no_token_is_not_installed(
    trying: Callable[[str], Serving],
) -> None:
    server = trying("--answers crash")
    last = events(server.post("install", {**ONE, "stream": True}))[-1]
    assert last[0] == "error"
    assert "ended by SIGABRT" in last[1]["error"]
    assert "error: no kernel image is available for execution" in last[1]["facts"]["last_lines"]
    assert state(server) == "installable"


@pytest.mark.parametrize("how", ["the client leaves", "the server ends"])
def test_one_that_is_being_tried_is_no_model(
    trying: Callable[[str], Serving], home: Path, how: str
) -> None:
    server = trying("--never-ready")
    reply = server.post("install", {**ONE, "stream": True}, stream=True)
    lines = reply.iter_lines()  # with the last name for it the connection would go as well
    assert any(b"try a token" in line for line in lines)
    children = home / "cache" / "bin" / "fake" / "release"
    eventually(lambda: running(home), "the engine is started")
    assert server.loaded() == {}
    assert server.get("health").json()["model_loaded"] is None
    if how == "the client leaves":
        reply.close()
        eventually(lambda: not running(home), "the engine is gone")
        eventually(
            lambda: [path.name for path in children.iterdir()] == [".lock"], "nothing is left"
        )
    # The fixtures end the server and ask what is left.


def running(home: Path) -> list[str]:
    """Engines out of a bundle that is being built."""
    return [line for line in survivors(home) if ".staging-" in line and "--port" in line]
