from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serving import survivors


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """The test's own directory; at the end nothing of it may be alive, workers included."""
    yield tmp_path
    left = survivors(tmp_path)
    assert not left, f"still alive: {left}"
