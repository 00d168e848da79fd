from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.checkpoints.hub_fixture import running_hub, set_faults
from tests.gateway.pulling import Hub
from tests.serving import Serving, serving, survivors


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """The test's own directory; at the end nothing of it may be alive."""
    yield tmp_path
    left = survivors(tmp_path)
    assert not left, f"still alive: {left}"


@pytest.fixture(scope="module")
def shared_hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """A hub for the whole file; every test puts repositories of its own into it."""
    root = tmp_path_factory.mktemp("repositories")
    with running_hub(root, "--gated", "o/gated-*", "--token", "sesame") as url:
        yield Hub(root, url)


@pytest.fixture
def hub(shared_hub: Hub) -> Iterator[Hub]:
    """The hub, without faults when the test begins and when it is over."""
    yield shared_hub
    set_faults(shared_hub.url)


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, engine_bundles: Path, shared_hub: Hub
) -> Iterator[Serving]:
    """With the embedded engine and a hub to pull from, for the whole file.

    Files of tests that want another one have a fixture of the same name.
    """
    home = tmp_path_factory.mktemp("pull")
    with serving(home, env={"HF_ENDPOINT": shared_hub.url}, bundles=engine_bundles) as one:
        yield one
    assert not survivors(home)
