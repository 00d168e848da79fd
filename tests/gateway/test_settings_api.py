"""The settings over HTTP and over restarts: what is in force, what is kept, what is refused."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.serving import (
    ROOT,
    Serving,
    environment,
    eventually,
    fake_catalog,
    fake_model,
    serving,
)


@pytest.fixture
def server(home: Path) -> Iterator[Serving]:
    with serving(home) as one:
        yield one


def config(server: Serving) -> dict[str, Any]:
    found: dict[str, Any] = requests.get(f"{server.url}/internal/config", timeout=10).json()
    return found


def change(server: Serving, body: object) -> requests.Response:
    return requests.post(f"{server.url}/internal/set", json=body, timeout=10)


def kept(home: Path) -> dict[str, Any]:
    """What `config.json` holds, its version aside."""
    file = home / "config" / "config.json"
    document: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    document.pop("config_version", None)
    return document


def started(home: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """A server that is expected not to come up."""
    return subprocess.run(
        [sys.executable, "-m", "lemonade", "serve", "--port", "0"],
        env={**environment(home), **variables},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_a_fresh_server_has_the_defaults_and_writes_nothing(server: Serving, home: Path) -> None:
    now = config(server)
    defaults = requests.get(f"{server.url}/internal/config/defaults", timeout=10).json()
    assert now["max_loaded_models"] == 1
    assert now["llamacpp"]["backend"] == "auto"
    assert now["telemetry"]["otlp"]["protocol"] == "http/protobuf"
    assert now.keys() == defaults.keys()
    different = {key for key in now if now[key] != defaults[key]}
    assert different == {"port"}, "the command line said --port"
    assert not (home / "config" / "config.json").exists()


def test_a_change_is_in_force_kept_and_survives(home: Path) -> None:
    with serving(home) as server:
        reply = change(server, {"max_loaded_models": 3, "llamacpp": {"args": "-t 1"}})
        assert reply.status_code == 200
        body = reply.json()
        assert body["status"] == "success"
        assert body["updated"] == {"max_loaded_models": 3, "llamacpp": {"args": "-t 1"}}
        assert server.get("health").json()["max_models"]["llm"] == 3
        assert kept(home) == {"max_loaded_models": 3, "llamacpp": {"args": "-t 1"}}
        server.process.send_signal(signal.SIGKILL)
        server.process.wait()
    with serving(home) as server:
        assert config(server)["llamacpp"]["args"] == "-t 1"
        assert config(server)["max_loaded_models"] == 3
        defaults = requests.get(f"{server.url}/internal/config/defaults", timeout=10).json()
        assert defaults["max_loaded_models"] == 1, "defaults know nothing of this machine"
        change(server, {"max_loaded_models": 1, "llamacpp": {"args": ""}}).raise_for_status()
        assert kept(home) == {}, "what is as by default is not written"


@pytest.mark.parametrize(
    ("body", "updated"),
    [
        ({"llamacpp_args": "-t 2"}, {"llamacpp": {"args": "-t 2"}}),
        ({"no_broadcast": True}, {"broadcast": False}),
        ({"rocm": "nightly"}, {"rocm_channel": "nightly"}),
        ({"telemetry": {"otlp": {"headers": {"a": "b"}}}},) * 2,
    ],
)
def test_other_spellings(server: Serving, body: object, updated: object) -> None:
    assert change(server, body).json()["updated"] == updated


def test_what_is_felt_later_is_told(server: Serving) -> None:
    assert "next start" in change(server, {"log_level": "warning"}).json()["message"]
    told = change(server, {"port": 8123}).json()["message"]
    assert "port stays as the command line says until the next start" in told


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"max_loaded_model": 2}, ["'max_loaded_model'", "max_loaded_models"]),
        ({"llamacpp": {"arg": "-t 1"}}, ["'llamacpp.arg'", "llamacpp.args"]),
        ({"max_loaded_models": "two"}, ["'max_loaded_models'", "integer"]),
        ({"max_loaded_models": 0}, ["'max_loaded_models'"]),
        ({"max_loaded_models": True}, ["'max_loaded_models'"]),
        ({"log_level": "loud"}, ["'log_level'", "info"]),
        ({"port": 70000}, ["'port'"]),
        ({"llamacpp": "-t 1"}, ["'llamacpp'"]),
        ({"llamacpp": {"wheel_bin": "/no/such/program"}}, ["wheel_bin", "/no/such/program"]),
        ({"cloud_providers": []}, ["'cloud_providers'"]),
        ({}, ["empty"]),
        (["max_loaded_models"], ["object"]),
        (None, ["JSON"]),
    ],
)
def test_one_wrong_word_and_nothing_is_applied(
    server: Serving, home: Path, body: Any, words: list[str]
) -> None:
    good = {"ctx_size": 2048}
    reply = change(server, {**good, **body} if isinstance(body, dict) and body else body)
    assert reply.status_code == 400
    error = reply.json()["error"]
    assert isinstance(error, str)
    assert all(word in error for word in words), error
    assert config(server)["ctx_size"] == -1
    assert kept(home) == {}


def test_a_limit_is_felt_by_the_next_load(home: Path) -> None:
    catalog = fake_catalog(home)
    for name in ("one", "two", "three"):
        fake_model(catalog, name)
    with serving(home, env={"LEMONADE_CATALOG": str(catalog)}) as server:
        assert server.chat("one").status_code == 200
        change(server, {"max_loaded_models": 2}).raise_for_status()
        assert server.chat("two").status_code == 200
        assert set(server.loaded()) == {"one", "two"}
        change(server, {"max_loaded_models": 1}).raise_for_status()
        assert set(server.loaded()) == {"one", "two"}, "nobody is sent away by a setting"
        assert server.chat("three").status_code == 200
        eventually(lambda: set(server.loaded()) == {"three"}, "both others have left")


def test_a_folder_of_extra_models_is_looked_into_at_once(server: Serving, home: Path) -> None:
    folder = home / "my models"
    folder.mkdir()
    shutil.copy(ROOT / "models" / "tiny-lemon-Q8_0.gguf", folder / "Mine.gguf")
    change(server, {"extra_models_dir": str(folder)}).raise_for_status()
    assert server.get("models/extra.Mine").json()["downloaded"] is True
    change(server, {"extra_models_dir": ""}).raise_for_status()
    assert server.get("models/extra.Mine").status_code == 404


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"max_loaded_models": "two"}, ["'max_loaded_models'", "config.json", "integer"]),
        ({"llamacpp": {"args": 5}}, ["llamacpp.args", "config.json"]),
        ({"port": 0}, ["'port'", "config.json"]),
    ],
)
def test_a_wrong_value_in_the_file_stops_the_start_with_one_line(
    home: Path, document: object, words: list[str]
) -> None:
    file = home / "config" / "config.json"
    file.parent.mkdir()
    file.write_text(json.dumps(document))
    done = started(home)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert all(word in line for word in words), line
    assert json.loads(file.read_text()) == document, "it is the operator's to repair"


def test_wrong_site_defaults_stop_the_start_with_one_line(home: Path) -> None:
    site = home / "site.json"
    site.write_text("{")
    done = started(home, LEMONADE_DEFAULTS_PATH=str(site))
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert str(site) in line


def test_a_file_that_is_not_json_is_put_aside(home: Path) -> None:
    file = home / "config" / "config.json"
    file.parent.mkdir()
    file.write_text('{"max_loaded_models": 3')
    with serving(home) as server:
        assert config(server)["max_loaded_models"] == 1
        assert "config.json.corrupted" in server.log()
    assert file.with_name("config.json.corrupted").read_text() == '{"max_loaded_models": 3'


def test_unknown_keys_in_the_file_are_told_and_kept(home: Path) -> None:
    with serving(home, config={"of_tomorrow": 1, "ctx_sise": 5, "config_version": 2}) as server:
        assert "'of_tomorrow'" in server.log()
        assert "ctx_size" in server.log(), "a near name is told"
        change(server, {"max_loaded_models": 2}).raise_for_status()
    assert kept(home) == {"of_tomorrow": 1, "ctx_sise": 5, "max_loaded_models": 2}
