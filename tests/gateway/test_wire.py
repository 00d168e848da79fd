"""What clients may put on the wire: every byte by hand, and the answer byte for byte."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import requests

from tests.serving import PATIENCE, Serving, fake_catalog, fake_model, serving, survivors

CHAT = b'{"model":"quick","messages":[{"role":"user","content":"x"}]}'
LIVE = b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    home = tmp_path_factory.mktemp("wire")
    catalog = fake_catalog(home)
    recipe = catalog / "recipes" / "fake.toml"
    operations = "[upstream.operations]\n"
    text = recipe.read_text().replace(operations, operations + 'slots = "/fake/last"\n')
    recipe.write_text(text)
    fake_model(catalog, "quick", args="--chunks 5")
    with serving(home, env={"LEMONADE_CATALOG": str(catalog)}) as one:
        assert one.post("load", {"model_name": "quick"}).status_code == 200
        yield one
        assert one.loaded()["quick"]["active_requests"] == 0
    assert not survivors(home)
    assert "Traceback" not in one.log()


class Wire:
    """A connection to the server."""

    def __init__(self, raw: socket.socket) -> None:
        self._raw = raw
        self._buffer = b""

    def say(self, data: bytes) -> None:
        self._raw.sendall(data)

    def hear(self, *, bodiless: bool = False) -> tuple[int, dict[str, str], bytes]:
        """The next answer: status, headers and body."""
        while b"\r\n\r\n" not in self._buffer:
            self._more()
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        line, *fields = head.decode("latin-1").split("\r\n")
        headers = {}
        for field in fields:
            name, _, value = field.partition(": ")
            headers[name.lower()] = value
        status = int(line.split(" ")[1])
        size = 0 if bodiless or status < 200 else int(headers.get("content-length", 0))
        while len(self._buffer) < size:
            self._more()
        body, self._buffer = self._buffer[:size], self._buffer[size:]
        return status, headers, body

    def ended(self) -> bool:
        """Whether nothing more comes and the server closes the connection."""
        return not self._buffer and not self._raw.recv(65536)

    def _more(self) -> None:
        data = self._raw.recv(65536)
        assert data, f"the server closed the connection after {self._buffer!r}"
        self._buffer += data


@contextmanager
def wire(server: Serving) -> Iterator[Wire]:
    port = int(server.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as raw:
        yield Wire(raw)


def post(
    body: bytes = CHAT, *fields: bytes, path: bytes = b"/v1/chat/completions", sized: bool = True
) -> bytes:
    length = (b"Content-Length: %d" % len(body),) if sized else ()
    head = (b"POST %b HTTP/1.1" % path, b"Host: x", *length, *fields)
    return b"\r\n".join((*head, b"", body))


def chunked(body: bytes) -> bytes:
    return b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)


@pytest.mark.parametrize("origin", ["app://☃".encode(), b"app://\xff", b"http://localhost\xff"])
def test_an_origin_no_browser_writes_is_refused(server: Serving, origin: bytes) -> None:
    with wire(server) as raw:
        for request in (
            post(CHAT, b"Origin: " + origin),
            LIVE[:-2] + b"Origin: %b\r\n\r\n" % origin,
        ):
            raw.say(request)
            status, headers, body = raw.hear()
            assert status == 403
            assert "access-control-allow-origin" not in headers
            assert "origin" in json.loads(body)["error"]


@pytest.mark.parametrize("agent", ["Zitrone/1 ☃".encode(), b"caf\xe9/1"])
def test_a_user_agent_in_any_bytes_reaches_the_engine(server: Serving, agent: bytes) -> None:
    with wire(server) as raw:
        raw.say(post(CHAT, b"User-Agent: " + agent))
        assert raw.hear()[0] == 200
    base = server.loaded()["quick"]["backend_url"].removesuffix("/v1")
    last = requests.get(f"{base}/fake/last", timeout=PATIENCE).json()
    seen = {name.lower(): value for name, value in last["headers"]}
    assert seen["user-agent"].encode("latin-1") == agent


@pytest.mark.parametrize("path", ["/v1/logs", "/v1/logs?follow=true", "/v1/health", "/metrics"])
def test_the_answer_to_head_is_a_head(server: Serving, path: str) -> None:
    with wire(server) as raw:
        raw.say(f"HEAD {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert raw.hear(bodiless=True)[0] == 200
        raw.say(LIVE)
        assert raw.hear()[2] == b'{"status": "ok"}'


def test_a_client_cannot_write_lines_into_the_log(server: Serving) -> None:
    requests.get(f"{server.api}/models/x%0d%0aERROR%20forged%1b[2J", timeout=PATIENCE)
    for path in ("/v1/install", "/v1/uninstall", "/internal/set"):
        forged = "x\r\nERROR forged\x1b[2J"
        body = {"recipe": forged, "backend": forged, forged: 1, "stream": True}
        requests.post(server.url + path, json=body, timeout=PATIENCE)
    assert not [line for line in server.log().splitlines() if line.startswith("ERROR forged")]
    assert "\x1b" not in server.log()


AMBIGUOUS = {
    "length and chunks": post(chunked(CHAT), b"Transfer-Encoding: chunked"),
    "two lengths": post(CHAT, b"Content-Length: 3"),
    "the same length twice": post(CHAT, b"Content-Length: %d" % len(CHAT)),
    "a signed length": post(CHAT, b"Content-Length: +60", sized=False),
    "chunks not last": post(chunked(CHAT), b"Transfer-Encoding: chunked, identity", sized=False),
    "chunks twice": post(
        chunked(CHAT), b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked", sized=False
    ),
    "no coding we know": post(chunked(CHAT), b"Transfer-Encoding: xchunked", sized=False),
    "a blank before the colon": post(CHAT, b"X-A : b"),
    "a folded line": post(CHAT, b"X-A: b", b" c: d"),
    "bare line feeds": post().replace(b"\r\n", b"\n"),
    "a bare carriage return": post(CHAT, b"X-A: b\rX-C: d"),
    "a null": post(CHAT, b"X-A: \0"),
}
HUGE = post(CHAT, b"X-A: " + b"a" * 70_000)


@pytest.mark.parametrize("request_bytes", AMBIGUOUS.values(), ids=AMBIGUOUS.keys())
def test_what_can_be_read_in_two_ways_is_refused(server: Serving, request_bytes: bytes) -> None:
    with wire(server) as raw:
        raw.say(request_bytes + LIVE)
        assert raw.hear()[0] == 400
        assert raw.ended()


def test_a_head_that_is_too_large_is_refused(server: Serving) -> None:
    with wire(server) as raw:
        raw.say(HUGE)
        assert raw.hear()[0] == 431
        assert raw.ended()


def test_requests_may_be_sent_ahead(server: Serving) -> None:
    body = CHAT[:-1] + b',"stream":true}'
    with wire(server) as raw:
        raw.say(post() + post(b'{"model":"nope"}') + post() + LIVE + post(body) + LIVE)
        assert [raw.hear()[0] for _ in range(4)] == [200, 404, 200, 200]
        status, headers, _ = raw.hear()
        assert status == 200
        assert headers["transfer-encoding"] == "chunked"


def test_a_body_is_asked_for_when_it_is_welcome(server: Serving) -> None:
    head, _, body = post(CHAT, b"Expect: 100-continue").partition(b"\r\n\r\n")
    with wire(server) as raw:
        raw.say(head + b"\r\n\r\n")
        assert raw.hear()[0] == 100
        raw.say(body)
        assert raw.hear()[0] == 200


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ((b"Content-Length: 9999999999",), 413),
        ((b"Content-Length: 60", b"Origin: https://evil.example"), 403),
    ],
)
def test_a_body_that_is_not_welcome_is_not_asked_for(
    server: Serving, fields: tuple[bytes, ...], status: int
) -> None:
    with wire(server) as raw:
        raw.say(post(b"", b"Expect: 100-continue", *fields, sized=False))
        assert raw.hear()[0] == status


def test_a_page_may_send_what_its_library_adds(server: Serving) -> None:
    ask = "authorization,content-type,x-stainless-os"
    headers = {
        "Origin": "http://localhost:3000",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": ask,
    }
    reply = requests.options(f"{server.api}/chat/completions", headers=headers, timeout=PATIENCE)
    assert reply.status_code == 204
    assert reply.headers["Access-Control-Allow-Origin"] == "http://localhost:3000"
    assert reply.headers["Access-Control-Allow-Headers"].endswith(ask)
    odd = headers | {"Access-Control-Request-Headers": "x-a; y"}
    reply = requests.options(f"{server.api}/chat/completions", headers=odd, timeout=PATIENCE)
    assert ";" not in reply.headers["Access-Control-Allow-Headers"]


def test_a_query_reaches_the_engine_as_it_was_written(server: Serving) -> None:
    with wire(server) as raw:
        raw.say(post())
        assert raw.hear()[0] == 200
        raw.say(b"GET /v1/slots?model=quick&a=%20%0d%0aX:%20b HTTP/1.1\r\nHost: x\r\n\r\n")
        assert raw.hear()[0] == 200


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "text/plain", ""])
def test_a_body_is_json_whatever_the_client_calls_it(server: Serving, kind: str) -> None:
    body = b'{"model": "quick", "messages": [{"role": "user", "content": "Hello"}]}'
    reply = requests.post(
        f"{server.url}/v1/chat/completions",
        data=body,
        headers={"Content-Type": kind} if kind else {},
        timeout=PATIENCE,
    )
    assert reply.status_code == 200
    base = server.loaded()["quick"]["backend_url"].removesuffix("/v1")
    last = requests.get(f"{base}/fake/last", timeout=PATIENCE).json()
    found = [value for name, value in last["headers"] if name.lower() == "content-type"]
    assert found == ["application/json"]
