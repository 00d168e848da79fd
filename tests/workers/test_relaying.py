"""What a worker answers is what the server would have answered."""

from __future__ import annotations

import http.client
import json
import random
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests

from tests.serving import (
    Serving,
    environment,
    eventually,
    fake_catalog,
    fake_model,
    serving,
    survivors,
)
from tests.workers.seeing import (
    ask,
    begin,
    chat_body,
    connection,
    is_held_by,
    read,
    when_ready,
    workers,
)

pytestmark = pytest.mark.slow

ASK = "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n"
PAGE = "http://localhost:1234"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """With one worker, and a warm model."""
    home = tmp_path_factory.mktemp("workers")
    catalog = fake_catalog(home)
    fake_model(catalog, "warm")
    fake_model(catalog, "torn", args="--drop-mid-stream 1")
    with serving(
        home,
        "--workers",
        "1",
        env={"LEMONADE_CATALOG": str(catalog)},
        config={"max_loaded_models": 4},
    ) as one:
        when_ready(one, 1)
        one.post("load", {"model_name": "warm"}).raise_for_status()
        one.post("load", {"model_name": "torn"}).raise_for_status()
        yield one
    assert not survivors(home)


def raw(request: str, body: bytes) -> bytes:
    return f"{request}Content-Length: {len(body)}\r\n\r\n".encode() + body


def both(
    server: Serving, talk: Callable[[http.client.HTTPConnection], object]
) -> tuple[object, object]:
    """The same said to a worker and to the server."""
    with connection(server, "warm", at_worker=True) as one:
        at_worker = talk(one)
    with connection(server, "warm", at_worker=False) as one:
        at_server = talk(one)
    return at_worker, at_server


def told(answer: tuple[int, dict[str, str], bytes]) -> tuple[int, dict[str, str], bytes]:
    """Without what differs from request to request."""
    status, headers, body = answer
    assert headers.pop("x-request-id")
    return status, {k: v for k, v in headers.items() if k not in ("date", "server")}, body


def sent(one: http.client.HTTPConnection, data: bytes) -> bytes:
    """What comes until the connection ends, without the names of requests."""
    assert one.sock is not None
    one.sock.sendall(data)
    got = b""
    while block := one.sock.recv(65536):
        got += block
    lines = got.split(b"\r\n")
    varies = (b"x-request-id:", b"date:", b"server:")
    return b"\r\n".join(line for line in lines if not line.lower().startswith(varies))


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"stream": True},
        {"stream": True, "stream_options": {"include_usage": True}},
        {"max_tokens": 2},
        {"stream": "yes"},
    ],
    ids=["plain", "stream", "usage", "limit", "wrong-type"],
)
def test_a_chat(server: Serving, more: dict[str, object]) -> None:
    at_worker, at_server = both(server, lambda one: told(ask(one, "warm", **more)))
    assert at_worker == at_server


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/v1/embeddings", b'{"model":"warm","input":"x"}'),
        ("POST", "/v1/chat/completions", b'{"model":"nobody","messages":[]}'),
        ("POST", "/v1/chat/completions", b"{"),
        ("GET", "/v1/models/warm", None),
        ("OPTIONS", "/v1/chat/completions", None),
        ("GET", "/nowhere", None),
    ],
)
def test_everything_else(server: Serving, method: str, path: str, body: bytes | None) -> None:
    def talk(one: http.client.HTTPConnection) -> object:
        one.request(method, path, body, {"Origin": PAGE})
        return told(read(one.getresponse()))

    at_worker, at_server = both(server, talk)
    assert at_worker == at_server


def test_a_stream_that_the_engine_breaks_off(server: Serving) -> None:
    at_worker, at_server = both(server, lambda one: told(ask(one, "torn", stream=True)))
    assert at_worker == at_server


BODY = chat_body("warm", max_tokens=1)
CHUNKED = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
LAST = ASK + "Connection: close\r\n"


@pytest.mark.parametrize(
    "data",
    [
        raw(ASK, BODY) + raw(ASK, BODY) + raw(LAST, BODY),
        raw(ASK, BODY) + raw(ASK, chat_body("nobody")) + raw(LAST, BODY),
        b"GET /live HTTP/1.0\r\n\r\n",
        LAST.encode() + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNKED,
        raw(LAST + "Content-Length: 7\r\n", BODY),
        raw(LAST, chat_body("warm", stream=True, padding="x" * 300_000)),
        raw(LAST, chat_body("nobody", padding="x" * 300_000)),
    ],
    ids=["ahead", "ahead-and-moved", "old", "chunks", "two-lengths", "large", "large-and-moved"],
)
def test_bytes(server: Serving, data: bytes) -> None:
    at_worker, at_server = both(server, lambda one: sent(one, data))
    assert at_worker == at_server


def test_a_connection_with_anything_else_goes_to_the_server_and_stays(server: Serving) -> None:
    with connection(server, "warm", at_worker=True) as one:
        (worker,) = workers(server)
        one.request("GET", "/live")
        assert read(one.getresponse())[0] == 200
        eventually(lambda: not is_held_by(one, worker), "the worker has let it go")
        assert is_held_by(one, server.process.pid)
        assert ask(one, "warm")[0] == 200
        assert is_held_by(one, server.process.pid)


def test_a_worker_takes_what_has_become_warm(server: Serving) -> None:
    server.post("unload", {"model_name": "warm"}).raise_for_status()
    server.post("load", {"model_name": "warm"}).raise_for_status()
    with connection(server, "warm:latest", at_worker=True) as one:
        assert ask(one, "warm")[0] == 200


def test_names_of_requests_pass(server: Serving) -> None:
    with connection(server, "warm", at_worker=True) as one:
        when_noted(server, one)


def when_noted(server: Serving, one: http.client.HTTPConnection) -> None:
    """Ask something that has a name, and wait for its line in the log: all before it is noted."""
    name = f"mine-{random.getrandbits(32)}"
    headers = {"Content-Type": "application/json", "X-Request-Id": name}
    one.request("POST", "/v1/chat/completions", BODY, headers)
    assert read(one.getresponse())[1]["x-request-id"] == name
    line = re.compile(f" {name} .*warm chat: 200")
    eventually(lambda: line.search(server.log()), "it is in the log")


def test_statistics_are_those_of_the_server(server: Serving) -> None:
    def counted(one: http.client.HTTPConnection) -> dict[str, int]:
        when_noted(server, one)
        before = server.get("stats").json()
        for more in ({}, {"stream": True, "stream_options": {"include_usage": True}}):
            ask(one, "warm", **more)

        def all_are_there() -> dict[str, int] | None:
            now = server.get("stats").json()
            grown = {
                key: now[key] - before[key] for key in now if key.endswith("_total") and now[key]
            }
            return grown if grown["request_count_total"] >= 2 else None

        found: dict[str, int] = eventually(all_are_there, "both are counted")
        return found

    at_worker, at_server = both(server, counted)
    assert at_worker == at_server


def test_what_is_in_use_is_seen(server: Serving) -> None:
    """What a worker has in flight counts while it lasts, and no longer."""
    server.post(
        "load", {"model_name": "warm", "fake_args": "--slow-chunks 0.5"}
    ).raise_for_status()
    with connection(server, "warm", at_worker=True) as one:
        begin(one, "warm", stream=True)
        response = one.getresponse()
        response.read(1)
        eventually(lambda: server.loaded()["warm"]["active_requests"] == 1, "it counts")
        eventually(lambda: server.loaded()["warm"]["is_streaming"], "as a stream")
        response.read()
        eventually(lambda: server.loaded()["warm"]["active_requests"] == 0, "it is over")
    server.post("load", {"model_name": "warm", "fake_args": ""}).raise_for_status()


def test_who_waits_is_told_by_a_worker_too(server: Serving) -> None:
    server.post("load", {"model_name": "warm", "fake_args": "--slow-chunks 1"}).raise_for_status()

    def set_heartbeat(after: float) -> None:
        where = f"{server.url}/internal/set"
        settings = {"heartbeat_after_s": after, "heartbeat_every_s": 0.1}
        requests.post(where, json=settings, timeout=10).raise_for_status()

    set_heartbeat(0.1)
    with connection(server, "warm", at_worker=True) as one:

        def told() -> bool:
            return ask(one, "warm", stream=True, max_tokens=1)[2].startswith(b": waiting for")

        eventually(told, "the worker knows the setting")
        (worker,) = workers(server)
        assert is_held_by(one, worker)
    set_heartbeat(10)
    server.post("load", {"model_name": "warm", "fake_args": ""}).raise_for_status()


def test_how_many_there_are_is_shown(server: Serving) -> None:
    def relayed() -> int:
        page = requests.get(f"{server.url}/metrics", timeout=10).text
        assert re.search(r"\nlemonade_workers 1(\.0)?\n", page)
        found = re.search(
            r'^lemonade_worker_requests_total\{worker="1"\} (\d+)', page, re.MULTILINE
        )
        assert found
        return int(found[1])

    before = relayed()
    with connection(server, "warm", at_worker=True) as one:
        ask(one, "warm")
    eventually(lambda: relayed() >= before + 2, "what it relayed is counted")
    for command in ("ps", "status"):
        argv = [sys.executable, "-m", "lemonade", command, "--port"]
        said = subprocess.run(
            [*argv, str(urlsplit(server.url).port)],
            env=environment(server.home),
            capture_output=True,
            text=True,
            check=True,
        )
        assert "1 of 1 workers relay beside the server." in said.stderr


def test_a_port_is_not_shared_with_another_server(server: Serving, tmp_path: Path) -> None:
    port = urlsplit(server.url).port
    with (
        pytest.raises(AssertionError, match="is taken"),
        serving(tmp_path, "--workers", "1", "--port", str(port)),
    ):
        pass
    with socket.create_connection(("127.0.0.1", port)):
        pass
    assert json.loads(server.get("health").text)["status"] == "ok"
