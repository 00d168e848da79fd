"""Keys, origins, and requests that match no route."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import requests

from lemonade.client import LemonadeClient
from lemonade.core.errors import NotAuthorised
from tests.serving import Serving, serving


@pytest.fixture
def server(home, request: pytest.FixtureRequest) -> Iterator[Serving]:
    with serving(home, env=getattr(request, "param", {})) as one:
        yield one


def call(server: Serving, method: str, path: str, key: str = "", **headers: str) -> int:
    if key:
        headers["Authorization"] = f"Bearer {key}"
    reply = requests.request(method, f"{server.url}{path}", headers=headers, timeout=10)
    if reply.status_code in (401, 403):
        assert isinstance(reply.json()["error"], str)
    return reply.status_code


KEYS = {"LEMONADE_API_KEY": "user-key", "LEMONADE_ADMIN_API_KEY": "admin-key"}


@pytest.mark.parametrize("server", [KEYS], indirect=True)
def test_two_keys(server: Serving) -> None:
    assert call(server, "GET", "/live") == 200
    for prefix in ("/api/v0", "/api/v1", "/v0", "/v1"):
        assert call(server, "GET", f"{prefix}/models") == 401
        assert call(server, "GET", f"{prefix}/models", "wrong") == 401
        assert call(server, "GET", f"{prefix}/models", "user-key") == 200
        assert call(server, "GET", f"{prefix}/models", "admin-key") == 200
    assert call(server, "GET", "/metrics") == 401
    assert call(server, "GET", "/internal/config", "user-key") == 401
    assert call(server, "GET", "/internal/config", "admin-key") == 200
    assert call(server, "OPTIONS", "/v1/models") == 204
    assert call(server, "GET", "/v1/no-such-thing") == 401


@pytest.mark.parametrize("server", [{"LEMONADE_API_KEY": "user-key"}], indirect=True)
def test_one_key_is_for_everything(server: Serving) -> None:
    assert call(server, "GET", "/v1/models") == 401
    assert call(server, "GET", "/v1/models", "user-key") == 200
    assert call(server, "GET", "/internal/config", "user-key") == 200
    assert call(server, "GET", "/internal/config") == 401


@pytest.mark.parametrize("server", [{"LEMONADE_ADMIN_API_KEY": "admin-key"}], indirect=True)
def test_an_admin_key_alone_leaves_the_rest_open(server: Serving) -> None:
    assert call(server, "GET", "/v1/models") == 200
    assert call(server, "GET", "/internal/config") == 401
    assert call(server, "GET", "/internal/config", "admin-key") == 200


@pytest.mark.parametrize(
    "server", [{"LEMONADE_ALLOWED_ORIGINS": "https://chat.example:8443"}], indirect=True
)
def test_origins(server: Serving) -> None:
    def asked(origin: str) -> requests.Response:
        return requests.get(f"{server.url}/v1/models", headers={"Origin": origin}, timeout=10)

    for good in ("http://localhost:3000", "https://chat.example:8443", "tauri://localhost"):
        reply = asked(good)
        assert reply.status_code == 200
        assert reply.headers["Access-Control-Allow-Origin"] == good
        assert reply.headers["Vary"] == "Origin"
    for bad in ("https://evil.example", "https://chat.example", "null"):
        reply = asked(bad)
        assert reply.status_code == 403
        assert "Access-Control-Allow-Origin" not in reply.headers
    assert call(server, "OPTIONS", "/v1/models", Origin="https://evil.example") == 403


def test_requests_without_a_route(server: Serving) -> None:
    unknown = requests.get(f"{server.url}/v1/nothing", timeout=10)
    assert unknown.status_code == 404
    assert unknown.json()["error"]["type"] == "not_found"
    assert unknown.json()["error"]["path"] == "/v1/nothing"
    wrong = requests.get(f"{server.url}/v1/chat/completions", timeout=10)
    assert wrong.status_code == 405
    assert isinstance(wrong.json()["error"], str)
    assert "POST" in wrong.headers["Allow"]
    assert requests.head(f"{server.url}/v1/health", timeout=10).status_code == 200


def test_request_ids_are_kept_or_made(server: Serving) -> None:
    given = requests.get(f"{server.url}/live", headers={"X-Request-Id": "abc-1"}, timeout=10)
    assert given.headers["X-Request-Id"] == "abc-1"
    made = requests.get(f"{server.url}/live", headers={"X-Request-Id": "é" * 9}, timeout=10)
    assert made.headers["X-Request-Id"] not in ("", "é" * 9)


@pytest.mark.parametrize("server", [KEYS], indirect=True)
def test_a_refusal_is_a_text_on_every_route(server: Serving) -> None:
    for path in ("/v1/chat/completions", "/v1/load", "/internal/pin"):
        assert call(server, "POST", path) == 401
        assert call(server, "POST", path, Origin="https://evil.example") == 403


@pytest.mark.parametrize("server", [{"LEMONADE_API_KEY": "schlüssel-ключ\n"}], indirect=True)
def test_keys_may_be_of_any_letters(server: Serving) -> None:
    with LemonadeClient(server.url, "schlüssel-ключ") as client:
        assert client.health()["status"] == "ok"
    for wrong in ("schlüssel", "schlüssel-ключи", "ключ"):
        with LemonadeClient(server.url, wrong) as client, pytest.raises(NotAuthorised):
            client.health()


def test_a_key_no_header_can_carry_is_called_so() -> None:
    with pytest.raises(NotAuthorised, match="line"):
        LemonadeClient("http://127.0.0.1:9", "two\nlines")


@pytest.mark.parametrize("server", [{"LEMONADE_API_KEY": " \n"}], indirect=True)
def test_a_key_of_blanks_opens_nothing(server: Serving) -> None:
    assert call(server, "GET", "/v1/models") == 401
