"""What the server fetches by itself: begun, listed and stopped; and bars for what is watched."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import PATIENCE, Cli, Server, eventually
from tests.gateway.releasing import ARCHIVE, installing, left_in, releasing, state
from tests.programs.release_server import Releases
from tests.serving import Serving, survivors

ESCAPE = "\x1b"
JOB = "model:Demo-1B-GGUF"


def test_what_is_begun_on_its_own_comes_back_at_once(cli: Cli, server: Server) -> None:
    done = cli("pull", "Slow", "--detach")
    assert (done.returncode, done.stderr) == (0, "")
    said = "The server goes on with {}; `lemonade downloads` shows how far it is.\n"
    assert done.stdout == said.format("model:Slow")
    assert server.asked("/pull")[0]["body"] == {
        "model_name": "Slow", "do_not_upgrade": False, "stream": True, "subscribe": False,
    }  # fmt: skip
    done = cli("backends", "install", "llamacpp:cpu", "--detach")
    assert (done.returncode, done.stdout) == (0, said.format("backend:llamacpp:cpu"))
    assert server.asked("/install")[0]["body"]["subscribe"] is False
    done = cli("backends", "install", "flm:npu", "--detach")
    assert done.returncode == 1
    assert "npu.html" in done.stderr


def test_the_list(cli: Cli) -> None:
    lines = cli("downloads").stdout.splitlines()
    assert re.split(r" {2,}", lines[0]) == ["Id", "Status", "Done", "Step"]
    assert re.split(r" {2,}", lines[2]) == [
        JOB, "downloading", "361.0 MB of 860.1 MB", "demo-q4_k_m.gguf"
    ]  # fmt: skip
    assert re.split(r" {2,}", lines[3]) == [
        "backend:llamacpp:cpu",
        "error",
        "-",
        "Nobody answers.",
    ]
    assert [job["id"] for job in json.loads(cli("downloads", "--json").stdout)] == [
        JOB, "backend:llamacpp:cpu"
    ]  # fmt: skip


def test_control(cli: Cli, server: Server) -> None:
    assert cli("downloads", "pause", JOB).stdout == f"{JOB}: paused\n"
    assert cli("downloads", "cancel", JOB).stdout == f"{JOB}: cancelled\n"
    assert cli("downloads", "remove", JOB).stdout == f"Removed: {JOB}\n"
    assert cli("downloads", "remove", "model:x").stdout == "There is no download model:x.\n"
    asked = [request["body"]["action"] for request in server.asked("/downloads/control")]
    assert asked == ["pause", "cancel", "remove", "remove"]
    done = cli("downloads", "pause", "model:x")
    assert (done.returncode, done.stderr) == (1, "Error: There is no download 'model:x'.\n")


@pytest.mark.slow
def test_bars_have_bytes_speed_time_and_the_step(cli: Cli) -> None:
    code, shown = cli.at_terminal("pull", "Steady")
    assert code == 0
    assert ESCAPE in shown
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)
    assert "[2/2] demo-q4_k_m.gguf" in plain
    assert re.search(r"0\.4 GB/0\.9 GB +[0-9.]+ MB/s +\d*\d:\d\d", plain), plain


@pytest.mark.slow
def test_lines_have_no_codes(cli: Cli) -> None:
    for words in (["pull", "Steady"], ["backends", "install", "llamacpp:cpu"], ["downloads"]):
        for env in ({}, {"TERM": "xterm-256color", "FORCE_COLOR": "1"}):
            done = cli(*words, env=env)
            assert done.returncode == 0
            assert ESCAPE not in done.stdout + done.stderr
            assert "\r" not in done.stdout
    assert re.search(
        r"Progress: 21% \(180\.6/860\.1 MB\) [0-9.]+ MB/s", cli("pull", "Steady").stdout
    )


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    assert not survivors(tmp_path)


@pytest.fixture
def releases(home: Path) -> Iterator[Releases]:
    with releasing(home) as host:
        yield host


@pytest.fixture
def real(home: Path, releases: Releases) -> Iterator[Serving]:
    with installing(home, releases) as server:
        yield server


@pytest.mark.slow
def test_ctrl_c_during_an_installation_and_the_same_command_again(
    real: Serving, releases: Releases, home: Path, environment: dict[str, str]
) -> None:
    cli = Cli({**environment, "LEMONADE_HOST": real.url})
    releases.faults = {ARCHIVE: [["slow", 1]]}
    downloads = home / "cache" / "bin" / ".downloads"
    with cli.running("backends", "install", "fake:release") as process:
        eventually(
            lambda: [p for p in downloads.rglob("*.partial") if p.stat().st_size], "half is here"
        )
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert said.splitlines()[-1] == "Interrupted."
    assert "Traceback" not in said
    eventually(lambda: not left_in(home), "nothing half is left")
    assert state(real) == "installable"
    assert real.get("downloads").json() == []
    releases.go.set()
    done = cli("backends", "install", "fake:release")
    assert done.returncode == 0, done.stderr
    assert f"fetch {ARCHIVE}" in done.stdout
    assert [one["range"] for one in releases.seen if one["storage"]][-1].startswith("bytes=")
    assert state(real) == "installed"
    done = cli("backends", "install", "fake:release")
    assert done.stdout.splitlines() == [
        "Installing backend: fake:release",
        "Backend installed successfully: fake:release",
    ]


@pytest.mark.slow
def test_an_installation_outlives_the_command_that_began_it(
    real: Serving, releases: Releases, environment: dict[str, str]
) -> None:
    cli = Cli({**environment, "LEMONADE_HOST": real.url})
    releases.faults = {ARCHIVE: [["slow", 1]]}
    assert cli("backends", "install", "fake:release", "--detach").returncode == 0
    assert releases.reached.wait(PATIENCE)
    assert "backend:fake:release" in cli("downloads").stdout
    assert cli("downloads", "pause", "backend:fake:release").stdout.endswith(": paused\n")
    releases.go.set()
    assert cli("backends", "install", "fake:release", "--detach").returncode == 0
    eventually(lambda: state(real) == "installed", "it goes on alone")
    assert "completed" in cli("downloads").stdout
    assert cli("downloads", "remove", "backend:fake:release").returncode == 0
    assert cli("downloads").stdout == "No downloads.\n"
