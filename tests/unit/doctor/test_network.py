"""The checks about ports and hosts, with real sockets on the loopback."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from lemonade.checkpoints import hub_access
from lemonade.doctor import Finding
from lemonade.doctor.hosts import check_hosts
from lemonade.doctor.ports import Listening, check_ports, lemonade_at
from lemonade.doctor.reaching import Answer, NoWay, Question, ask_host
from lemonade.installer import ReleaseHosts
from tests.unit.doctor.saying import one, rules

Respond = Callable[[BaseHTTPRequestHandler], tuple[int, object]]


@contextmanager
def host(respond: Respond) -> Iterator[tuple[str, list[BaseHTTPRequestHandler]]]:
    """A server on the loopback; its URL, and the requests it got."""
    asked: list[BaseHTTPRequestHandler] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self)
            status, body = respond(self)
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_CONNECT = do_GET  # noqa: N815 - as the library calls it

        def log_message(self, *_: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", asked
        finally:
            server.shutdown()
            thread.join()


# ---- ports


def nobody(url: str) -> str | None:
    raise AssertionError(f"nobody had to ask {url}")


def stranger(_: str) -> str | None:
    return None


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "0.0.0.0", ""])
def test_a_free_port_stays_free(name: str) -> None:
    port = free_port()
    assert rules(check_ports(Listening(name, port), "1", nobody)) == []
    with socket.create_server(("127.0.0.1", port)):
        pass


def test_a_port_that_a_stranger_holds() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        found = check_ports(Listening("localhost", port), "1", stranger)
        assert rules(found) == [("error", "port-taken")]
        assert "pid" in found[0].evidence[0].value  # we are the stranger, and may be seen
        chosen = check_ports(Listening("localhost", free_port(), port), "1", stranger)
        assert rules(chosen) == [("error", "port-taken")]
        assert "websocket_port" in one(chosen, "port-taken").fix


def test_a_port_that_a_lemonade_holds() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        here = Listening("localhost", other.getsockname()[1])
        assert rules(check_ports(here, "1", lambda _: "1")) == []
        assert rules(check_ports(here, "1", lambda _: "")) == []
        assert rules(check_ports(here, "2", lambda _: "1")) == [("note", "other-version")]


def test_addresses_that_are_not_here() -> None:
    for name in ("192.0.2.1", "no-such-name.invalid"):
        found = check_ports(Listening(name, free_port()), "1", nobody)
        assert rules(found) == [("error", "no-such-address")]
    found = check_ports(Listening("localhost", 4000, 4000), "1", stranger)
    assert ("error", "same-port") in rules(found)


def test_what_answers_as_a_lemonade_does() -> None:
    def respond(request: BaseHTTPRequestHandler) -> tuple[int, object]:
        return (200, {"status": "ok"}) if request.path == "/live" else (200, {"version": "7.1"})

    with host(respond) as (url, _):
        assert lemonade_at({})(url) == "7.1"
    with host(lambda r: (200, {"status": "ok"}) if r.path == "/live" else (401, {})) as (url, _):
        assert lemonade_at({})(url) == ""
    with host(lambda _: (404, {})) as (url, _):
        assert lemonade_at({})(url) is None


# ---- hosts


def hosts(url: str, **more: str) -> tuple[Finding, ...]:
    environ = {
        "LEMONADE_GITHUB_URL": url,
        "LEMONADE_GITHUB_API_URL": url,
        "HF_ENDPOINT": url,
        **more,
    }
    releases, hub = ReleaseHosts.from_environ(environ), hub_access(environ)
    return check_hosts(releases, hub, environ, "", ask_host)


def test_hosts_that_answer() -> None:
    with host(lambda _: (404, {})) as (url, asked):
        assert rules(hosts(url)) == []
        assert sorted(request.path for request in asked) == ["/", "/", "/rate_limit"]


def test_hosts_that_refuse_a_token() -> None:
    with host(lambda _: (401, {})) as (url, asked):
        found = hosts(url, HF_TOKEN="hf_x", GITHUB_TOKEN="ghp_x")
        assert rules(found) == [("warning", "token-refused")] * 3
        sent = {request.path: request.headers["Authorization"] for request in asked}
        assert sent["/api/whoami-v2"] == "Bearer hf_x"
        assert "hf_x" not in str(found)
        assert "ghp_x" not in str(found)


def test_hosts_in_trouble() -> None:
    with host(lambda _: (503, {})) as (url, _):
        assert rules(hosts(url)) == [("warning", "host-in-trouble")] * 3
    limited = {"rate": {"remaining": 0, "reset": 1_800_000_000}}
    with host(lambda r: (200, limited if r.path == "/rate_limit" else {})) as (url, _):
        found = hosts(url)
        assert rules(found) == [("warning", "rate-limited")]
        assert "until 08:00 UTC" in found[1].reason


def test_hosts_that_cannot_be_reached(tmp_path: Path) -> None:
    port = free_port()
    assert rules(hosts(f"http://127.0.0.1:{port}")) == [("warning", "unreachable-refused")] * 3
    found = hosts("https://mirror.example", https_proxy=f"http://127.0.0.1:{port}")
    assert rules(found) == [("warning", "unreachable-proxy")] * 3
    found = hosts("http://127.0.0.1:1", LEMONADE_GITHUB_URL="http://mirror.example")
    assert rules(found)[0] == ("error", "not-allowed")
    with host(lambda _: (200, {})) as (url, _):
        (certificate, *_) = hosts(url.replace("http:", "https:"))
        assert certificate.rule == "unreachable-certificate"


def test_a_host_that_says_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        with pytest.raises(NoWay) as caught:
            ask_host(Question(url, {}, within=0.05))
    assert caught.value.rule == "silent"


def test_a_host_that_speaks_something_else() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:

        def talk() -> None:
            connection, _ = other.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"220 mail\r\n")

        thread = threading.Thread(target=talk)
        thread.start()
        with pytest.raises(NoWay) as caught:
            ask_host(Question(f"http://127.0.0.1:{other.getsockname()[1]}/", {}))
        thread.join()
    assert caught.value.rule == "broken"


def test_over_a_proxy() -> None:
    with host(lambda _: (200, {})) as (proxy, asked):
        through = proxy.replace("://", "://me:secret@")
        answer = ask_host(Question("http://mirror.example/x", {}, proxy=through))
        assert answer.status == 200
        assert asked[0].path == "http://mirror.example/x"
        assert asked[0].headers["Proxy-Authorization"] == "Basic bWU6c2VjcmV0"
    with host(lambda _: (407, {})) as (proxy, asked):
        with pytest.raises(NoWay) as caught:
            ask_host(Question("https://mirror.example/x", {}, proxy=proxy))
        assert asked[0].path == "mirror.example:443"
    assert caught.value.rule == "proxy"
    with pytest.raises(NoWay) as caught:
        ask_host(Question("https://mirror.example/x", {}, proxy="socks5://127.0.0.1:1"))
    assert caught.value.rule == "proxy"


def test_offline_asks_nobody() -> None:
    def ask(question: Question) -> Answer:
        raise AssertionError(question)

    releases, hub = ReleaseHosts.from_environ({}), hub_access({})
    found = check_hosts(releases, hub, {}, "the setting offline", ask)
    assert rules(found) == [("note", "offline")]
    assert "the setting offline" in found[0].reason
