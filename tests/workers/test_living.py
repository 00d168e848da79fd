"""Workers, engines and the server end in every order, and no request is lost that need not be."""

from __future__ import annotations

import http.client
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests

from tests.serving import Serving, eventually, fake_catalog, fake_model, gone, serving
from tests.workers.seeing import ask, begin, connection, read, when_ready, workers

pytestmark = pytest.mark.slow

SLOW = "--chunks 4 --slow-chunks 0.2"


@contextmanager
def running(
    home: Path, *args: str, models: dict[str, str] | None = None, number: int = 1
) -> Iterator[Serving]:
    """A server with workers, and models with these habits; one may be loaded at a time."""
    catalog = fake_catalog(home)
    for name, habits in (models or {"slow": SLOW, "other": ""}).items():
        fake_model(catalog, name, args=habits)
    env = {"LEMONADE_CATALOG": str(catalog)}
    with serving(home, "--workers", str(number), *args, env=env) as server:
        when_ready(server, number)
        yield server


class Stream:
    """A stream that a worker relays, read to its end by a thread."""

    def __init__(self, one: http.client.HTTPConnection, model: str) -> None:
        begin(one, model, stream=True)
        self.response = one.getresponse()
        self.body = self.response.read(1)
        self.error: Exception | None = None
        self.thread = threading.Thread(target=self._read)
        self.thread.start()

    def _read(self) -> None:
        try:
            self.body += self.response.read()
        except (http.client.HTTPException, OSError) as error:
            self.error = error

    @property
    def complete(self) -> bool:
        self.thread.join(30)
        return self.error is None and self.body.endswith(b"data: [DONE]\n\n")


def engine_of(server: Serving, model: str) -> str:
    url: str = server.loaded()[model]["backend_url"]
    return url.removesuffix("/v1")


def test_a_model_is_unloaded_after_the_streams_of_workers(home: Path) -> None:
    with running(home, "--model", "slow") as server:
        eventually(lambda: "slow" in server.loaded(), "it is loaded")
        with connection(server, "slow", at_worker=True) as one:
            stream = Stream(one, "slow")
            server.post("unload", {"model_name": "slow"}).raise_for_status()
            assert "slow" not in server.loaded()
            assert stream.complete
            # The same connection goes to the server, which loads the model again.
            assert ask(one, "slow", max_tokens=1)[0] == 200


def test_a_model_is_evicted_after_the_streams_of_workers(home: Path) -> None:
    with running(home, "--model", "slow") as server:
        eventually(lambda: "slow" in server.loaded(), "it is loaded")
        with connection(server, "slow", at_worker=True) as one:
            stream = Stream(one, "slow")
            assert server.chat("other").status_code == 200
            assert stream.complete
            eventually(lambda: list(server.loaded()) == ["other"], "the first has left")


def test_no_request_is_lost_while_models_take_turns(home: Path) -> None:
    wrong: list[object] = []
    over = threading.Event()

    def client(server: Serving, model: str) -> None:
        one = http.client.HTTPConnection("127.0.0.1", urlsplit(server.url).port, timeout=60)
        while not over.is_set():
            status, _, body = ask(one, model, stream=True)
            if status != 200 or not body.endswith(b"data: [DONE]\n\n"):
                wrong.append((status, body))
                return
            one.close()
        one.close()

    models = {"one": "--chunks 2 --slow-chunks 0.02", "two": "--chunks 2 --slow-chunks 0.02"}
    with running(home, models=models, number=2) as server:
        threads = [
            threading.Thread(target=client, args=(server, name)) for name in models for _ in "123"
        ]
        for thread in threads:
            thread.start()
        for _ in range(6):
            for name in models:
                server.post("load", {"model_name": name}).raise_for_status()
        over.set()
        for thread in threads:
            thread.join(60)
    assert not wrong


@pytest.mark.parametrize("stream", [False, True])
def test_an_engine_lost_before_its_first_byte_is_asked_again_once(
    home: Path, stream: bool
) -> None:
    with running(home, "--model", "slow", models={"slow": "--slow-chunks 0.5"}) as server:
        eventually(lambda: "slow" in server.loaded(), "it is loaded")
        with connection(server, "slow", at_worker=True) as one:
            engine = engine_of(server, "slow")
            counted = f"{engine}/fake/active"
            begin(one, "slow", stream=stream)

            def asked() -> bool:
                return bool(requests.get(counted, timeout=5).json()["active"] == 1)

            eventually(asked, "the engine has the request")
            with pytest.raises(requests.ConnectionError):
                requests.post(f"{engine}/fake/crash", timeout=5)
            status, _, body = read(one.getresponse())
            assert status == 200, body
            assert b"connection_lost" not in body
            counts = requests.get(f"{engine_of(server, 'slow')}/fake/active", timeout=5).json()
            assert counts["served"] == 1


def test_an_engine_that_always_dies_is_asked_twice_and_explained(home: Path) -> None:
    with running(home, models={"bad": "--answers crash"}) as server:
        server.post("load", {"model_name": "bad"}).raise_for_status()
        where = f"{server.url}/v1/chat/completions"
        body = {"model": "bad", "messages": []}
        answer = requests.post(where, json=body, timeout=30)
        assert answer.status_code == 502, answer.text
        assert answer.json()["error"]["incident"]
        eventually(lambda: "bad" not in server.loaded(), "it is gone")


def test_an_engine_that_hangs_is_ended_though_only_a_worker_asks_it(home: Path) -> None:
    with running(home) as server:
        server.post("../../internal/set", {"hang": {"timeout_s": 0.4}}).raise_for_status()
        server.post("load", {"model_name": "other"}).raise_for_status()
        pid = server.loaded()["other"]["pid"]
        with connection(server, "other", at_worker=True) as one:
            os.kill(pid, signal.SIGSTOP)
            begin(one, "other")
            eventually(lambda: gone(pid), "the engine is ended")
            assert read(one.getresponse())[0] == 200, "the next one has answered"
        assert "did nothing for 0.4 s" in server.log()


def test_a_worker_that_dies_is_replaced(home: Path) -> None:
    with running(home, "--model", "slow") as server:
        eventually(lambda: "slow" in server.loaded(), "it is loaded")
        (first,) = workers(server)
        with connection(server, "slow", at_worker=True) as one:
            stream = Stream(one, "slow")
            os.kill(first, signal.SIGKILL)
            assert not stream.complete
        eventually(lambda: server.loaded()["slow"]["active_requests"] == 0, "its leases ended")
        (second,) = when_ready(server, 1)
        assert second != first
        with connection(server, "slow", at_worker=True) as one:
            assert ask(one, "slow", max_tokens=1)[0] == 200
        server.post("unload", {"model_name": "slow"}).raise_for_status()


def test_connections_are_served_while_no_worker_lives(home: Path) -> None:
    with running(home, number=2) as server:
        for _ in range(3):
            for pid in workers(server):
                os.kill(pid, signal.SIGKILL)
            for _ in range(10):
                assert requests.get(f"{server.url}/live", timeout=10).status_code == 200


def test_workers_die_with_the_server(home: Path) -> None:
    with running(home, "--model", "slow", number=2) as server:
        eventually(lambda: "slow" in server.loaded(), "it is loaded")
        pids = workers(server)
        with connection(server, "slow", at_worker=True) as one:
            stream = Stream(one, "slow")
            server.process.kill()
            eventually(lambda: all(map(gone, pids)), "they are gone", within=2)
            assert not stream.complete
        server.process.wait()


@pytest.mark.parametrize("times", [1, 2])
def test_the_server_ends_with_its_workers_at_work(home: Path, times: int) -> None:
    models = {"slow": "--chunks 100 --slow-chunks 0.2"}
    with running(home, "--model", "slow", models=models) as server:
        eventually(lambda: "slow" in server.loaded(), "it is loaded")
        pids = workers(server)
        with connection(server, "slow", at_worker=True) as one:
            stream = Stream(one, "slow")
            for _ in range(times):
                server.process.send_signal(signal.SIGINT)
            assert server.process.wait(20) == 0
            assert all(map(gone, pids))
            assert not stream.complete
    assert "Traceback" not in server.log()
