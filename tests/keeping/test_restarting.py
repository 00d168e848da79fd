"""A server that begins again in its own process, with its engines loaded all the while."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.keeping.conftest import KEEP, children, kept, taken_over, unloaded
from tests.serving import PATIENCE, Serving, environment, eventually, gone, serving, survivors

pytestmark = pytest.mark.slow


def since(server: Serving) -> float:
    """When the server that answers has begun."""
    began: float = server.get("health").json()["server"]["since"]
    return began


def ask(server: Serving) -> dict[str, Any]:
    answer = requests.post(f"{server.url}/internal/restart", timeout=PATIENCE)
    assert answer.status_code == 200
    told: dict[str, Any] = answer.json()
    return told


def restarted(server: Serving, before: float) -> None:
    eventually(lambda: since(server) > before, "the server has begun again")
    assert server.process.poll() is None


def zombies_of(pid: int) -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
            except OSError:
                continue
            if fields[0] == "Z" and int(fields[1]) == pid:
                found.append(entry.name)
    return found


@pytest.mark.parametrize("flags", [(), KEEP], ids=["end", "keep"])
def test_models_stay_loaded(home: Path, env: dict[str, str], flags: tuple[str, ...]) -> None:
    with serving(home, *flags, env=env) as server:
        server.post("load", {"model_name": "brood"})
        row = server.loaded()["brood"]
        before = since(server)
        told = ask(server)
        assert told["kept"] == ["brood"]
        assert told["server"] == {"pid": server.process.pid, "since": before}
        restarted(server, before)
        again = taken_over(server, "brood")
        assert (again["pid"], again["backend_url"]) == (row["pid"], row["backend_url"])
        assert server.chat("brood").status_code == 200
        assert server.log().count("brood: starting ") == 1
        # What it prints goes on coming, and what it printed is still known.
        said = again["backend_url"].removesuffix("/v1") + "/fake/say?line=still-here"
        requests.post(said, timeout=PATIENCE)
        eventually(lambda: "still-here" in server.get("logs?model=brood").text, "its lines come")
        assert "listening on" in server.get("logs?model=brood").text
        unloaded(server, "brood", row["pid"])
        eventually(lambda: not zombies_of(server.process.pid), "nothing is left uncollected")


def test_and_again_and_by_a_signal(home: Path, env: dict[str, str]) -> None:
    with serving(home, env=env) as server:
        server.post("load", {"model_name": "one"})
        pid = server.loaded()["one"]["pid"]
        descriptors = 0
        for _ in range(3):
            before = since(server)
            server.process.send_signal(signal.SIGHUP)
            restarted(server, before)
            assert taken_over(server, "one")["pid"] == pid
            assert server.chat("one").status_code == 200
            open_now = len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))
            assert not descriptors or open_now <= descriptors + 3, "nothing piles up"
            descriptors = descriptors or open_now
    assert gone(pid), "a server that ends in order still ends its engines"


def test_a_crash_after_a_restart_is_known_by_its_signal(home: Path, env: dict[str, str]) -> None:
    with serving(home, env=env) as server:
        server.post("load", {"model_name": "one"})
        pid = server.loaded()["one"]["pid"]
        before = since(server)
        ask(server)
        restarted(server, before)
        taken_over(server, "one")
        os.kill(pid, signal.SIGABRT)
        eventually(lambda: "one" not in server.loaded(), "its end is seen")
        [incident] = server.get("incidents").json()["incidents"]
        facts = server.get(f"incidents/{incident['id']}").json()
        assert facts["ended"].startswith("ended by SIGABRT")
        assert server.chat("one").status_code == 200
        assert zombies_of(server.process.pid) == []


def test_a_killed_server_that_had_restarted_leaves_nothing(
    home: Path, env: dict[str, str]
) -> None:
    with serving(home, env=env) as server:
        server.post("load", {"model_name": "brood"})
        row = server.loaded()["brood"]
        before = since(server)
        ask(server)
        restarted(server, before)
        taken_over(server, "brood")
        eventually(lambda: not kept(home), "it is not to be kept any longer")
        eventually(lambda: b"supervisor.guardian" in _commands(home), "there is a guardian")
        server.process.kill()
        server.process.wait()
        eventually(lambda: gone(row["pid"]), "the kernel ends it")
        eventually(lambda: not list(children(home).glob("*.json")), "the guardian ends the rest")


def _commands(home: Path) -> bytes:
    found = b""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            found += line if os.fsencode(home) in line else b""
    return found


def stream(server: Serving, model: str, lines: list[str], started: threading.Event) -> None:
    for line in server.chat(model, stream=True).iter_lines(decode_unicode=True):
        lines.append(line)
        started.set()


def streamed(server: Serving, model: str) -> tuple[threading.Thread, list[str]]:
    """A client in the middle of an answer."""
    lines: list[str] = []
    started = threading.Event()
    thread = threading.Thread(target=stream, args=(server, model, lines, started))
    thread.start()
    assert started.wait(PATIENCE)
    return thread, lines


def test_an_answer_under_way_is_finished(home: Path, env: dict[str, str]) -> None:
    with serving(home, env=env) as server:
        server.post("load", {"model_name": "long"})
        pid = server.loaded()["long"]["pid"]
        before = since(server)
        thread, lines = streamed(server, "long")
        ask(server)
        thread.join(PATIENCE)
        assert [line for line in lines if line][-1] == "data: [DONE]"
        restarted(server, before)
        assert taken_over(server, "long")["pid"] == pid


def test_an_answer_that_takes_too_long_ends_with_an_error(home: Path, env: dict[str, str]) -> None:
    with serving(home, env=env, config={"restart_drain_s": 0.2}) as server:
        server.post("load", {"model_name": "endless"})
        pid = server.loaded()["endless"]["pid"]
        before = since(server)
        thread, lines = streamed(server, "endless")
        ask(server)
        thread.join(PATIENCE)
        last = [line for line in lines if line.startswith("data: ")][-1]
        assert "is restarting" in json.loads(last[6:])["error"]["message"]
        restarted(server, before)
        assert taken_over(server, "endless")["pid"] == pid
        assert not server.loaded()["endless"]["is_busy"]


def test_who_wants_it_to_end_meanwhile_is_obeyed(home: Path, env: dict[str, str]) -> None:
    with serving(home, env=env) as server:
        server.post("load", {"model_name": "endless"})
        thread, _ = streamed(server, "endless")
        ask(server)
        eventually(lambda: "Restarting" in server.log(), "the answer is waited for")
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(PATIENCE) == 0
        thread.join(PATIENCE)
    eventually(lambda: not survivors(home), "nothing is left")
    assert not kept(home)


def test_workers_begin_again_too(home: Path, env: dict[str, str]) -> None:
    with serving(home, "--workers", "1", env=env) as server:
        server.post("load", {"model_name": "long"})
        pid = server.loaded()["long"]["pid"]
        before = since(server)
        thread, lines = streamed(server, "long")
        ask(server)
        thread.join(PATIENCE)
        assert [line for line in lines if line][-1] == "data: [DONE]"
        restarted(server, before)
        assert taken_over(server, "long")["pid"] == pid
        for _ in range(8):  # on either process
            assert server.chat("long").status_code == 200
        assert zombies_of(server.process.pid) == []


def test_nobody_is_turned_away_meanwhile(home: Path, env: dict[str, str]) -> None:
    with serving(home, env=env) as server:
        server.post("load", {"model_name": "one"})
        before = since(server)
        ask(server)
        while True:  # every one of them on a connection of its own
            reply = requests.get(f"{server.api}/health", timeout=PATIENCE)
            assert reply.status_code == 200
            if reply.json()["server"]["since"] > before:
                break
        assert server.chat("one").status_code == 200


def test_a_load_under_way_is_given_up(home: Path, env: dict[str, str]) -> None:
    with serving(home, env=env, config={"max_loaded_models": 2}) as server:
        server.post("load", {"model_name": "one"})
        pid = server.loaded()["one"]["pid"]
        answers: list[requests.Response] = []
        thread = threading.Thread(
            target=lambda: answers.append(server.post("load", {"model_name": "slow"}))
        )
        thread.start()
        eventually(lambda: server.get("health").json()["models_loading"], "it is being loaded")
        before = since(server)
        assert ask(server)["ended"] == ["slow"]
        thread.join(PATIENCE)
        assert answers[0].status_code == 503
        restarted(server, before)
        assert taken_over(server, "one")["pid"] == pid
        assert len(list(children(home).glob("*.json"))) == 1


def test_the_command(home: Path, env: dict[str, str]) -> None:
    with serving(home, env=env) as server:
        server.post("load", {"model_name": "one"})
        pid = server.loaded()["one"]["pid"]
        port = server.url.rpartition(":")[2]
        done = subprocess.run(
            [sys.executable, "-m", "lemonade", "--port", port, "restart"],
            env=environment(home),
            capture_output=True,
            text=True,
            timeout=PATIENCE * 2,
            check=False,
        )
        assert (done.returncode, done.stdout) == (0, "Server restarted.\n")
        assert "Still loaded: one." in done.stderr
        assert taken_over(server, "one")["pid"] == pid


def test_a_terminal_that_closes_ends_the_server(home: Path, env: dict[str, str]) -> None:
    """The same signal, but nobody meant a restart."""
    log = home / "terminal.log"
    pid, terminal = pty.fork()
    if pid == 0:
        with log.open("wb") as out:
            os.dup2(out.fileno(), 1)
            os.dup2(out.fileno(), 2)
        words = [sys.executable, "-m", "lemonade", "serve", "--port", "0"]
        os.execve(sys.executable, words, {**environment(home), **env})
    eventually(lambda: log.exists() and b"Lemonade serves" in log.read_bytes(), "it serves")
    os.close(terminal)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert b"Bye" in log.read_bytes()


EMBEDDING = """
import os
from lemonade.app import run_server
from lemonade.storage import directories
run_server(directories(os.environ), port=0, announce=lambda url: print(url, flush=True))
"""


def test_a_program_that_embeds_the_server_is_not_run_again(
    home: Path, env: dict[str, str]
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", EMBEDDING],
        env={**environment(home), **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        answer = requests.post(f"{url}/internal/restart", timeout=PATIENCE)
        assert answer.status_code == 409
        assert "another program" in answer.text
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
