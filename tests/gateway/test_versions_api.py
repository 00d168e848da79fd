"""Versions of an engine while engines run: updated, used, gone back from, pruned, uninstalled."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.gateway.releasing import ONE, catalog_of, left_in, releasing, state
from tests.gateway.test_backends_api import events
from tests.installer.releases import build_archive
from tests.programs.release_server import Releases
from tests.serving import (
    FAKE_ENGINE,
    PATIENCE,
    Serving,
    environment,
    eventually,
    fake_model,
    gone,
    serving,
    survivors,
)

pytestmark = pytest.mark.slow

SPEC = "fake:release"
TWO = {"max_loaded_models": 2}


@pytest.fixture
def releases(home: Path) -> Iterator[Releases]:
    """The fake engine in three versions."""
    program = FAKE_ENGINE.read_text()
    for version in ("v2", "v3"):
        build_archive(
            home / "releases" / "somebody" / "fake" / version / f"fake-{version}-linux.tar.xz",
            {"bin/fake-server": f"#!{sys.executable}\n{program}".encode()},
            top=f"fake-{version}",
        )
    with releasing(home) as host:
        yield host


@pytest.fixture
def server(home: Path, releases: Releases) -> Iterator[Serving]:
    catalog = catalog_of(home)
    for name in ("one", "two"):
        fake_model(catalog, name)
    env = {"LEMONADE_CATALOG": str(catalog), **releases.environ}
    with serving(home, env=env, config=TWO) as one:
        yield one


@pytest.fixture
def neighbour(home: Path, server: Serving, releases: Releases) -> Iterator[Serving]:
    """Another server with the same engines, and directories of its own otherwise."""
    other = home / "other"
    (other / "cache").mkdir(parents=True)
    (other / "cache" / "bin").symlink_to(home / "cache" / "bin")
    env = {"LEMONADE_CATALOG": str(home / "catalog"), **releases.environ}
    with serving(other, env=env, config=TWO) as one:
        yield one


def install(server: Serving, version: str = "") -> None:
    body = {**ONE, "version": version} if version else ONE
    answer = server.post("install", body)
    assert answer.status_code == 200, answer.text


def shown(server: Serving) -> dict[str, Any]:
    answer = server.get("backends/fake/release")
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    return found


def runs(server: Serving, model: str = "one") -> str:
    """Load the model; the version its engine is of."""
    assert server.chat(model).status_code == 200
    version: str = server.loaded()[model]["backend_version"]
    return version


def test_an_update_leaves_a_running_engine_alone(server: Serving) -> None:
    install(server)
    assert runs(server) == "v1"
    pid = server.loaded()["one"]["pid"]
    answer = server.post("install", {**ONE, "version": "v2"}).json()
    assert answer["still_running"] == [{"model_name": "one", "version": "v1"}]
    assert (runs(server), server.loaded()["one"]["pid"]) == ("v1", pid)
    assert runs(server, "two") == "v2", "the next load"
    assert state(server) == "update_available", "a person chose it"
    found = shown(server)
    assert (found["active"], found["chosen"], found["wanted"]) == ("v2", True, "v1")
    assert [(one["version"], one["models"]) for one in found["versions"]] == [
        ("v2", ["two"]), ("v1", ["one"])
    ]  # fmt: skip
    server.post("unload", {"model_name": "one"})
    assert gone(pid)
    assert runs(server) == "v2"


def test_back_and_forth(server: Serving) -> None:
    assert server.post("backends/rollback", ONE).status_code == 409, "nothing is installed"
    install(server)
    install(server, "v2")
    assert runs(server) == "v2"
    answer = server.post("backends/rollback", ONE).json()
    assert (answer["status"], answer["version"]) == ("success", "v1")
    assert answer["still_running"] == [{"model_name": "one", "version": "v2"}]
    assert "Still on another version: one." in answer["message"]
    assert runs(server) == "v2"
    server.post("unload", {})
    assert runs(server) == "v1"
    assert state(server) == "installed"
    refused = server.post("backends/rollback", ONE)
    assert refused.status_code == 409
    assert "no earlier version" in refused.json()["error"]

    used = server.post("backends/use", {**ONE, "version": "v2"})
    assert (used.status_code, used.json()["version"]) == (200, "v2")
    install(server)
    assert shown(server)["active"] == "v1", "installing what is wanted uses it"
    assert shown(server)["history"] == ["v2"]


def test_what_cannot_be_used(server: Serving) -> None:
    install(server)
    for path, body, status, words in (
        ("use", {**ONE, "version": "v9"}, 409, f"lemonade backends install {SPEC}@v9"),
        ("use", {**ONE, "version": "../v1"}, 409, "is not installed"),
        ("use", ONE, 400, "'version' is required"),
        ("use", {**ONE, "version": 7}, 400, "version"),
        ("use", {"recipe": "fake", "backend": "nope", "version": "v1"}, 404, "nope"),
        ("use", {"recipe": "no pe", "backend": "x", "version": "v1"}, 404, "no pe"),
        ("rollback", {"recipe": "nope", "backend": "x"}, 404, "nope"),
        ("rollback", {"recipe": "fake"}, 400, "'backend' is required"),
        ("prune", {"recipe": "fake", "backend": "nope"}, 404, "nope"),
        ("prune", {"recipe": "nope"}, 404, "nope"),
        ("prune", {"backend": "release"}, 400, "'recipe' is required"),
        ("prune", {"dry_run": "yes"}, 400, "dry_run"),
    ):
        answer = server.post(f"backends/{path}", body)
        assert (answer.status_code, words in answer.json()["error"]) == (status, True), body
    assert server.get("backends/fake/nope").status_code == 404
    assert server.get("backends/nope/nope").status_code == 404


def test_a_setting_decides_before_these_commands(
    server: Serving, home: Path, releases: Releases
) -> None:
    install(server)
    install(server, "v2")
    asked = f"{server.url}/internal/set"
    pin = requests.post(asked, json={"fake": {"release_bin": "v1"}}, timeout=PATIENCE)
    assert pin.status_code == 200, pin.text
    for path in ("use", "rollback"):
        answer = server.post(f"backends/{path}", {**ONE, "version": "v2"})
        assert answer.status_code == 409
        assert "The setting fake.release_bin says" in answer.json()["error"]
    refused = server.post("install", {**ONE, "version": "v2"})
    assert refused.status_code == 409
    assert "fake.release_bin=v2" in refused.json()["error"]
    assert runs(server) == "v1"
    assert shown(server)["wanted_by"] == "the setting fake.release_bin=v1"
    server.post("backends/prune", {})
    assert left_in(home) == ["v1", "v2"]


def test_pruning_spares_what_runs(server: Serving, home: Path) -> None:
    install(server)
    assert runs(server) == "v1"
    install(server, "v2")
    install(server, "v3")
    plan = server.post("backends/prune", {**ONE, "dry_run": True}).json()
    assert (plan["removed"], plan["dry_run"]) == ([], True)
    assert {one["version"]: one["why"] for one in plan["kept"]} == {
        "v3": "it is active", "v2": "it is the way back", "v1": "a running engine uses it"
    }  # fmt: skip
    pid = server.loaded()["one"]["pid"]
    assert server.post("backends/prune", {}).json()["removed"] == []
    assert (runs(server), server.loaded()["one"]["pid"]) == ("v1", pid)
    server.post("unload", {})
    done = server.post("backends/prune", {}).json()
    assert [one["name"] for one in done["removed"]] == ["v1"]
    assert done["freed_bytes"] == done["removed"][0]["size_bytes"] > 1000
    assert left_in(home) == ["v2", "v3"]
    assert runs(server) == "v3"


def test_building_anew_what_runs_is_refused(server: Serving) -> None:
    install(server)
    assert runs(server) == "v1"
    refused = server.post("install", {**ONE, "force": True})
    assert refused.status_code == 409
    assert refused.json()["error"] == (
        "fake:release v1 is used by a running engine: one. `lemonade unload one`, and try again."
    )
    last = events(server.post("install", {**ONE, "force": True, "stream": True}))[-1]
    assert last[0] == "error"
    assert runs(server) == "v1"
    server.post("unload", {})
    assert server.post("install", {**ONE, "force": True}).status_code == 200


def test_two_servers_share_the_engines(server: Serving, neighbour: Serving, home: Path) -> None:
    install(server)
    assert runs(neighbour) == "v1"
    install(server, "v2")
    assert runs(server) == "v2"
    assert runs(neighbour, "two") == "v2", "the neighbour sees the pointer"
    assert runs(neighbour) == "v1"
    install(server, "v3")
    kept = server.post("backends/prune", {}).json()["kept"]
    assert {one["version"] for one in kept} == {"v1", "v2", "v3"}
    assert [one["in_use"] for one in shown(server)["versions"]] == [False, True, True]

    refused = server.post("uninstall", ONE)
    assert refused.status_code == 409
    assert "used by a running engine" in refused.json()["error"]
    assert left_in(home) == ["v1", "v2", "v3"]
    assert runs(neighbour) == "v1"

    neighbour.process.kill()
    neighbour.process.wait()
    eventually(lambda: not survivors(home / "other"), "nothing of the neighbour is left")
    assert server.post("uninstall", ONE).status_code == 200, "a killed server holds nothing"
    assert left_in(home) == []


def test_a_legacy_tree_serves_without_a_network(
    server: Serving, home: Path, releases: Releases
) -> None:
    program = f"#!{sys.executable}\n{FAKE_ENGINE.read_text()}"
    tree = home / "cache" / "bin" / "fake" / "release"
    (tree / "build").mkdir(parents=True)
    (tree / "build" / "fake-server").write_text(program)
    (tree / "build" / "fake-server").chmod(0o755)
    (tree / "version.txt").write_text("v0\n")
    assert state(server) == "update_required"
    assert runs(server) == "v0"
    assert releases.seen == []
    install(server)
    assert runs(server) == "v0"
    server.post("unload", {})
    assert runs(server) == "v1"
    install(server, "v2")
    server.post("backends/prune", {})
    assert left_in(home) == ["v1", "v2"]


def test_the_command_line(server: Serving, home: Path) -> None:
    def say(*words: str, code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "lemonade", "backends", *words, "--host", server.url],
            env=environment(home), capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    say("install", SPEC)
    say("install", f"{SPEC}@v2")
    lines = say("show", SPEC).splitlines()
    assert lines[0] == "fake:release: A fake engine out of a release"
    assert lines[1] == "State: update_available"
    assert "  lemonade backends use fake:release@v1" in lines
    assert any(line.startswith("v2 ") and line.endswith("used") for line in lines)
    assert any(line.startswith("v1 ") and line.endswith("way back") for line in lines)
    assert say("use", f"{SPEC}@v1") == "The next load uses fake:release v1.\n"
    assert say("rollback", SPEC) == "The next load uses fake:release v2.\n"
    assert "no earlier version" in say("rollback", SPEC, code=1)
    assert "backends install fake:release@v7" in say("use", f"{SPEC}@v7", code=1)
    assert "write fake:release@VERSION" in say("use", SPEC, code=2)
    assert "does not name a version" in say("use", f"{SPEC}@", code=2)
    assert "Would remove fake:release: version v1, " in say("prune", "--dry-run")
    assert left_in(home) == ["v1", "v2"]
    removed = say("prune", SPEC).splitlines()
    assert removed[0].startswith("Removed fake:release: version v1, ")
    assert removed[-1].endswith("kB freed.")
    assert left_in(home) == ["v2"]
