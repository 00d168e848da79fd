"""Which directories a server uses, as a table of environments."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from lemonade.core.errors import BadConfigFile
from lemonade.storage import directories

HOME = {"HOME": "/h"}

CACHES = [
    ({}, "/h/.cache/lemonade"),
    ({"XDG_CACHE_HOME": "/x"}, "/x/lemonade"),
    ({"XDG_CACHE_HOME": "relative"}, "/h/.cache/lemonade"),
    ({"XDG_CACHE_HOME": ""}, "/h/.cache/lemonade"),
    ({"CACHE_DIRECTORY": "/var/cache/lemonade", "XDG_CACHE_HOME": "/x"}, "/var/cache/lemonade"),
    ({"CACHE_DIRECTORY": "/a:/b"}, "/a"),
    ({"LEMONADE_CACHE_DIR": "/own", "CACHE_DIRECTORY": "/a"}, "/own"),
]
CONFIGS = [
    ({}, "/h/.config/lemonade"),
    ({"XDG_CONFIG_HOME": "/x"}, "/x/lemonade"),
    ({"STATE_DIRECTORY": "/var/lib/lemonade", "XDG_CONFIG_HOME": "/x"}, "/var/lib/lemonade"),
    ({"LEMONADE_CONFIG_DIR": "/own", "STATE_DIRECTORY": "/a"}, "/own"),
    ({"LEMONADE_CACHE_DIR": "/own"}, "/h/.config/lemonade"),
]
RUNTIMES = [
    ({}, "/h/.cache/lemonade/run"),
    ({"XDG_RUNTIME_DIR": "/run/user/1"}, "/run/user/1/lemonade"),
    ({"RUNTIME_DIRECTORY": "/run/lemonade"}, "/run/lemonade"),
    ({"XDG_RUNTIME_DIR": "/x", "RUNTIME_DIRECTORY": "/run/lemonade"}, "/x/lemonade"),
]
STATES = [
    ({}, "/h/.cache/lemonade/state"),
    ({"XDG_STATE_HOME": "/s"}, "/s/lemonade"),
    ({"XDG_STATE_HOME": "/s", "LEMONADE_CACHE_DIR": "/own"}, "/own/state"),
]


@pytest.mark.parametrize(("environ", "expected"), CACHES)
def test_cache(environ, expected):
    assert directories(HOME | environ).cache == Path(expected)


@pytest.mark.parametrize(("environ", "expected"), CONFIGS)
def test_config(environ, expected):
    assert directories(HOME | environ).config == Path(expected)


@pytest.mark.parametrize(("environ", "expected"), RUNTIMES)
def test_runtime(environ, expected):
    assert directories(HOME | environ).runtime == Path(expected)


@pytest.mark.parametrize(("environ", "expected"), STATES)
def test_state(environ, expected):
    assert directories(HOME | environ).state == Path(expected)


def test_a_cache_alone_is_everything():
    found = directories(HOME | {"LEMONADE_CONFIG_DIR": "/other"}, cache=Path("/portable"))
    assert (found.cache, found.config) == (Path("/portable"), Path("/portable"))


def test_arguments_win():
    found = directories(
        HOME | {"LEMONADE_CACHE_DIR": "/a", "LEMONADE_CONFIG_DIR": "/b"},
        cache=Path("/c"),
        config=Path("/d"),
    )
    assert (found.cache, found.config) == (Path("/c"), Path("/d"))


def test_relative_arguments_become_absolute():
    found = directories(HOME, cache=Path("here"))
    assert found.cache == Path.cwd() / "here"
    assert found.state == Path.cwd() / "here" / "state"


def test_home_is_not_needed_when_everything_is_named(tmp_path):
    found = directories({"LEMONADE_CACHE_DIR": "/c", "LEMONADE_CONFIG_DIR": "/d"})
    assert found.config == Path("/d")


def test_they_are_made_for_their_owner_only(tmp_path):
    found = directories({"HOME": str(tmp_path)})
    found.ensure()
    found.ensure()
    for path in (found.cache, found.config, found.runtime, found.state):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700


def test_one_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadConfigFile, match=r"file/cache cannot be created") as caught:
        directories({"HOME": str(tmp_path)}, cache=tmp_path / "file" / "cache").ensure()
    assert "LEMONADE_CACHE_DIR" in caught.value.remedy
