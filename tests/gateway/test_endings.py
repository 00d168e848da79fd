"""How the server ends, whoever asks and whatever happens meanwhile."""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from tests.serving import (
    PATIENCE,
    ROOT,
    Serving,
    environment,
    eventually,
    fake_catalog,
    fake_model,
    gone,
    serving,
)


def catalog(home: Path) -> dict[str, str]:
    folder = fake_catalog(home)
    fake_model(folder, "one")
    fake_model(folder, "slow", args="--ready-after 60")
    fake_model(folder, "stubborn", args="--ignore-term")
    fake_model(folder, "brood", args="--spawn-engine --engine-ignores-term --engine-escapes")
    return {"LEMONADE_CATALOG": str(folder)}


def ended(server: Serving) -> int:
    return server.process.wait(PATIENCE)


def test_a_server_that_is_to_outlive_its_terminal_does(home: Path) -> None:
    log_file = home / "server.log"
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            ["/usr/bin/env", "nohup", sys.executable, "-m", "lemonade", "serve", "--port", "0"],
            env={**environment(home), **catalog(home)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        eventually(lambda: "Lemonade serves" in log_file.read_text(), "it serves")
        status = Path(f"/proc/{process.pid}/status").read_text()
        ignored = next(line for line in status.splitlines() if line.startswith("SigIgn"))
        assert int(ignored.split()[1], 16) & 1 << (signal.SIGHUP - 1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.wait()


def test_a_client_that_leaves_does_not_hold_up_the_shutdown(home: Path) -> None:
    with serving(home, env=catalog(home)) as server:
        assert server.chat("stubborn").status_code == 200
        with pytest.raises(requests.exceptions.ReadTimeout):
            requests.post(f"{server.url}/internal/shutdown", timeout=0.2)
        assert ended(server) == 0


def test_a_server_whose_reader_has_gone_goes_on(home: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with (home / "errors.log").open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "lemonade", "serve", "--port", "0"],
            env={**environment(home), **catalog(home)},
            stdin=subprocess.DEVNULL,
            stdout=writing,
            stderr=errors,
        )
    os.close(writing)
    try:
        said = r"serves (http://\S+:\d+)"
        url = eventually(lambda: re.search(said, (home / "errors.log").read_text()), "it serves")
        assert requests.get(f"{url[1]}/live", timeout=PATIENCE).status_code == 200
    finally:
        process.terminate()
        process.wait(PATIENCE)


def test_a_request_after_a_crash_waits_until_the_rest_of_the_engine_is_gone(home: Path) -> None:
    with serving(home, env=catalog(home)) as server:
        assert server.chat("brood").status_code == 200
        pid = server.loaded()["brood"]["pid"]
        os.kill(pid, signal.SIGKILL)
        assert server.chat("brood").status_code == 200
        assert server.loaded()["brood"]["pid"] != pid


def test_a_second_signal_kills_engines_that_take_their_time(home: Path) -> None:
    with serving(home, env=catalog(home)) as server:
        assert server.chat("stubborn").status_code == 200
        pid = server.loaded()["stubborn"]["pid"]
        server.process.send_signal(signal.SIGTERM)
        eventually(lambda: "Shutting down" in server.log(), "the first is heard")
        server.process.send_signal(signal.SIGINT)
        assert ended(server) == 0
    assert gone(pid)


def test_a_server_that_is_ended_during_a_load_ends_that_too(home: Path) -> None:
    with serving(home, env=catalog(home)) as server, ThreadPoolExecutor(1) as threads:
        load = threads.submit(server.post, "load", {"model_name": "slow"})
        eventually(lambda: "slow: starting" in server.log(), "the load is on")
        server.process.send_signal(signal.SIGTERM)
        assert load.result(PATIENCE).status_code == 503
        assert ended(server) == 0


def test_a_server_whose_directory_is_gone_still_loads(home: Path) -> None:
    folder = home / "gone"
    folder.mkdir()
    with (home / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "lemonade", "serve", "--port", "0"],
            env={**environment(home), **catalog(home), "PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=folder,
        )
    try:
        said = r"serves (http://\S+:\d+)"
        url = eventually(lambda: re.search(said, (home / "server.log").read_text()), "it serves")
        folder.rmdir()
        body = {"model_name": "one"}
        reply = requests.post(f"{url[1]}/api/v1/load", json=body, timeout=PATIENCE)
        assert reply.status_code == 200, reply.text
    finally:
        process.terminate()
        process.wait(PATIENCE)


def test_a_log_that_cannot_be_written_keeps_no_engine_from_running(home: Path) -> None:
    with serving(home, env=catalog(home)) as server:
        logs = home / "cache" / "state" / "logs"
        logs.parent.mkdir(exist_ok=True)
        logs.write_text("a file where the directory should be")
        assert server.chat("one").status_code == 200
        eventually(lambda: "no longer written" in server.log(), "it is said")


def test_the_server_allows_itself_the_files_it_may_have(home: Path) -> None:
    with serving(home, env=catalog(home)) as server:
        soft, hard = resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)
        assert soft == hard or soft >= 65536
