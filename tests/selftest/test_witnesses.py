"""What is wrong is found: each of the things that must hold is broken once."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from lemonade.core.errors import ConnectionLost, ServerRefused
from lemonade.selftest.asking import Asked
from lemonade.selftest.draw import Ending, EngineKind, Fault, Moment, draw_round
from lemonade.selftest.round import conduct
from lemonade.selftest.stage import (
    Stage,
    _of_growth,
    _of_leases,
    _of_ledger,
    _of_lives,
    _of_workers,
    staged,
)
from lemonade.selftest.subject import fake_subject
from lemonade.selftest.thief import Thief
from lemonade.selftest.traces import end_all, living, open_files, tell
from lemonade.supervisor import LedgerEntry
from tests.serving import eventually, gone

MARK = "lemonade-selftest-0011223344556677"
SLEEP = "import os, time; os.write(1, b'x'); time.sleep(600)"


@contextmanager
def program(code: str, *words: str, **env: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has begun to sleep; it leads a session of its own."""
    process = subprocess.Popen(
        [sys.executable, "-S", "-c", code, *words],
        env=env,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.read(1) == b"x"
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with staged() as one:
        yield one
    assert not living(one.place.mark)
    assert not one.place.root.exists()


def found(pid: int) -> bool:
    return pid in {one.pid for one in living(MARK)}


def test_who_carries_the_mark_is_found_and_nobody_else_is_signalled() -> None:
    with (
        program(SLEEP, HOME=f"/tmp/{MARK}-x") as inherited,
        program(SLEEP, f"/tmp/{MARK}-y") as named,
        program(SLEEP) as stranger,
    ):
        assert found(inherited.pid)
        assert found(named.pid)
        assert not found(stranger.pid)
        assert not found(os.getpid())
        assert not tell(stranger.pid, signal.SIGKILL, MARK)
        assert {one.pid for one in end_all(MARK)} == {inherited.pid, named.pid}
        assert inherited.wait() == named.wait() == -signal.SIGKILL
        assert not living(MARK)
        assert not gone(stranger.pid)


def test_the_dead_are_not_alive() -> None:
    with program(SLEEP, HOME=MARK) as process:
        process.send_signal(signal.SIGKILL)
        eventually(lambda: gone(process.pid), "it is dead")
        assert not found(process.pid), "nobody has collected it, and yet"
        assert not tell(process.pid, 0, MARK)
        assert open_files(process.pid) == 0
        process.wait()


def test_leases_that_are_left_are_told() -> None:
    row = {"model_name": "a", "active_requests": 0, "is_streaming": False, "status": "ready"}
    fine = {"all_models_loaded": [row], "models_loading": []}
    assert list(_of_leases(fine)) == []
    leaked = {**fine, "all_models_loaded": [{**row, "active_requests": 2}]}
    assert list(_of_leases(leaked)) == ["a has 2 leases and nobody asks it"]
    evicting = {**fine, "all_models_loaded": [{**row, "status": "evicting"}]}
    assert list(_of_leases(evicting)) == ["a is not ready but evicting"]
    loading = {**fine, "models_loading": [{"model_name": "b", "step": "weights"}]}
    assert list(_of_leases(loading)) == ["b is still loading (weights)"]


def test_workers_that_are_missing_are_told() -> None:
    assert list(_of_workers({"workers": {"wanted": 2, "ready": 2}})) == []
    [said] = _of_workers({"workers": {"wanted": 2, "ready": 1}})
    assert said == "1 of 2 workers accept connections"


def test_a_ledger_that_is_not_true_is_told() -> None:
    us = os.getpid()
    health = {"all_models_loaded": [{"pid": us}]}
    entry = LedgerEntry(Path("a.json"), "served", name="a", leader=us)
    assert list(_of_ledger(health, (entry,))) == []
    [missing] = _of_ledger(health, ())
    assert missing == f"the ledger has the engines [], loaded are ['{us}']"
    dead = replace(entry, leader=2**22 + 1)
    assert f"the ledger has a ({2**22 + 1}), which is dead" in list(_of_ledger(health, (dead,)))
    left = replace(entry, state="left-behind", file=Path("b.json"), name="b")
    assert "the ledger says that b is left-behind" in list(_of_ledger(health, (entry, left)))


class Teller:
    """A server that says and uses what it is told to."""

    def __init__(self, **counters: int) -> None:
        self.counters = counters
        self.pid = os.getpid()
        self.files = self.resident_bytes = 0

    def sum_of(self, counter: str) -> int:
        return self.counters[counter.removeprefix("lemonade_child_")]


def test_numbers_that_do_not_add_up_are_told() -> None:
    health = {"all_models_loaded": [{}]}
    assert not list(_of_lives(Teller(starts=6, stops=3, crashes=2), health))
    [said] = _of_lives(Teller(starts=7, stops=3, crashes=2), health)
    assert said.startswith("7 engines were started, 3 stopped, 2 crashed and 1 are loaded")


def test_a_server_that_grows_is_told() -> None:
    one = Teller()
    assert not list(_of_growth(one))
    assert one.files > 0
    assert one.resident_bytes > 1 << 20
    with ExitStack() as held:
        for _ in range(60):
            held.enter_context(Path(os.devnull).open())
        [said] = _of_growth(one)
    assert "files open" in said
    one.resident_bytes = 1 << 20
    one.files = 1000
    ballast = bytearray(b"x") * (300 << 20)
    [said] = _of_growth(one)
    assert "MiB of memory, and had 1 MiB at first" in said
    del ballast


@pytest.mark.parametrize(
    ("asked", "may_break", "says"),
    [
        (Asked("It", text="right", whole=True), False, ""),
        (Asked("It", text="wrong", whole=True), False, "answered wrongly"),
        (Asked("It", text="", whole=True), False, "answered wrongly"),
        (Asked("It", reply={"status": "success"}, whole=True), False, ""),
        (Asked("It", text="ri", error=ServerRefused("The engine crashed.")), False, ""),
        (Asked("It", text="ri", error=ConnectionLost("It broke off.")), False, "broke off"),
        (Asked("It", text="ri", error=ConnectionLost("It broke off.")), True, ""),
    ],
)
def test_what_a_client_may_be_told(asked: Asked, says: str, *, may_break: bool) -> None:
    problem = asked.wrong(may_break=may_break, fits=lambda text: text == "right")
    assert says in problem if says else not problem


def test_a_thief_answers_wrongly_and_remembers_who_asked() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with Thief(port) as thief:
        assert thief.listens
        assert json.load(urlopen(f"http://127.0.0.1:{port}/health"))["status"] == "ok"
        assert thief.asked == [], "a probe is no question"
        urlopen(Request(f"http://127.0.0.1:{port}/v1/chat/completions", data=b"{}")).read()
        assert thief.asked == ["POST /v1/chat/completions HTTP/1.1"]
        with Thief(port) as another:
            assert not another.listens


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_round_that_goes_wrong_is_told_with_the_log_and_the_next_one_is_sound(
    stage: Stage,
) -> None:
    subject = fake_subject()
    draw = replace(
        draw_round(1, [EngineKind.FAKE]),
        fault=Fault.KILL, moment=Moment.IDLE, ending=Ending.KILL, habits=(), delay=0.0,
    )  # fmt: skip
    wrong = conduct(stage, replace(subject, answer="something else"), draw)
    assert len(wrong.violations) == 1
    assert "the next request was answered wrongly: 'word0 word1 word2 '" in wrong.violations[0]
    assert any("Lemonade serves" in line for line in wrong.log)
    assert not living(stage.place.mark), "the stage is cleared after a violation"
    sound = conduct(stage, subject, draw)
    assert sound.violations == ()
    assert sound.log == ()
    with program(SLEEP, HOME=str(stage.place.root)) as stray:
        assert any(f"process {stray.pid} " in one for one in stage._problems())
    assert stage.settled() == ()
