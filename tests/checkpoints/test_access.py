"""Which hub, which token, which cache: from the variables all tools share."""

from __future__ import annotations

from pathlib import Path

import pytest

from lemonade.checkpoints import hub_access, hub_cache
from lemonade.checkpoints.direct import needs_direct_way


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, "/h/.cache/huggingface/hub"),
        ({"XDG_CACHE_HOME": "/x"}, "/x/huggingface/hub"),
        ({"HF_HOME": "/y", "XDG_CACHE_HOME": "/x"}, "/y/hub"),
        ({"HUGGINGFACE_HUB_CACHE": "/old", "HF_HOME": "/y"}, "/old"),
        ({"HF_HUB_CACHE": "/new", "HUGGINGFACE_HUB_CACHE": "/old"}, "/new"),
        ({"HF_HUB_CACHE": "~/models"}, "/h/models"),
        ({"HF_HUB_CACHE": ""}, "/h/.cache/huggingface/hub"),
    ],
)
def test_the_cache(environ: dict[str, str], expected: str) -> None:
    assert hub_cache({"HOME": "/h", **environ}) == Path(expected)


def test_the_setting_wins() -> None:
    environ = {"HOME": "/h", "HF_HUB_CACHE": "/new"}
    assert hub_cache(environ, "/mine") == Path("/mine")
    assert hub_cache(environ, "~/mine") == Path("/h/mine")
    assert hub_cache(environ, "auto") == Path("/new")
    assert hub_cache(environ, "") == Path("/new")
    assert hub_cache(environ, "beside").is_absolute()


def test_the_hub_and_the_token() -> None:
    access = hub_access({"HOME": "/h"})
    assert (access.endpoint, access.token) == ("https://huggingface.co", None)
    access = hub_access({"HOME": "/h", "HF_ENDPOINT": "http://mirror/", "HF_TOKEN": "sesame"})
    assert (access.endpoint, access.token) == ("http://mirror", "sesame")
    assert "sesame" not in repr(access)


@pytest.mark.parametrize(
    ("endpoint", "direct"),
    [
        ("http://127.0.0.1:8080", True),
        ("http://127.0.0.2/hub", True),
        ("http://localhost", True),
        ("http://[::1]:80", True),
        ("http://[nonsense", False),
        ("https://huggingface.co", False),
    ],
)
def test_who_is_asked_without_the_proxy(
    endpoint: str, direct: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    assert not needs_direct_way(endpoint)
    monkeypatch.setenv("http_proxy", "http://192.0.2.1:3128")
    assert needs_direct_way(endpoint) is direct
