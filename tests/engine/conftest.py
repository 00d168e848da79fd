"""The engine, installed once for the run, and children of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lemonade.core.bundle import Bundle
from tests.engine.children import Child, running
from tests.engine.install import engine_command, installed_engine


@pytest.fixture(scope="session")
def engine_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return installed_engine(tmp_path_factory.mktemp("engine"))


@pytest.fixture(scope="session")
def engine(engine_bundle: Bundle) -> tuple[str, ...]:
    return engine_command(engine_bundle)


@pytest.fixture(scope="module")
def chat_child(engine: tuple[str, ...]) -> Iterator[Child]:
    with running(engine, "tiny-lemon-Q8_0.gguf", "--alias", "lemon,limette", "--metrics") as child:
        yield child
