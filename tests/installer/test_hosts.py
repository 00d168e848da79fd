"""Whom we talk to, in clear text or not, through which proxy, and who gets the token."""

from __future__ import annotations

import pytest

from lemonade.core.errors import DownloadFailed
from lemonade.installer.hosts import ReleaseHosts, is_loopback


def test_the_public_hosts_unless_others_are_named() -> None:
    hosts = ReleaseHosts.from_environ({})
    assert hosts.file_url("o/n/releases/download/v1/a b.tar.gz").endswith("/v1/a%20b.tar.gz")
    assert hosts.release_url("o/n", "v/1").endswith("/repos/o/n/releases/tags/v%2F1")
    mirror = ReleaseHosts.from_environ({"LEMONADE_GITHUB_URL": "https://mirror.example/x/"})
    assert mirror.file_url("o/n") == "https://mirror.example/x/o/n"


@pytest.mark.parametrize(
    ("url", "fine"),
    [
        ("https://anywhere.example/x", True),
        ("http://127.0.0.1:8000/x", True),
        ("http://localhost/x", True),
        ("http://[::1]:80/x", True),
        ("http://allowed.example/x", True),
        ("http://ALLOWED.example:81/x", True),
        ("http://anywhere.example/x", False),
        ("http://127.0.0.1.example/x", False),
        ("http://evil.example#127.0.0.1", False),
        ("http://127.0.0.1@evil.example/", False),
        ("ftp://127.0.0.1/x", False),
        ("file:///etc/passwd", False),
        ("https:///x", False),
        ("https://[::1/x", False),
        ("https://host:port/x", False),
        ("http://127.0.0.1:99999/x", False),
        ("https://two..dots/x", False),
    ],
)
def test_who_may_be_asked(url: str, *, fine: bool) -> None:
    hosts = ReleaseHosts.from_environ({"LEMONADE_ALLOW_HTTP": "other, allowed.example"})
    if fine:
        hosts.check(url)
        return
    with pytest.raises(DownloadFailed) as caught:
        hosts.check(url)
    assert caught.value.remedy


def test_hosts_that_are_none_get_no_token_and_break_nothing() -> None:
    hosts = ReleaseHosts.from_environ({"LEMONADE_GITHUB_URL": "https://[x", "GITHUB_TOKEN": "t"})
    assert "Authorization" not in hosts.headers("https://elsewhere.example/x")
    assert "Authorization" in hosts.headers("https://api.github.com/x")


@pytest.mark.parametrize("url", ["http://127.0.0.1/x", "http://allowed.example/x"])
def test_what_is_encrypted_stays_so(url: str) -> None:
    hosts = ReleaseHosts.from_environ({"LEMONADE_ALLOW_HTTP": "allowed.example"})
    with pytest.raises(DownloadFailed, match="leads to"):
        hosts.check(url, after="https://good.example/signed?secret=1")
    hosts.check("https://other.example", after="https://good.example")
    hosts.check("https://other.example", after="http://allowed.example")


@pytest.mark.parametrize(
    ("url", "given"),
    [
        ("https://mirror.example/o/n", True),
        ("https://mirror.example:443/o/n", True),
        ("https://api.example/repos", True),
        ("https://mirror.example:8443/o/n", False),
        ("https://storage.example/o/n", False),
        ("https://mirror.example.evil/o/n", False),
        ("http://mirror.example/o/n", False),
    ],
)
def test_who_gets_the_token(url: str, *, given: bool) -> None:
    hosts = ReleaseHosts.from_environ(
        {
            "GITHUB_TOKEN": " sesame\n",
            "LEMONADE_GITHUB_URL": "https://mirror.example",
            "LEMONADE_GITHUB_API_URL": "https://api.example",
        }
    )
    assert (hosts.headers(url).get("Authorization") == "Bearer sesame") is given


def test_a_token_is_not_sent_in_clear_text() -> None:
    environ = {"GITHUB_TOKEN": "x", "LEMONADE_GITHUB_URL": "http://allowed.example"}
    hosts = ReleaseHosts.from_environ({**environ, "LEMONADE_ALLOW_HTTP": "allowed.example"})
    assert "Authorization" not in hosts.headers("http://allowed.example/o")


@pytest.mark.parametrize(
    ("url", "proxy"),
    [
        ("https://anywhere.example/", "http://proxy:1"),
        ("http://anywhere.example/", None),
        ("https://127.0.0.1/", None),
        ("https://inside.corp/", None),
        ("https://deep.inside.corp/", None),
        ("https://notinside.corp/", "http://proxy:1"),
    ],
)
def test_proxies(url: str, proxy: str | None) -> None:
    environ = {
        "HTTPS_PROXY": "http://proxy:1",
        "HTTP_PROXY": "http://x:1",
        "no_proxy": ".inside.corp",
    }
    assert ReleaseHosts.from_environ(environ).proxy(url) == proxy
    assert (
        ReleaseHosts.from_environ({**environ, "NO_PROXY": "*", "no_proxy": "*"}).proxy(url) is None
    )


def test_loopback() -> None:
    assert is_loopback("127.9.9.9")
    assert is_loopback("::1")
    assert not is_loopback("10.0.0.1")
    assert not is_loopback("")
