"""What an installation comes to where it may not be, need not be, or somebody must help first."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.gateway.engines import add_backend, engine_catalog, env_of, publish_engine
from tests.gateway.test_backends_api import FRAME, events
from tests.programs.release_server import serving as releasing
from tests.serving import Serving, environment, fake_catalog, serving

pytestmark = pytest.mark.slow

ONE = {"recipe": "fake", "backend": "release"}


def row(server: Serving, variant: str = "release") -> dict[str, Any]:
    found: dict[str, Any] = server.get("system-info").json()["recipes"]["fake"]["backends"][
        variant
    ]
    return found


def change(server: Serving, **settings: object) -> dict[str, Any]:
    reply = requests.post(f"{server.url}/internal/set", json=settings, timeout=10)
    reply.raise_for_status()
    answer: dict[str, Any] = reply.json()
    return answer


def cli(server: Serving, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lemonade", "backends", "install", *words],
        env={**environment(server.home), "LEMONADE_PORT": server.url.rpartition(":")[2]},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_an_engine_that_is_here_stays_where_the_next_one_cannot_be_had(home: Path) -> None:
    """Forbidden by either setting, or nobody answers: success, with a note; not so by force."""
    catalog = engine_catalog(home)
    add_backend(catalog)
    publish_engine(home, "v1")
    with (
        releasing(home / "releases") as releases,
        serving(home, env=env_of(catalog, releases)) as server,
    ):
        assert server.post("install", ONE).json() == {"status": "success", **ONE}
        found = row(server)
        assert (found["state"], found["version"]) == ("installed", "v1")
        assert found["download_filename"] == "fake-v1-linux.tar.gz"
        assert found["release_url"].startswith("https://github.com/")
    add_backend(catalog, version="v2")
    with serving(home, env=env_of(catalog)) as server:
        found = row(server)
        assert (found["state"], found["version"]) == ("update_required", "v1")
        assert found["action"] == "lemonade backends install fake:release"
        assert found["download_filename"] == "fake-v2-linux.tar.gz"
        answer = server.post("install", ONE).json()
        assert answer["status"] == "success"
        assert answer["message"].startswith(
            "fake:release stays at v1: 127.0.0.1 cannot be reached"
        )
        (only,) = events(server.post("install", {**ONE, "stream": True}))
        assert only[0] == "complete"
        assert set(only[1]) == {*FRAME, "message"}
        shown = cli(server, "fake:release")
        assert (shown.returncode, shown.stderr) == (0, "")
        assert "fake:release stays at v1: 127.0.0.1 cannot be reached" in shown.stdout
        assert server.chat("one").status_code == 200
        for setting in ("offline", "no_fetch_executables"):
            change(server, **{setting: True})
            answer = server.post("install", ONE).json()
            why = f"the setting '{setting}' forbids fetching v2"
            note = f"fake:release stays at v1: {why}."
            assert answer == {"status": "success", **ONE, "message": note}
            refused = server.post("install", {**ONE, "force": True})
            assert refused.status_code == 409
            assert f"'{setting}' forbids installing fake:release" in refused.json()["error"]
            change(server, **{setting: False})


def test_nothing_is_here_and_nothing_may_be_fetched(home: Path) -> None:
    catalog = engine_catalog(home)
    add_backend(catalog)
    with serving(home, env=env_of(catalog), config={"offline": True}) as server:
        refused = server.post("install", ONE)
        assert refused.status_code == 409
        assert "'offline' forbids installing" in refused.json()["error"]
        assert cli(server, "fake:release").returncode == 1


def test_what_is_not_ours_is_not_installed(home: Path) -> None:
    """A program on PATH, one that is not there, and one the operator points at."""
    catalog = fake_catalog(home)
    text = (catalog / "backends" / "fake-program.toml").read_text()
    absent = text.replace('"fake:program"', '"fake:absent"').replace(sys.executable, "no-such-one")
    (catalog / "backends" / "fake-absent.toml").write_text(absent)
    add_backend(catalog, preference=5)
    with serving(home, env=env_of(catalog)) as server:
        mine = {"recipe": "fake", "backend": "program"}
        assert server.post("install", mine).json() == {"status": "success", **mine}
        gone = {"recipe": "fake", "backend": "absent"}
        answer = server.post("install", gone).json()
        assert answer["status"] == "success"
        assert "no-such-one is not on PATH" in answer["message"]
        change(server, fake={"release_bin": sys.executable})
        answer = server.post("install", {**ONE, "force": True}).json()
        assert answer["status"] == "success"
        assert sys.executable in answer["message"]


def test_an_unknown_name_is_what_clients_know_it_as(home: Path) -> None:
    catalog = engine_catalog(home)
    add_backend(catalog)
    with serving(home, env=env_of(catalog)) as server:
        for route in ("install", "install/dry-run"):
            reply = server.post(route, {"recipe": "fakes", "backend": "release"})
            assert reply.status_code == 500
            assert "fake" in reply.json()["error"]
