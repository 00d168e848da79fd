"""`lemonade doctor`: without a server, beside one, and beside something that is none."""

from __future__ import annotations

import json
import socket
import tarfile
from pathlib import Path

import pytest

from lemonade import __version__
from tests.cli.conftest import Cli
from tests.serving import environment as server_environment
from tests.serving import serving, survivors

pytestmark = pytest.mark.slow


def free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return str(probe.getsockname()[1])


@pytest.fixture
def doctor(environment: dict[str, str]) -> Cli:
    """A command line whose hosts are all where nobody listens."""
    nobody = "http://127.0.0.1:9"
    return Cli(
        {
            **environment,
            "LEMONADE_PORT": free_port(),
            "HF_ENDPOINT": nobody,
            "LEMONADE_GITHUB_URL": nobody,
            "LEMONADE_GITHUB_API_URL": nobody,
        }
    )


def test_without_a_server(doctor: Cli, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    done = doctor("doctor")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert "Devices" in lines
    assert f"  ok       Port {doctor.env['LEMONADE_PORT']} on localhost is free." in lines
    at = next(i for i, line in enumerate(lines) if "The host of models cannot be" in line)
    assert lines[at].startswith("  warning  ")
    assert lines[at + 1].startswith("           seen: http://127.0.0.1:9/")
    assert lines[at + 2].startswith("           fix:  ")
    assert lines[-1].startswith("Found: ")
    assert "\x1b" not in done.stdout
    assert sorted(tmp_path.rglob("*")) == before  # it looks, and changes nothing


def test_the_report_for_programs(doctor: Cli) -> None:
    done = doctor("doctor", "--json", env={"HF_HUB_OFFLINE": "1"})
    report = json.loads(done.stdout)
    assert (report["schema"], report["lemonade"]) == (1, __version__)
    assert set(report) == {"schema", "lemonade", "time", "summary", "findings"}
    assert set(report["summary"]) == {"ok", "note", "warning", "error"}
    keys = {"check", "level", "rule", "reason", "evidence", "fix"}
    assert all(set(finding) == keys for finding in report["findings"])
    (hosts,) = [finding for finding in report["findings"] if finding["check"] == "hosts"]
    assert hosts["rule"] == "offline"


def test_errors_are_the_exit_code(doctor: Cli, environment: dict[str, str]) -> None:
    folder = Path(environment["LEMONADE_CONFIG_DIR"])
    (folder / "recipes").mkdir(parents=True)
    (folder / "recipes/mine.toml").write_text("schema = [")
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        done = doctor("doctor", env={"LEMONADE_PORT": str(stranger.getsockname()[1])})
    assert (done.returncode, done.stderr) == (1, "")
    assert "mine.toml is not valid TOML" in done.stdout
    assert "is held by another program" in done.stdout
    assert "Found: 2 errors" in done.stdout


def test_at_a_terminal(doctor: Cli) -> None:
    code, shown = doctor.at_terminal("doctor")
    assert code == 0
    assert "\x1b[33mwarning" in shown
    assert "\x1b[32mok" in shown


def test_the_support_archive(doctor: Cli, tmp_path: Path) -> None:
    file = tmp_path / "support.tar.gz"
    secret = {"LEMONADE_API_KEY": "planted-secret-0"}
    done = doctor("doctor", "--bundle", str(file), env=secret)
    assert done.returncode == 0
    assert f"Wrote {file}" in done.stderr
    with tarfile.open(file) as archive:
        names = archive.getnames()
        texts = [reader.read() for m in archive if (reader := archive.extractfile(m))]
    assert "lemonade-support/doctor.json" in names
    assert not any(b"planted-secret-0" in text for text in texts)
    assert not any(str(tmp_path).encode() in text for text in texts)  # it is the home directory
    before = file.read_bytes()
    again = doctor("doctor", "--bundle", str(file))
    assert (again.returncode, again.stdout) == (1, "")
    assert again.stderr.startswith(f"Error: {file} is there already")
    assert file.read_bytes() == before
    assert doctor("doctor", "--json", "--bundle", str(file), "--force").returncode == 0
    assert [path.name for path in tmp_path.glob(".*")] == []


def test_beside_a_server(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        port = server.url.rpartition(":")[2]
        cli = Cli(server_environment(tmp_path))
        done = cli("--port", port, "doctor")
        assert done.returncode == 0, done.stdout
        said = f"Lemonade {__version__} serves port {port} ("
        assert said in done.stdout
        assert f"pid {server.process.pid})" in done.stdout
        assert server.get("health").status_code == 200
    assert not survivors(tmp_path)
