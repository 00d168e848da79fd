"""What controls an engine cannot be reached through us: only routes we declare exist."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
import requests

from tests.gateway.vllm_like import engine_of, got, vllm_like_catalog
from tests.programs.fake_vllm import CONTROL
from tests.serving import PATIENCE, Serving, serving, survivors

pytestmark = pytest.mark.slow

PREFIXES = ("", "/v1", "/v0", "/api/v1", "/api/v0", "/api", "/internal", "/v1/models/one")
TRICKS = (
    "/v1//{}",
    "//{}",
    "/v1/../{}",
    "/v1/%2e%2e/{}",
    "/v1/..%2f{}",
    "/v1/chat/completions/../../../{}",
    "/v1/chat/completions/%2e%2e/%2e%2e/{}",
    "/v1/slots/0/../../{}",
    "/v1/slots/0%2f..%2f{}",
    "/v1/slots/../{}",
    "/v1/tokenize/../../{}",
    "/V1/{}",
    "/v1/./{}",
    "/v1/{}/",
    "/v1/%2f{}",
    "/v1/chat/completions;/../{}",
    "/v1/chat/completions%00/{}",
    "http://127.0.0.1/v1/{}",
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    home = tmp_path_factory.mktemp("control")
    catalog = vllm_like_catalog(home, {"one": ""})
    with serving(home, env={"LEMONADE_CATALOG": str(catalog)}) as one:
        assert one.chat("one", "marker").status_code == 200
        yield one
    assert not survivors(home)


def status(server: Serving, method: str, target: str) -> int:
    """Of the answer to a request whose target is written as it stands here."""
    port = int(server.url.rpartition(":")[2])
    body = b'{"model": "one"}' if method == "POST" else b""
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as raw:
        raw.sendall(
            f"{method} {target} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()
            + body
        )
        with raw.makefile("rb") as answer:
            return int(answer.readline().split()[1])


def untouched(server: Serving) -> bool:
    """Whether the last request the engine got is still that of the fixture."""
    return "marker" in got(server, "one")["body"]


def test_the_engine_itself_would_obey(server: Serving) -> None:
    for path in CONTROL:
        assert requests.post(f"{engine_of(server, 'one')}{path}", timeout=PATIENCE).ok
    assert server.chat("one", "marker").status_code == 200


@pytest.mark.parametrize("method", ["POST", "GET", "PUT", "DELETE", "PATCH"])
@pytest.mark.parametrize("prefix", PREFIXES)
def test_no_prefix_leads_to_it(server: Serving, method: str, prefix: str) -> None:
    for path in CONTROL:
        target = prefix + path.removeprefix("/v1")
        # What we have ourselves under such a name is no engine's: loading, and models.
        ours = {"POST": 400, "GET": 405, "PUT": 405, "DELETE": 405, "PATCH": 405}[method]
        declared = path == "/load" and prefix in PREFIXES[1:5]
        if prefix == "/v1/models/one":
            expected = {404} if method == "GET" else {404, 405}
        else:
            expected = {ours} if declared else {404}
        assert status(server, method, target) in expected, target
        assert status(server, method, target.upper()) == 404, target
    assert untouched(server)


@pytest.mark.parametrize("trick", TRICKS)
def test_no_trick_with_paths_leads_to_it(server: Serving, trick: str) -> None:
    for path in CONTROL:
        name = path.removeprefix("/v1").lstrip("/")
        if name == "load":
            continue  # ours
        for word in (name, name.upper(), name.replace("s", "%73", 1)):
            for method in ("POST", "GET"):
                target = trick.format(word)
                assert status(server, method, target) in {400, 404}, target
    assert untouched(server)


def test_an_operation_the_recipe_does_not_name_is_not_served(server: Serving) -> None:
    for query in ("", "?action=erase", "?action=save"):
        reply = server.post(f"slots/0{query}", {"filename": "x"})
        assert reply.status_code == 400
        assert "does not serve slots" in reply.json()["error"]["message"]
    assert untouched(server)
