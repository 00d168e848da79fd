"""A package index with one tiny wheel, and an installer that knows no other source."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lemonade.catalog import BackendSpec
from lemonade.core.bus import Bus
from lemonade.core.events import Event
from lemonade.installer import Bundles
from tests.installer.index import Index, serving
from tests.installer.setting import Setting
from tests.installer.wheels import Wheel, backend_of, build_wheel


@pytest.fixture
def wheel(tmp_path: Path) -> Wheel:
    return build_wheel(tmp_path / "index", extra_bytes=600_000)  # pip shows no progress of less


@pytest.fixture
def spec(wheel: Wheel) -> BackendSpec:
    return backend_of(wheel)


@pytest.fixture
def index(wheel: Wheel) -> Iterator[Index]:
    with serving(wheel.path.parent) as served:
        yield served


@pytest.fixture
def environ(tmp_path: Path, index: Index) -> dict[str, str]:
    """What pip may know: our index, and nothing of this machine's configuration."""
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(tmp_path),
        "LEMONADE_PYPI_URL": index.url,
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_NO_CACHE_DIR": "1",
        "NO_PROXY": "*",
    }


@pytest.fixture
def setting(tmp_path: Path, environ: dict[str, str]) -> Setting:
    bus = Bus()
    events: list[Event] = []
    bus.subscribe(Event, events.append)
    root = tmp_path / "cache" / "bin"
    return Setting(root, environ, bus, events, Bundles(root, environ))
