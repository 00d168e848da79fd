"""Keys and origins, as tables."""

from __future__ import annotations

import pytest

from lemonade.config import AccessKeys, bearer, origin_allowed

LIST = "https://app.example, http://lan.example:8080,https://[2001:db8::1]:9000, tauri.example"

ALLOWED = [
    ("http://localhost", ""),
    ("http://localhost:3000", ""),
    ("https://localhost:65535", ""),
    ("HTTP://LOCALHOST", ""),
    ("ws://localhost:9000", ""),
    ("http://127.0.0.1:13305", ""),
    ("http://[::1]", ""),
    ("http://[::1]:5173", ""),
    ("http://[0:0:0:0:0:0:0:1]:1", ""),
    ("http://app.localhost:3000", ""),
    ("http://a.b.localhost", ""),
    ("tauri://localhost", ""),
    ("app://.", ""),
    ("file://", ""),
    ("vscode-webview://0q9k3d", ""),
    ("null", "null"),
    ("null", "https://app.example, null"),
    ("null", "*"),
    ("https://anything.example", "*"),
    ("https://app.example", LIST),
    ("https://app.example:443", LIST),
    ("HTTPS://APP.EXAMPLE", LIST),
    ("http://lan.example:8080", LIST),
    ("https://[2001:db8:0::1]:9000", LIST),
    ("https://app.example", "https://app.example/"),
    ("https://app.example:443", " https://app.example:443 "),
]

REFUSED = [
    ("https://app.example", ""),
    ("null", ""),
    ("null", "https://app.example"),
    ("NULL", "null"),
    ("", ""),
    ("", "*"),
    ("localhost", ""),
    ("localhost:3000", ""),
    ("//localhost", ""),
    ("http:localhost", ""),
    ("http:/localhost", ""),
    ("http://", ""),
    ("http://localhost/", ""),
    ("http://localhost/page", "*"),
    ("http://localhost?x", ""),
    ("http://localhost#x", ""),
    ("http://user@localhost", ""),
    ("http://localhost@evil.example", ""),
    ("http://localhost:0", ""),
    ("http://localhost:65536", ""),
    ("http://localhost:", ""),
    ("http://localhost:http", ""),
    ("http://localhost:80:80", ""),
    ("http://::1", ""),
    ("http://[::1", ""),
    ("http://[::g]", ""),
    ("http://[::1]evil.example", ""),
    ("http://local host", ""),
    ("http://localhost\r\nX: y", ""),
    ("http://localhost ", ""),
    ("http://localhost.evil.example", ""),
    ("http://evil-localhost", ""),
    ("http://.localhost", ""),
    ("http://localhost.", ""),
    ("http://127.0.0.1.evil.example", ""),
    ("http://127.0.0.2", ""),
    ("http://127.1", ""),
    ("http://0.0.0.0", ""),
    ("http://192.168.1.5", ""),
    ("http://app.example", LIST),
    ("https://app.example:444", LIST),
    ("https://sub.app.example", LIST),
    ("https://app.example.evil.example", LIST),
    ("http://lan.example", LIST),
    ("https://[2001:db8::2]:9000", LIST),
    ("https://tauri.example", LIST),
    ("javascript:alert(1)", ""),
    ("http://a.example, http://localhost", ""),
]


@pytest.mark.parametrize(("origin", "listed"), ALLOWED)
def test_allowed(origin, listed):
    assert origin_allowed(origin, listed)


@pytest.mark.parametrize(("origin", "listed"), REFUSED)
def test_refused(origin, listed):
    assert not origin_allowed(origin, listed)


BEARERS = [
    (None, ""),
    ("", ""),
    ("Bearer", ""),
    ("Bearer ", ""),
    ("Bearer key", "key"),
    ("bearer key", "key"),
    ("Bearer  key ", "key"),
    ("Basic key", ""),
    ("key", ""),
    ("Bearerkey", ""),
]


@pytest.mark.parametrize(("header", "key"), BEARERS)
def test_bearer(header, key):
    assert bearer(header) == key


OPEN, REGULAR, ADMIN = {}, {"LEMONADE_API_KEY": "k"}, {"LEMONADE_ADMIN_API_KEY": "a"}
BOTH = REGULAR | ADMIN
DOORS = [
    # environment, header, regular, admin
    (OPEN, None, True, True),
    (OPEN, "Bearer whatever", True, True),
    (REGULAR, None, False, False),
    (REGULAR, "Bearer wrong", False, False),
    (REGULAR, "Bearer k", True, True),
    (REGULAR, "Bearer K", False, False),
    (ADMIN, None, True, False),
    (ADMIN, "Bearer a", True, True),
    (BOTH, "Bearer k", True, False),
    (BOTH, "Bearer a", True, True),
    (BOTH, None, False, False),
    (BOTH, "Bearer ", False, False),
    (REGULAR | {"LEMONADE_ADMIN_API_KEY": ""}, None, False, True),
    (REGULAR | {"LEMONADE_ADMIN_API_KEY": ""}, "Bearer k", True, True),
    ({"LEMONADE_API_KEY": "schlüssel"}, "Bearer schlüssel", True, True),
    ({"LEMONADE_API_KEY": "schlüssel"}, "Bearer \udcff", False, False),
]


@pytest.mark.parametrize(("environ", "header", "regular", "admin"), DOORS)
def test_doors(environ, header, regular, admin):
    keys = AccessKeys.from_environ(environ)
    assert keys.admits("open", header)
    assert keys.admits("regular", header) is regular
    assert keys.admits("admin", header) is admin


def test_only_a_key_of_its_own_counts_as_given():
    assert not AccessKeys.from_environ(REGULAR).admin_key_given
    assert not AccessKeys.from_environ({"LEMONADE_ADMIN_API_KEY": ""}).admin_key_given
    assert AccessKeys.from_environ(ADMIN).admin_key_given


def test_keys_are_not_shown():
    keys = AccessKeys.from_environ({"LEMONADE_API_KEY": "s3cret", "LEMONADE_ADMIN_API_KEY": "t0p"})
    assert "s3cret" not in repr(keys)
    assert "t0p" not in repr(keys)


def test_origins_come_from_the_environment():
    keys = AccessKeys.from_environ({"LEMONADE_ALLOWED_ORIGINS": "https://app.example"})
    assert keys.allows_origin("https://app.example")
    assert not keys.allows_origin("https://other.example")
