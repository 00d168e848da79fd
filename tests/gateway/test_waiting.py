"""What a streaming client is told while it waits, and what becomes of its connection."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
import requests

from tests.serving import Serving, fake_catalog, fake_model, serving

CONFIG = {"heartbeat_after_s": 0.2, "heartbeat_every_s": 0.1}
SAID = r"weights\x2040\x20%\n"


@pytest.fixture
def server(home: Path) -> Iterator[Serving]:
    catalog = fake_catalog(home)
    fake_model(catalog, "quick")
    fake_model(catalog, "late", args=f"--ready-after 1.2 --prints '{SAID}'")
    fake_model(catalog, "stillborn", args="--exit-after 0.8 --code 3 --never-ready")
    fake_model(catalog, "dropper", args="--ready-after 0.8 --drop-mid-stream 1")
    with serving(home, env={"LEMONADE_CATALOG": str(catalog)}, config=CONFIG) as one:
        yield one


def lines(reply: requests.Response) -> list[str]:
    return [line for line in reply.iter_lines(decode_unicode=True) if line]


def comments(said: list[str]) -> list[str]:
    return [line for line in said if line.startswith(":")]


def test_who_is_answered_soon_is_told_nothing(server: Serving) -> None:
    assert server.chat("quick").status_code == 200
    reply = server.chat("quick", stream=True)
    said = lines(reply)
    assert comments(said) == []
    assert said[-1] == "data: [DONE]"


def test_a_waiting_client_is_told_the_phase_and_then_the_answer(server: Serving) -> None:
    reply = server.chat("late", stream=True)
    assert reply.status_code == 200
    assert reply.headers["Content-Type"].startswith("text/event-stream")
    assert reply.headers["x-request-id"]
    said = lines(reply)
    told = comments(said)
    assert ": loading: starting: weights 40 %" in told
    assert said[: len(told)] == told, "comments come before the answer and never in it"
    plain = lines(server.chat("late", stream=True))
    mine = [line for line in said if not line.startswith(":")]
    assert len(mine) == len(plain)
    assert mine[-1] == "data: [DONE]"


def test_the_connection_takes_another_request_afterwards(server: Serving) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=30)
    for model in ("late", "quick"):
        body = json.dumps({"model": model, "stream": True, "messages": [
            {"role": "user", "content": "Hello"}]})  # fmt: skip
        connection.request("POST", "/v1/chat/completions", body)
        reply = connection.getresponse()
        assert reply.status == 200
        assert reply.read().rstrip().endswith(b"data: [DONE]")
    connection.close()


def test_an_error_after_the_beginning_is_an_event(server: Serving) -> None:
    said = lines(server.chat("stillborn", stream=True))
    assert comments(said)
    error = json.loads(said[-1].removeprefix("data: "))["error"]
    assert error["type"] == "model_load_error"
    assert "status 3" in error["message"]
    assert not any("[DONE]" in line for line in said)


def test_an_error_before_it_has_its_status(server: Serving) -> None:
    assert server.chat("nobody", stream=True).status_code == 404


def test_an_engine_that_breaks_off_ends_in_an_event(server: Serving) -> None:
    said = lines(server.chat("dropper", stream=True))
    assert comments(said)
    assert json.loads(said[-1].removeprefix("data: "))["error"]


def test_the_openai_client_does_not_notice(server: Serving) -> None:
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
    with client.chat.completions.create(
        model="late", stream=True, messages=[{"role": "user", "content": "Hello"}]
    ) as stream:
        said = "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
    assert said
    with pytest.raises(openai.APIError, match="status 3"):
        list(
            client.chat.completions.create(
                model="stillborn", stream=True, messages=[{"role": "user", "content": "Hello"}]
            )
        )
    client.close()


def test_an_old_client_just_waits(server: Serving) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    body = json.dumps(
        {"model": "late", "stream": True, "messages": [{"role": "user", "content": "Hello"}]}
    ).encode()
    with socket.create_connection((host, int(port)), timeout=30) as one:
        one.sendall(
            b"POST /v1/chat/completions HTTP/1.0\r\nContent-Length: %d\r\n\r\n%b"
            % (len(body), body)
        )
        said = b""
        while block := one.recv(65536):
            said += block
    head, _, rest = said.partition(b"\r\n\r\n")
    assert b" 200 " in head.splitlines()[0]
    assert not rest.startswith(b":")
    assert rest.rstrip().endswith(b"data: [DONE]")


def test_it_can_be_switched_off(server: Serving) -> None:
    changed = requests.post(
        f"{server.url}/internal/set", json={"heartbeat_after_s": 0}, timeout=10
    )
    assert changed.status_code == 200
    assert comments(lines(server.chat("late", stream=True))) == []
