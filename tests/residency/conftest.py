"""Fixtures for newly installed engines."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.installer.setting import mentioning
from tests.programs.release_server import serving as releasing
from tests.residency.installing import Setting, with_canary
from tests.serving import fake_catalog


@pytest.fixture
def setting(tmp_path: Path) -> Iterator[Setting]:
    fake_catalog(tmp_path)
    (tmp_path / "releases").mkdir()
    with releasing(tmp_path / "releases") as host:
        yield Setting(tmp_path, host, with_canary(tmp_path))
    assert mentioning(tmp_path) == []
    assert list((tmp_path / "ledger").glob("*.json")) == [], "children are struck off the ledger"
