"""Installing and removing backends over HTTP, with a real pip, tiny wheels and a fake engine."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.installer.index import Index
from tests.installer.index import serving as indexing
from tests.installer.wheels import Wheel, build_wheel
from tests.serving import (
    FAKE_ENGINE,
    Serving,
    eventually,
    fake_catalog,
    fake_model,
    gone,
    serving,
    survivors,
)

pytestmark = pytest.mark.slow

BACKEND = """
schema = 1
id = "fake:{variant}"
title = "A fake engine in an environment of its own"
preference = {preference}
devices = ["cpu"]

[pin]
source = "pypi"
version = "{version}"
packages = ["tinyengine=={version}"]
release_url = "https://github.com/somebody/tinyengine/releases"
[pin.sha256]
"{file}" = "{sha256}"

[[runs_on]]
os = ["{os}"]

[bundle]
argv = ["{{python}}", "{program}"]
"""

TINY = {"recipe": "fake", "backend": "tiny"}
FRAME = {
    "file",
    "file_index",
    "total_files",
    "bytes_downloaded",
    "bytes_total",
    "total_download_size",
    "bytes_previously_downloaded",
    "percent",
}


@pytest.fixture
def wheel(home: Path) -> Wheel:
    return build_wheel(home / "wheels", extra_bytes=600_000)  # pip shows no progress of less


@pytest.fixture
def env(home: Path, wheel: Wheel) -> dict[str, str]:
    """A recipe whose backends come from a folder of wheels: one for here, one for elsewhere."""
    catalog = fake_catalog(home)
    (catalog / "backends" / "fake-program.toml").unlink()
    for variant, preference, system in (("tiny", 1, "linux"), ("elsewhere", 2, "windows")):
        (catalog / "backends" / f"fake-{variant}.toml").write_text(
            BACKEND.format(
                variant=variant,
                preference=preference,
                os=system,
                version=wheel.version,
                file=wheel.path.name,
                sha256=wheel.sha256,
                program=FAKE_ENGINE,
            )
        )
    fake_model(catalog, "one")
    return {
        "LEMONADE_CATALOG": str(catalog),
        "LEMONADE_WHEELS": str(home / "wheels"),
        "PIP_CONFIG_FILE": "/dev/null",
        "PIP_NO_CACHE_DIR": "1",
    }


@pytest.fixture
def server(home: Path, env: dict[str, str]) -> Iterator[Serving]:
    with serving(home, env=env) as one:
        yield one


@pytest.fixture
def index(wheel: Wheel, env: dict[str, str]) -> Iterator[Index]:
    """An index that servers use instead of the folder of wheels."""
    with indexing(wheel.path.parent) as served:
        del env["LEMONADE_WHEELS"]
        env["LEMONADE_PYPI_URL"] = served.url
        yield served


@pytest.fixture(scope="module")
def refusing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """One server for all that is refused: nothing of it may change it."""
    home = tmp_path_factory.mktemp("refusing")
    catalog = fake_catalog(home)
    (catalog / "backends" / "fake-program.toml").unlink()
    for variant, system in (("tiny", "linux"), ("elsewhere", "windows")):
        (catalog / "backends" / f"fake-{variant}.toml").write_text(
            BACKEND.format(
                variant=variant,
                preference=1 if variant == "tiny" else 2,
                os=system,
                version="1.0",
                file="tinyengine-1.0-py3-none-any.whl",
                sha256="0" * 64,
                program=FAKE_ENGINE,
            )
        )
    with serving(home, env={"LEMONADE_CATALOG": str(catalog)}) as one:
        yield one
        assert not (home / "cache" / "bin" / "fake").exists()
    assert not survivors(home)


def row(server: Serving, variant: str = "tiny") -> dict[str, Any]:
    backends = server.get("system-info").json()["recipes"]["fake"]["backends"]
    found: dict[str, Any] = backends[variant]
    return found


def events(reply: requests.Response) -> list[tuple[str, dict[str, Any]]]:
    """The name and the data of every event."""
    assert reply.status_code == 200
    assert reply.headers["Content-Type"].startswith("text/event-stream")
    found = []
    for frame in reply.text.split("\n\n"):
        if frame:
            name, data = frame.split("\n")
            found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


def installed_names(home: Path) -> list[str]:
    """What lies in the backend's folder, the lock aside."""
    folder = home / "cache" / "bin" / "fake" / "tiny"
    if not folder.is_dir():
        return []
    return sorted(
        path.name for path in folder.iterdir() if path.name not in (".lock", "active.json")
    )


def test_installed_used_and_removed(server: Serving, home: Path) -> None:
    before = row(server)
    assert before["state"] == "installable"
    assert before["action"] == "lemonade backends install fake:tiny"
    assert before["version"] == "1.0"
    assert before["can_uninstall"] is False
    answer = {"status": "success", **TINY}
    assert server.post("install", TINY).json() == answer
    after = row(server)
    assert (after["state"], after["message"], after["action"]) == ("installed", "", "")
    assert after["can_uninstall"] is True
    assert server.post("install", TINY).json() == answer, "it is there already"

    assert server.chat("one").status_code == 200
    pid = server.loaded()["one"]["pid"]
    assert server.loaded()["one"]["backend"] == "fake:tiny"
    assert server.post("uninstall", TINY).json() == answer
    assert gone(pid)
    assert server.loaded() == {}
    assert row(server)["state"] == "installable"
    assert installed_names(home) == []
    assert server.post("uninstall", TINY).json() == answer, "it is gone already"


def test_an_installation_in_events(server: Serving) -> None:
    seen = events(server.post("install", {**TINY, "stream": True}))
    assert [name for name, _ in seen[:-1]] == ["progress"] * (len(seen) - 1)
    assert seen[-1][0] == "complete"
    assert all(set(data) == FRAME for _, data in seen)
    steps = list(dict.fromkeys(data["file"].split(" tiny")[0] for _, data in seen))
    assert steps == ["create environment", "fetch", "install", "check", "fake:tiny"]
    fetched = [data for _, data in seen if data["bytes_total"]]
    assert fetched[-1]["bytes_downloaded"] == fetched[-1]["bytes_total"] > 600_000
    assert seen[-1][1]["percent"] == 100

    (only,) = events(server.post("install", {**TINY, "stream": True}))
    assert only[0] == "complete"
    assert only[1]["file"] == "fake:tiny"
    assert (only[1]["file_index"], only[1]["total_files"], only[1]["percent"]) == (1, 1, 100)

    again = events(server.post("install", {**TINY, "stream": True, "force": True}))
    assert [name for name, _ in again].count("progress") >= 4
    assert again[-1][0] == "complete"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "'recipe' and 'backend' are required"),
        ({"recipe": "fake"}, "'recipe' and 'backend' are required"),
        ({"recipe": "", "backend": "tiny"}, "'recipe' and 'backend' are required"),
        ({"recipe": 5, "backend": "tiny"}, "'recipe' must be a string"),
        ({"recipe": "fakes", "backend": "tiny"}, "fake"),
        ({"recipe": "fake", "backend": "tyni"}, "fake:tiny"),
        ({"recipe": "fake", "backend": "../tiny"}, "does not name a backend"),
        ({**TINY, "stream": "yes"}, "'stream' must be true or false"),
        ({**TINY, "force": 1}, "'force' must be true or false"),
        ({"recipe": "fake", "backend": "elsewhere"}, "It needs Windows; this is Linux."),
        ([TINY], "must be a JSON object"),
        (None, "Send a JSON object."),
    ],
)
def test_what_cannot_be_is_a_sentence(refusing: Serving, body: object, words: str) -> None:
    reply = refusing.post("install", body)
    unknown = words in ("fake", "fake:tiny", "does not name a backend")
    assert reply.status_code == (500 if unknown else 400), "as clients know it"
    error = reply.json()["error"]
    assert isinstance(error, str)
    assert words in error


def test_a_refusal_names_what_was_asked_for(refusing: Serving) -> None:
    asked = {"recipe": "fake", "backend": "elsewhere"}
    reply = refusing.post("install", asked).json()
    assert {key: reply[key] for key in asked} == asked
    refused = row(refusing, "elsewhere")
    assert (refused["state"], refused["message"]) == (
        "unsupported",
        "It needs Windows; this is Linux.",
    )
    assert [set(one) for one in refused["evidence"]] == [{"path", "value"}]
    assert row(refusing)["evidence"] == []
    assert requests.get(f"{refusing.api}/install", timeout=10).status_code == 405
    assert refusing.post("uninstall", {"recipe": "fake"}).status_code == 400


def test_force_installs_what_is_not_meant_for_this_machine(server: Serving, home: Path) -> None:
    body = {"recipe": "fake", "backend": "elsewhere", "force": True}
    assert server.post("install", body).json()["status"] == "success"
    assert (home / "cache" / "bin" / "fake" / "elsewhere" / "1.0" / "receipt.json").exists()


def test_nothing_is_fetched_where_that_is_forbidden(home: Path, env: dict[str, str]) -> None:
    with serving(home, env=env, config={"no_fetch_executables": True}) as server:
        assert server.get("system-info").json()["no_fetch_executables"] is True
        reply = server.post("install", TINY)
        assert reply.status_code == 409
        assert "no_fetch_executables" in reply.json()["error"]
        refused = server.chat("one")
        assert refused.status_code == 500
        error = refused.json()["error"]
        assert error["type"] == error["code"] == "model_load_error"
        assert error["message"].startswith("Failed to load model")
        assert "no_fetch_executables" in error["message"]
        assert "lemonade backends install fake:tiny" in error["message"]
        assert installed_names(home) == []
        change = {"no_fetch_executables": False}
        requests.post(f"{server.url}/internal/set", json=change, timeout=10).raise_for_status()
        assert server.chat("one").status_code == 200, "the engine is installed on demand"
        change = {"no_fetch_executables": True}
        requests.post(f"{server.url}/internal/set", json=change, timeout=10).raise_for_status()
        assert server.post("install", TINY).status_code == 200, "what is there is fine"


def test_an_index_that_does_not_answer(home: Path, env: dict[str, str]) -> None:
    env = {**env, "LEMONADE_WHEELS": "", "LEMONADE_PYPI_URL": "http://127.0.0.1:9/simple"}
    with serving(home, env=env) as server, ThreadPoolExecutor(3) as threads:
        plain = threads.submit(server.post, "install", TINY)
        streamed = threads.submit(server.post, "install", {**TINY, "stream": True})
        chat = threads.submit(server.chat, "one")
        assert plain.result().status_code == 502
        error = plain.result().json()
        assert "the package index does not answer" in error["error"]
        assert "LEMONADE_WHEELS" in error["error"], "what to do about it"
        assert {key: error[key] for key in TINY} == TINY
        name, data = events(streamed.result())[-1]
        assert (name, data["error"]) == ("error", error["error"])
        assert chat.result().status_code == 500
        message = chat.result().json()["error"]["message"]
        assert message.startswith("Failed to load model")
        assert "the package index does not answer" in message
        assert installed_names(home) == []
        assert row(server)["state"] == "installable"


def test_another_file_than_the_pinned_one(server: Serving, wheel: Wheel, home: Path) -> None:
    build_wheel(wheel.path.parent, wheel.version, "print('not what was pinned')\n")
    reply = server.post("install", TINY)
    assert reply.status_code == 500
    assert "is not the one that was pinned" in reply.json()["error"]
    assert installed_names(home) == []
    assert row(server)["state"] == "installable"


def test_a_client_that_leaves_ends_the_installation(
    home: Path, env: dict[str, str], index: Index
) -> None:
    index.hold()
    with serving(home, env=env) as server:
        reply = server.post("install", {**TINY, "stream": True}, stream=True)
        assert index.reached.wait(30), "pip is in the middle of its download"
        assert installed_names(home), "something is being built"
        busy = server.post("uninstall", TINY)
        assert busy.status_code == 409
        assert "is being installed" in busy.json()["error"]
        reply.close()
        eventually(lambda: len(survivors(home)) == 1, "pip is gone, and the server is not")
        eventually(lambda: installed_names(home) == [], "nothing is half there")
        assert row(server)["state"] == "installable"
        index.flow.set()
        assert server.post("install", TINY).json()["status"] == "success"


def test_a_killed_server_leaves_nothing_and_the_next_one_installs(
    home: Path, env: dict[str, str], index: Index
) -> None:
    index.hold()
    with serving(home, env=env) as server:
        reply = server.post("install", {**TINY, "stream": True}, stream=True)
        assert index.reached.wait(30), "pip is in the middle of its download"
        server.process.send_signal(signal.SIGKILL)
        server.process.wait()
        reply.close()
    eventually(lambda: not survivors(home), "pip ends with its server", within=5.0)
    index.flow.set()
    with serving(home, env=env) as server:
        assert row(server)["state"] == "installable", "what was begun does not count"
        assert server.post("install", TINY).json()["status"] == "success"
        assert installed_names(home) == ["1.0"], "and is swept away"
        assert server.chat("one").status_code == 200
