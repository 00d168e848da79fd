"""Backends out of files, folders and addresses that somebody hands over; nobody else is asked."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.engines import add_backend, engine_catalog, env_of, publish_engine
from tests.gateway.test_backends_api import BACKEND as WHEEL_BACKEND
from tests.gateway.test_backends_api import events
from tests.installer.releases import split
from tests.installer.wheels import build_wheel
from tests.programs.release_server import serving as releasing
from tests.serving import FAKE_ENGINE, Serving, environment, serving

pytestmark = pytest.mark.slow

ONE = {"recipe": "fake", "backend": "release"}
NAME = "fake-v1-linux.tar.gz"


@pytest.fixture
def archive(home: Path) -> Path:
    """The release's file, as somebody carries it to a machine without a network."""
    publish_engine(home, "v1")
    carried = home / "carried" / NAME
    carried.parent.mkdir()
    shutil.copy(home / "releases" / "somebody" / "fake" / "v1" / NAME, carried)
    return carried


@pytest.fixture
def catalog(home: Path) -> Path:
    catalog = engine_catalog(home)
    add_backend(catalog, parts=True)
    return catalog


@pytest.fixture
def server(home: Path, catalog: Path) -> Iterator[Serving]:
    """Offline: what is handed over needs nobody."""
    with serving(home, env=env_of(catalog), config={"offline": True}) as one:
        yield one


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def receipt(home: Path, version: str, variant: str = "release") -> dict[str, Any]:
    folder = home / "cache" / "bin" / "fake" / variant / version
    found: dict[str, Any] = json.loads((folder / "receipt.json").read_text())
    return found


def versions(home: Path) -> list[str]:
    folder = home / "cache" / "bin" / "fake" / "release"
    return sorted(one.name for one in folder.iterdir() if (one / "receipt.json").is_file())


def cli(server: Serving, *words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lemonade", "backends", "install", *words],
        env={**environment(server.home), "LEMONADE_PORT": server.url.rpartition(":")[2]},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=cwd,
    )


def test_a_file_on_the_command_line(server: Serving, archive: Path, home: Path) -> None:
    shown = cli(server, "fake:release", "--from", NAME, cwd=archive.parent)
    assert (shown.returncode, shown.stderr) == (0, ""), shown
    assert f"fake:release v1 was installed from {archive}. Nobody vouches" in shown.stdout
    assert digest(archive) in shown.stdout
    kept = receipt(home, "v1")
    assert (kept["source"], kept["origin"]) == ("file", str(archive))
    assert kept["assets"] == [
        {
            "name": NAME,
            "url": str(archive),
            "size": archive.stat().st_size,
            "sha256": digest(archive),
        }
    ]
    assert server.chat("one").status_code == 200
    assert archive.exists(), "it stays somebody's"
    assert not list((home / "cache" / "bin" / ".downloads" / "fake").iterdir())
    again = server.post("install", {**ONE, "from": str(archive)}).json()
    assert "is installed already" in again["message"]
    publish_engine(home, "v1", program="print('another')")
    other = home / "releases" / "somebody" / "fake" / "v1" / NAME
    refused = server.post("install", {**ONE, "from": str(other), "force": True})
    assert refused.status_code == 500
    assert "is not the file that was expected" in refused.json()["error"], "it was recorded"
    assert server.chat("one").status_code == 200


def test_a_name_of_its_own_is_a_version_of_its_own(
    server: Serving, archive: Path, home: Path
) -> None:
    mine = archive.rename(archive.with_name("mine.tar.gz"))
    known = digest(mine)
    wrong = server.post("install", {**ONE, "from": str(mine), "sha256": "0" * 64})
    assert wrong.status_code == 500
    assert "instead of " + "0" * 64 in wrong.json()["error"]
    seen = events(
        server.post("install", {**ONE, "from": str(mine), "sha256": known, "stream": True})
    )
    assert seen[-1][0] == "complete"
    version = f"local-{known[:8]}"
    assert seen[-1][1]["message"] == f"fake:release {version} was installed from {mine}."
    assert versions(home) == [version]
    assert server.chat("one").status_code == 200
    shown = cli(server, "fake:release@v7", "--from", "mine.tar.gz", cwd=mine.parent)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert versions(home) == [version, "v7"]


def test_folders(server: Serving, archive: Path, home: Path) -> None:
    """With parts, with the archive, or with what was in it."""
    split(archive, 3)
    answer = server.post("install", {**ONE, "from": str(archive.parent)}).json()
    assert answer["status"] == "success", answer
    assert [one["name"] for one in receipt(home, "v1")["assets"]] == [
        f"fake-v1-linux.part{n:02}-of-03.tar.gz" for n in (1, 2, 3)
    ]
    tree = home / "tree"
    (tree / "bin").mkdir(parents=True)
    program = tree / "bin" / "fake-server"
    text = FAKE_ENGINE.read_text()
    program.write_text(f"#!{sys.executable}\n{text}")
    program.chmod(0o4777)
    (tree / "link").symlink_to("bin/fake-server")
    answer = server.post("install", {**ONE, "from": str(tree), "version": "mine"}).json()
    assert answer["status"] == "success", answer
    copy = home / "cache" / "bin" / "fake" / "release" / "mine" / "tree"
    assert (copy / "bin" / "fake-server").stat().st_mode & 0o7777 == 0o755
    assert (copy / "link").readlink() == Path("bin/fake-server")
    (tree / "out").symlink_to("../secret")
    refused = server.post("install", {**ONE, "from": str(tree), "version": "more"})
    assert refused.status_code == 500
    assert "a link that leads out" in refused.json()["error"]
    assert versions(home) == ["mine", "v1"]


def test_what_cannot_be_handed_over(server: Serving, home: Path, catalog: Path) -> None:
    empty = home / "empty"
    empty.mkdir()
    text = home / "notes.txt"
    text.write_text("no archive")
    damaged = home / "damaged.tar.gz"
    damaged.write_bytes(b"\x1f\x8b" + b"x" * 100)
    twice = home / "twice"
    for where in ("a", "b"):
        (twice / where).mkdir(parents=True)
        (twice / where / "fake-server").write_text("")
    fifo = home / "pipe.tar.gz"
    os.mkfifo(fifo)
    for source, status, words in (
        (str(home / "absent.tar.gz"), 400, f"{home}/absent.tar.gz cannot be read: No such file"),
        ("relative.tar.gz", 400, "is not an absolute path"),
        (str(empty), 400, "has no fake-server"),
        (str(twice), 400, "has fake-server in 2 places"),
        (str(text), 400, "is not an archive that Lemonade can unpack"),
        (str(damaged), 500, "cannot be unpacked"),
        (str(fifo), 400, "is neither a file nor a folder"),
        (f"{home}/a\0b", 400, "is not an absolute path"),
        ("https://127.0.0.1/x.tar.gz", 409, "'offline' forbids fetching"),
    ):
        reply = server.post("install", {**ONE, "from": source})
        assert (reply.status_code, words in reply.json()["error"]) == (status, True), reply.text
    for body, words in (
        ({"from": 5}, "'from' must be a string"),
        ({"from": ""}, "'from' names nothing"),
        ({"from": str(damaged), "sha256": "abc"}, "is not a SHA-256"),
        ({"sha256": "0" * 64}, "'sha256' is about what 'from' names"),
        ({"from": str(damaged), "stream": True, "subscribe": False}, "while somebody waits"),
        ({"from": str(damaged), "version": "../x"}, "cannot be a version"),
        ({"from": str(damaged), "version": "active.json"}, "cannot be a version"),
    ):
        reply = server.post("install", {**ONE, **body})
        assert reply.status_code == 400, reply.text
        assert words in reply.json()["error"]
    assert not (home / "cache" / "bin" / "fake" / "release" / "v1").exists()
    refused = cli(server, "fake:release", "--from", "absent.tar.gz", cwd=home)
    assert refused.returncode == 1
    assert f"{home}/absent.tar.gz cannot be read" in refused.stderr
    assert "must be able to read it" in refused.stderr
    assert cli(server, "fake:release", "--sha256", "0" * 64, cwd=home).returncode == 2
    nothing = cli(server, "fake:release", "--from", "", cwd=home)
    assert (nothing.returncode, "names nothing" in nothing.stderr) == (2, True)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(server: Serving, archive: Path) -> None:
    archive.chmod(0)
    reply = server.post("install", {**ONE, "from": str(archive)})
    assert reply.status_code == 400
    assert f"{archive} cannot be read: Permission denied" in reply.json()["error"]


def test_an_address(home: Path, catalog: Path, archive: Path) -> None:
    """Only that address is asked; what is secret in it is not kept."""
    with releasing(home / "releases") as releases:
        with serving(home, env=env_of(catalog)) as server:
            url = f"{releases.url}/storage/somebody/fake/v1/{NAME}?token=secret"
            answer = server.post("install", {**ONE, "from": url}).json()
            assert answer["status"] == "success", answer
            assert "secret" not in json.dumps(answer)
            assert server.chat("one").status_code == 200
            gone = f"{releases.url}/storage/somebody/fake/v1/absent.tar.gz"
            assert server.post("install", {**ONE, "from": gone}).status_code == 502
            for bad, words in (
                ("file:///etc/passwd", "is not the address of a file"),
                (f"{releases.url}/", "is not the address of a file"),
                ("https://[x/y.zip", "what is to be fetched is none"),
                ("https://two..dots/y.zip", "what is to be fetched is none"),
            ):
                reply = server.post("install", {**ONE, "from": bad})
                assert (reply.status_code, words in reply.json()["error"]) == (400, True)
            plain = server.post("install", {**ONE, "from": "http://example.invalid/x.zip"})
            assert "it is not encrypted" in plain.json()["error"]
            assert "secret" not in server.log()
        assert "secret" not in json.dumps(receipt(home, "v1"))
        assert receipt(home, "v1")["origin"].startswith(releases.url.replace(":", ":")[:16])
        assert {one["path"].split("/")[1] for one in releases.seen} == {"storage"}


def test_nobody_takes_away_what_is_being_fetched(home: Path, catalog: Path, archive: Path) -> None:
    """An address may lead to gigabytes: whoever prunes or installs meanwhile leaves them alone."""
    with (
        releasing(home / "releases") as releases,
        serving(home, env={**env_of(catalog), **releases.environ}) as server,
        ThreadPoolExecutor() as threads,
    ):
        releases.faults = {NAME: [["slow", 1]]}
        url = f"{releases.url}/storage/somebody/fake/v1/{NAME}"
        handed = threads.submit(server.post, "install", {**ONE, "from": url, "version": "mine"})
        assert releases.reached.wait(30)
        pruned = server.post("backends/prune").json()
        assert (pruned["removed"], len(pruned["kept"])) == ([], 1), pruned
        refused = server.post("uninstall", ONE)
        assert "is being installed just now" in refused.text
        other = threads.submit(server.post, "install", ONE)
        releases.go.set()
        assert handed.result().json()["status"] == "success", handed.result().text
        assert other.result().json()["status"] == "success", other.result().text
        assert versions(home) == ["mine", "v1"]
        assert not [*(home / "cache" / "bin" / ".downloads").rglob("*.tar.gz*")]


def test_wheels(home: Path) -> None:
    """A folder of wheels, or one of them; no index is asked, and pins hold."""
    wheel = build_wheel(home / "wheels")
    catalog = engine_catalog(home)
    text = WHEEL_BACKEND.format(
        variant="tiny",
        preference=1,
        os="linux",
        version=wheel.version,
        file=wheel.path.name,
        sha256=wheel.sha256,
        program=FAKE_ENGINE,
    )
    (catalog / "backends" / "fake-tiny.toml").write_text(text)
    tiny = {"recipe": "fake", "backend": "tiny"}
    env = {
        **env_of(catalog),
        "LEMONADE_WHEELS": "",
        "LEMONADE_PYPI_URL": "http://127.0.0.1:9/simple",
        "PIP_CONFIG_FILE": "/dev/null",
        "PIP_NO_CACHE_DIR": "1",
    }
    with serving(home, env=env, config={"offline": True}) as server:
        empty = home / "none"
        empty.mkdir()
        reply = server.post("install", {**tiny, "from": str(empty)})
        assert (reply.status_code, "has no wheels" in reply.json()["error"]) == (400, True)
        (empty / "other-1.0-py3-none-any.whl").write_bytes(b"")
        reply = server.post("install", {**tiny, "from": str(empty)})
        assert f"lacks tinyengine=={wheel.version}" in reply.json()["error"]
        answer = server.post("install", {**tiny, "from": str(wheel.path)}).json()
        assert answer["status"] == "success", answer
        assert receipt(home, wheel.version, "tiny")["source"] == "file"
        assert server.chat("one").status_code == 200
