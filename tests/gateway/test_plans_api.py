"""Plans of installations: over HTTP and on the command line, with and without a host to ask."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.engines import add_backend, engine_catalog, env_of, publish_engine
from tests.installer.releases import split
from tests.programs.release_server import Releases
from tests.programs.release_server import serving as releasing
from tests.serving import Serving, environment, serving, survivors

pytestmark = pytest.mark.slow

ONE = {"recipe": "fake", "backend": "release"}
NAME = "fake-v1-linux.tar.gz"
CONTRACT = {
    "recipe", "backend", "arch", "repo", "version", "filename", "url", "supports_split_archive",
    "supported",
}  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Serving, Releases, Path]]:
    """One server and one host for the whole file: nothing of a plan changes them."""
    home = tmp_path_factory.mktemp("plans")
    catalog = engine_catalog(home)
    add_backend(catalog)
    add_backend(catalog, "elsewhere", os="windows", asset="fake-{version}-linux.tar.gz")
    add_backend(
        catalog,
        "gpu",
        asset="fake-{version}-{sm}.tar.gz",
        runs_on='gpu = ["sm_80", "sm_86"]',
    )
    add_backend(
        catalog,
        "family",
        asset="fake-{version}-{family}.tar.gz",
        runs_on='gpu = ["gfx120X"]',
        parts=True,
    )
    add_backend(catalog, "absent", version="v9")
    publish_engine(home, "v1", NAME, "fake-v1-sm_86.tar.gz", "fake-v1-gfx120X.tar.gz")
    split(home / "releases" / "somebody" / "fake" / "v1" / "fake-v1-gfx120X.tar.gz", 3)
    with releasing(home / "releases") as releases:
        with serving(home, env=env_of(catalog, releases)) as server:
            yield server, releases, home
        assert set(releases.fetched()) <= {"fake-v1-gfx120X.partcount"}, "a plan fetches nothing"
    assert not (home / "cache" / "bin").exists()
    assert not survivors(home)


@pytest.fixture
def server(place: tuple[Serving, Releases, Path]) -> Serving:
    return place[0]


def plan(server: Serving, **body: str) -> dict[str, Any]:
    reply = server.post("install/dry-run", {**ONE, **body})
    assert reply.status_code == 200, reply.text
    found: dict[str, Any] = reply.json()
    return found


def test_everything_that_would_be_done(place: tuple[Serving, Releases, Path]) -> None:
    server, releases, home = place
    found = plan(server)
    file = home / "releases" / "somebody" / "fake" / "v1" / NAME
    size, digest = file.stat().st_size, hashlib.sha256(file.read_bytes()).hexdigest()
    assert set(found) >= CONTRACT
    assert {key: found[key] for key in CONTRACT} == {
        **ONE,
        "arch": "",
        "repo": "somebody/fake",
        "version": "v1",
        "filename": NAME,
        "url": f"{releases.url}/somebody/fake/releases/download/v1/{NAME}",
        "supports_split_archive": False,
        "supported": True,
    }
    (asset,) = found["assets"]
    assert asset == {
        "name": NAME,
        "url": found["url"],
        "size_bytes": size,
        "sha256": digest,
        "verified_by": "published",
    }
    assert found["download_bytes"] == size
    assert found["disk_needed_bytes"] > 5 * size
    assert found["disk_free_bytes"] > 0
    assert found["target"] == str(home / "cache" / "bin" / "fake" / "release" / "v1")
    assert found["steps"] == [
        "find release",
        f"fetch {NAME}",
        f"unpack {NAME}",
        "check",
        "activate",
    ]
    assert (found["keeps"], found["active"], found["already_installed"]) == ([], "", False)
    assert found["unknown"] == ""


def test_for_another_gpu_than_the_one_here(server: Serving) -> None:
    found = plan(server, backend="gpu", arch="sm_86")
    assert (found["arch"], found["made_for"], found["supported"]) == ("sm_86", "sm_86", True)
    assert found["filename"] == "fake-v1-sm_86.tar.gz"
    assert found["target"].endswith("/fake/gpu/v1-sm_86")
    assert found["version"] == "v1"


def test_parts_are_listed_one_by_one(server: Serving) -> None:
    found = plan(server, backend="family", arch="gfx1201")
    assert found["supports_split_archive"] is True
    assert found["filename"] == "fake-v1-gfx120X.tar.gz"
    assert [one["name"] for one in found["assets"]] == [
        f"fake-v1-gfx120X.part{number:02}-of-03.tar.gz" for number in (1, 2, 3)
    ]
    assert all(one["size_bytes"] and one["sha256"] for one in found["assets"])


def test_one_that_does_not_run_there_says_so(server: Serving) -> None:
    found = plan(server, backend="elsewhere")
    assert found["supported"] is False
    assert found["verdict"]["rule"] == "os"
    assert found["verdict"]["reason"] == "It needs Windows; this is Linux."
    assert plan(server, backend="family", arch="gfx1103")["supported"] is False


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({}, 400, "'recipe' and 'backend' are required"),
        ({"recipe": "fake"}, 400, "'recipe' and 'backend' are required"),
        ({**ONE, "arch": 5}, 400, "'arch' must be a string"),
        ({**ONE, "version": []}, 400, "'version' must be a string"),
        ([], 400, "JSON object"),
        ({**ONE, "arch": "rtx4090"}, 500, "'rtx4090' is not a family of GPUs"),
        ({**ONE, "arch": "sm_86; rm"}, 500, "is not a family of GPUs"),
        ({**ONE, "version": "../v1"}, 500, "cannot be a version"),
        ({**ONE, "version": "v7"}, 500, "v7"),
        ({**ONE, "backend": "absent"}, 500, "v9"),
        ({**ONE, "backend": "gpu"}, 500, "depends on an NVIDIA GPU"),
        ({**ONE, "backend": "gpu", "arch": "sm_80"}, 500, "has no file fake-v1-sm_80.tar.gz"),
    ],
)
def test_what_cannot_be_planned_is_a_sentence(
    server: Serving, body: Any, status: int, words: str
) -> None:
    reply = server.post("install/dry-run", body)
    assert reply.status_code == status
    answer = reply.json()
    assert isinstance(answer["error"], str)
    assert words in answer["error"]
    if status == 500:
        assert answer["arch"] == body.get("arch", "")


def cli(server: Serving, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lemonade", "backends", "install", *words],
        env={**environment(server.home), "LEMONADE_PORT": server.url.rpartition(":")[2]},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_plan_on_the_command_line(server: Serving) -> None:
    shown = cli(server, "fake:release", "--dry-run")
    assert (shown.returncode, shown.stderr) == (0, "")
    for words in ("v1, pinned by Lemonade", "somebody/fake, release v1", NAME, "1 file", "free",
                  "published by the release", "Nothing was done."):  # fmt: skip
        assert words in shown.stdout
    other = cli(server, "fake:gpu", "--dry-run", "--arch", "sm_86", "--json")
    assert json.loads(other.stdout)["filename"] == "fake-v1-sm_86.tar.gz"
    refused = cli(server, "fake:gpu", "--dry-run")
    assert refused.returncode == 1
    assert "depends on an NVIDIA GPU" in refused.stderr
    assert cli(server, "fake:release", "--json").returncode == 2


def test_nobody_to_ask(home: Path) -> None:
    catalog = engine_catalog(home)
    add_backend(catalog)
    with serving(home, env=env_of(catalog)) as server:
        found = plan(server)
        assert found["filename"] == NAME
        assert found["url"].endswith(f"/somebody/fake/releases/download/v1/{NAME}")
        assert (found["download_bytes"], found["disk_needed_bytes"]) == (None, None)
        assert found["assets"][0]["verified_by"] == "first use"
        assert "cannot be reached" in found["unknown"]
        shown = cli(server, "fake:release", "--dry-run").stdout
        assert "of unknown size" in shown
        assert "What is not known: 127.0.0.1 cannot be reached" in shown


def test_offline_nobody_is_asked(home: Path) -> None:
    catalog = engine_catalog(home)
    add_backend(catalog)
    publish_engine(home, "v1")
    with releasing(home / "releases") as releases:
        with serving(home, env=env_of(catalog, releases), config={"offline": True}) as server:
            found = plan(server)
        assert found["unknown"] == "the server is offline."
        assert releases.seen == []
