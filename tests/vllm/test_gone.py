"""Genuine vLLM is gone when we say so: API server, engine, worker and tracker.

Run with `-s` to see how long each end takes.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from tests.serving import Serving, eventually, gone, survivors
from tests.vllm.conftest import serving_vllm
from tests.vllm.ends import GONE_WITHIN, follow, kill, named, names
from tests.vllm.loading import OPTIONS, READY_WITHIN, family_of, load, starting

pytestmark = [pytest.mark.vllm, pytest.mark.slow, pytest.mark.timeout(2400)]

API_SERVER = "python"
ENGINE = "VLLM::EngineCor"
WORKER = "VLLM::Worker"

KILLS = [
    (API_SERVER, signal.SIGKILL),
    (API_SERVER, signal.SIGSEGV),
    (ENGINE, signal.SIGKILL),
    (WORKER, signal.SIGKILL),
]


@pytest.fixture(autouse=True)
def nothing_loaded(server: Serving) -> None:
    """Whatever test came before: its engine is no part of this one."""
    assert server.post("unload", timeout=READY_WITHIN).status_code == 200


def loaded_by_a_request(server: Serving) -> list[int]:
    """Ask it something: whatever became of the last engine, there is one that answers."""
    body = {"model": "tiny", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}
    reply = server.post("chat/completions", body, timeout=READY_WITHIN)
    assert reply.status_code == 200, reply.text + server.log()[-2000:]
    assert reply.json()["choices"][0]["message"]["content"]
    return family_of(server)


def test_unloaded_is_gone(server: Serving) -> None:
    before = psutil.virtual_memory().available
    family = load(server)
    between = psutil.virtual_memory().available
    answers: list[dict[str, Any]] = []

    def unload() -> None:
        answers.append(server.post("unload", {"model_name": "tiny"}).json())

    follow(server, family, "stop", unload)
    (answer,) = answers
    assert answer["still_held"] == []
    assert answer["freed_bytes"] > 1 << 30, "of keys and values alone"
    after = psutil.virtual_memory().available
    print(
        f"\nfreed_bytes {answer['freed_bytes'] >> 20} MiB after {answer['took_s']} s; available "
        f"{before >> 20}, loaded {between >> 20}, unloaded {after >> 20} MiB"
    )


def test_an_engine_that_stands_still_is_found(server: Serving) -> None:
    body = {"model_name": "tiny", **OPTIONS, "stall_timeout": 10}
    assert server.post("load", body, timeout=READY_WITHIN).status_code == 200
    family = family_of(server)
    engine = named(family, ENGINE)
    replies: list[int] = []
    asked = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4}

    def ask() -> None:
        reply = server.post("chat/completions", asked, timeout=READY_WITHIN)
        replies.append(reply.status_code)

    given_up = "is given up: it answers nobody"
    before = server.log().count(given_up)
    os.kill(engine, signal.SIGSTOP)
    asking = threading.Thread(target=ask)
    asking.start()
    eventually(lambda: server.log().count(given_up) > before, "it is found", 120)
    eventually(lambda: all(map(gone, family)), "nothing of it is alive", GONE_WITHIN)
    asking.join(READY_WITHIN)
    assert replies == [200], "it was loaded again, and the question was put to the new one"
    server.post("unload", {"model_name": "tiny"})


@pytest.mark.parametrize(("whom", "number"), KILLS)
def test_what_is_left_of_a_killed_one_is_ended_and_it_is_loaded_again(
    server: Serving, whom: str, number: signal.Signals
) -> None:
    """By the next request at first; one that is killed again and again is left to its operator."""
    family = load(server)
    victim = family[0] if whom == API_SERVER else named(family, whom)
    follow(server, family, f"{number.name} to {whom}", kill(victim, number))
    if (whom, number) == KILLS[0]:
        loaded_by_a_request(server)


class Loading:
    """A load in the background, told in events."""

    def __init__(self, server: Serving, **options: Any) -> None:
        self._body = {**OPTIONS, "model_name": "tiny", "stream": True, **options}
        self._url = f"{server.api}/load"
        self._text = ""
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        with requests.post(self._url, json=self._body, stream=True, timeout=READY_WITHIN) as reply:
            self._text = reply.text

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return not self._thread.is_alive()

    def text(self) -> str:
        """All it was told; waits for its end."""
        self._thread.join(READY_WITHIN)
        return self._text


def being_started(server: Serving, load: Loading | None = None) -> list[int]:
    """Its processes, as soon as its worker is among them."""

    def found() -> list[int]:
        assert load is None or not load.over, load.text()
        return starting(server)

    return list(eventually(found, "its worker starts", READY_WITHIN))


def stopped(server: Serving, family: list[int]) -> None:
    """Stop all of them where they are, and wait until the server has had enough."""
    before = server.log().count("is being ended")
    for pid in family:
        os.kill(pid, signal.SIGSTOP)
    eventually(
        lambda: server.log().count("is being ended") > before, "it is given up", READY_WITHIN
    )


def test_a_load_whose_client_leaves(server: Serving) -> None:
    with requests.post(
        f"{server.api}/load",
        json={**OPTIONS, "model_name": "tiny", "stream": True},
        stream=True,
        timeout=READY_WITHIN,
    ) as reply:
        family = being_started(server)
        follow(server, family, "client of a load leaves (2 s are waited for another)", reply.close)


def test_a_load_that_is_called_off(server: Serving) -> None:
    load = Loading(server)
    family = being_started(server, load)
    follow(
        server, family, "unload while loading", lambda: server.post("unload", {"model": "tiny"})
    )
    assert "was given up" in load.text()


def test_a_start_that_hangs(server: Serving) -> None:
    load = Loading(server, stall_timeout=4)
    family = being_started(server, load)
    stopped(server, family)
    follow(server, family, "start hangs, from the end of patience", lambda: None)
    assert "did nothing for 4 s" in load.text()


def test_a_start_that_takes_too_long(server: Serving) -> None:
    # Its worker must be there by then, also where others use the machine.
    load = Loading(server, ready_timeout=180, stall_timeout=600)
    family = being_started(server, load)
    stopped(server, family[1:])
    follow(server, family, "start takes too long, from the end of its time", lambda: None)
    assert "was not ready after 180 s" in load.text()


@pytest.mark.parametrize(
    ("model", "args", "said"),
    [
        ("tiny", "--dtype nonsense", "invalid choice"),
        ("tiny", "--num-gpu-blocks-override 1", "no memory left for keys"),
        ("damaged", "", "missing or damaged"),
    ],
    ids=["arguments it refuses", "arguments its engine refuses", "damaged weights"],
)
def test_a_start_that_fails(server: Serving, model: str, args: str, said: str) -> None:
    before = set(all_below(server))
    body = {"model_name": model, "ctx_size": 256, "vllm_args": args}
    begin = time.monotonic()
    reply = server.post("load", body, timeout=READY_WITHIN)
    left = [pid for pid in set(all_below(server)) - before if not gone(pid)]
    assert left == [], names(left)
    assert reply.status_code == 500, reply.text
    assert said in reply.text
    print(f"\n| start fails: {args or model} | {time.monotonic() - begin:.1f} s | | |")


def all_below(server: Serving) -> list[int]:
    children = psutil.Process(server.process.pid).children(recursive=True)
    return [child.pid for child in children]


def test_a_killed_server(tmp_path: Path, hub: str, vllm_bundles: Path) -> None:
    with serving_vllm(tmp_path, hub, vllm_bundles) as server:
        family = load(server)
        begin = time.monotonic()
        os.kill(server.process.pid, signal.SIGKILL)
        eventually(lambda: all(map(gone, family)), "nothing is alive", GONE_WITHIN)
        print(f"\n| SIGKILL to Lemonade | | {time.monotonic() - begin:.2f} s | |")
    eventually(lambda: not survivors(tmp_path), "the guardian is gone as well", GONE_WITHIN)
    with serving_vllm(tmp_path, hub, vllm_bundles) as server:
        loaded_by_a_request(server)
    assert not survivors(tmp_path)
