"""Streams through the whole server: what a client sees when one side misbehaves."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.serving import (
    Serving,
    environment,
    eventually,
    fake_catalog,
    fake_model,
    gone,
    serving,
)


@pytest.fixture
def server(home: Path) -> Iterator[Serving]:
    catalog = fake_catalog(home)
    fake_model(catalog, "quick", args="--chunks 5")
    fake_model(catalog, "chatty", args="--chunks 100000 --slow-chunks 0.02")
    fake_model(catalog, "dropper", args="--chunks 50 --drop-mid-stream 5")
    fake_model(catalog, "orphan-maker", args="--chunks 100000 --slow-chunks 0.02 --ignore-term")
    with serving(home, env={"LEMONADE_CATALOG": str(catalog)}) as one:
        yield one


def events(reply: requests.Response) -> list[str]:
    return [line[6:] for line in reply.iter_lines(decode_unicode=True) if line[:6] == "data: "]


def active(row: dict[str, str]) -> int:
    base = row["backend_url"].removesuffix("/v1")
    count: int = requests.get(f"{base}/fake/active", timeout=10).json()["active"]
    return count


def test_a_stream_ends_with_done_and_the_connection_lives_on(server: Serving) -> None:
    with requests.Session() as session:
        body = {"model": "quick", "messages": [{"role": "user", "content": "x"}], "stream": True}
        for _ in range(3):
            reply = session.post(f"{server.api}/chat/completions", json=body, timeout=30)
            assert reply.headers["Content-Type"].startswith("text/event-stream")
            assert reply.headers["X-Accel-Buffering"] == "no"
            assert reply.headers["X-Request-Id"]
            assert "connection: close" not in str(reply.headers).lower()
            assert [line for line in reply.text.splitlines() if line][-1] == "data: [DONE]"


def test_all_four_prefixes_relay(server: Serving) -> None:
    body = {"model": "quick", "messages": [{"role": "user", "content": "x"}]}
    for prefix in ("/api/v0", "/api/v1", "/v0", "/v1"):
        reply = requests.post(f"{server.url}{prefix}/chat/completions", json=body, timeout=30)
        assert reply.status_code == 200
        assert reply.json()["choices"]


def test_a_client_that_leaves_stops_the_engine(server: Serving) -> None:
    reply = server.chat("chatty", stream=True)
    lines = reply.iter_lines()
    assert next(lines)
    row = server.loaded()["chatty"]
    assert active(row) == 1
    assert row["is_streaming"] is True
    reply.close()
    eventually(lambda: active(row) == 0, "the engine's request ends with the client's")
    eventually(lambda: not server.loaded()["chatty"]["is_busy"], "the lease ends too")


def test_a_client_that_leaves_without_a_stream_stops_the_engine_too(server: Serving) -> None:
    assert server.post("load", {"model_name": "chatty"}).status_code == 200
    row = server.loaded()["chatty"]
    body = json.dumps({"model": "chatty", "messages": [{"role": "user", "content": "x"}]})
    port = int(server.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port)) as raw:
        raw.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: "
            + str(len(body)).encode()
            + b"\r\n\r\n"
            + body.encode()
        )
        eventually(lambda: active(row) == 1, "the request reaches the engine")
    eventually(lambda: active(row) == 0, "the engine's request ends with the client's")


def test_an_engine_that_dies_mid_stream_ends_it_with_an_error_event(server: Serving) -> None:
    got = events(server.chat("dropper", stream=True))
    assert "[DONE]" not in got
    assert len(got) >= 2
    error = json.loads(got[-1])["error"]
    assert error["type"] == "backend_error"
    assert error["message"]
    assert server.get("health").status_code == 200


def test_requests_of_a_hundred_mebibytes_pass(server: Serving) -> None:
    body = json.dumps(
        {"messages": [{"role": "user", "content": "x" * (100 << 20)}], "model": "quick"}
    )
    reply = requests.post(f"{server.api}/chat/completions", data=body, timeout=60)
    assert reply.status_code == 200


@pytest.mark.parametrize("model", ["chatty", "orphan-maker"])
def test_no_child_outlives_a_killed_server(server: Serving, model: str) -> None:
    reply = server.chat(model, stream=True)
    lines = reply.iter_lines()
    assert next(lines)
    pid = server.loaded()[model]["pid"]
    server.process.send_signal(signal.SIGKILL)
    server.process.wait()
    eventually(lambda: gone(pid), "the child ends with its server", within=5.0)
    reply.close()


def test_a_second_signal_kills_at_once(server: Serving) -> None:
    assert server.chat("quick").status_code == 200
    pid = server.loaded()["quick"]["pid"]
    server.process.send_signal(signal.SIGINT)
    server.process.send_signal(signal.SIGINT)
    assert server.process.wait(30) == 0
    assert gone(pid)


def test_shutdown_answers_then_ends(server: Serving) -> None:
    assert server.chat("quick").status_code == 200
    pid = server.loaded()["quick"]["pid"]
    reply = requests.post(f"{server.url}/internal/shutdown", timeout=30)
    assert reply.json() == {"status": "shutting down"}
    assert server.process.wait(30) == 0
    assert gone(pid)


def test_statistics_come_from_the_stream(server: Serving) -> None:
    assert server.get("stats").json()["request_count_total"] == 0
    body = {"stream": True, "stream_options": {"include_usage": True}}
    events(server.chat("quick", **body))
    stats = server.get("stats").json()
    assert stats["request_count_total"] == 1
    assert stats["output_tokens"] == 5
    assert stats["tokens_per_second"] > 0
    assert stats["time_to_first_token"] > 0
    server.chat("quick")
    assert server.get("stats").json()["output_tokens_total"] == 10


def test_two_servers_do_not_share_a_port(server: Serving, home: Path) -> None:
    port = server.url.rpartition(":")[2]
    second = subprocess.run(
        [sys.executable, "-m", "lemonade", "serve", "--port", port],
        env=environment(home / "second"),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert second.returncode != 0
    lines = second.stderr.decode().strip().splitlines()
    assert len(lines) == 1
    assert port in lines[0]
    assert "taken" in lines[0]


def test_a_client_that_hangs_up_on_the_last_word_is_counted(server: Serving) -> None:
    port = int(server.url.rpartition(":")[2])
    options = {"include_usage": True}
    asked = {"model": "quick", "messages": [], "stream": True, "stream_options": options}
    body = json.dumps(asked).encode()
    for count in range(1, 6):
        with socket.create_connection(("127.0.0.1", port)) as raw:
            head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}"
            raw.sendall(head.encode() + b"\r\n\r\n" + body)
            got = b""
            while b"[DONE]" not in got:
                got += raw.recv(65536)
        eventually(
            lambda count=count: server.get("stats").json()["request_count_total"] == count,
            "each of them is counted",
        )
    assert server.get("stats").json()["output_tokens_total"] == 5 * 5
