"""For all tests: a fixed hypothesis profile, and no variable of the developer's machine."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.engine.install import GENAI, installed_engine

settings.register_profile(
    "house", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
settings.load_profile("house")

_FOR_TESTS = ("LEMONADE_WHEELS", "LEMONADE_VLLM_CACHE", "LEMONADE_PYPI_EXTRA_URL")

for number in (signal.SIGHUP, signal.SIGINT):
    # `nohup` and `&` have us ignore them, and what we start would do so too.
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, signal.SIG_DFL)

for name in tuple(os.environ):
    # Keys, hosts and directories of the person who runs the tests must not leak into them.
    if name.startswith("LEMONADE_") and name not in _FOR_TESTS:
        del os.environ[name]
    if name in ("HF_TOKEN", "HF_ENDPOINT", "HF_HUB_CACHE", "HF_HOME"):
        del os.environ[name]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests of vLLM itself take minutes and gigabytes: they run if `-m` names them, else not."""
    if "vllm" in config.option.markexpr:
        return
    left_out = [item for item in items if item.get_closest_marker("vllm")]
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=left_out)


@pytest.fixture(scope="session")
def engine_bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of bundles with the embedded engine in it, installed once for the whole run."""
    cache = tmp_path_factory.mktemp("engine")
    installed_engine(cache)
    return cache / "bin"


@pytest.fixture(scope="session")
def genai_bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with the other engine that comes from packages."""
    cache = tmp_path_factory.mktemp("genai")
    installed_engine(cache, GENAI)
    return cache / "bin"
