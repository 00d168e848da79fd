"""Modules of the server beside `ryzenai-llm:cpu`, imported from where they lie."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import import_module
from types import ModuleType

import pytest

from lemonade.catalog import shipped

NAMES = ("parting", "wishes", "binding", "engine", "listening", "replies", "responses", "service")


@pytest.fixture(scope="session")
def modules() -> Iterator[dict[str, ModuleType]]:
    """They import each other by bare names, as the private interpreter lets them."""
    folder = str(shipped() / "backends" / "ryzenai-llm-cpu.overlay")
    assert not set(NAMES) & set(sys.modules)
    written = sys.dont_write_bytecode
    sys.dont_write_bytecode = True
    sys.path.append(folder)
    yield {name: import_module(name) for name in NAMES}
    sys.path.remove(folder)
    sys.dont_write_bytecode = written
    for name in NAMES:
        del sys.modules[name]


@pytest.fixture(scope="session")
def parting(modules: dict[str, ModuleType]) -> ModuleType:
    return modules["parting"]


@pytest.fixture(scope="session")
def wishes(modules: dict[str, ModuleType]) -> ModuleType:
    return modules["wishes"]
