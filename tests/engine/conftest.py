"""The engine, installed once for the run, and children of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lemonade.core.bundle import Bundle
from tests.engine.children import Child, running
from tests.engine.install import GENAI, engine_command, installed_engine


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


@pytest.fixture(scope="session")
def genai(genai_bundles: Path) -> tuple[str, ...]:
    """The server around ONNX Runtime GenAI."""
    return engine_command(installed_engine(genai_bundles.parent, GENAI))


@pytest.fixture(scope="module")
def genai_child(genai: tuple[str, ...]) -> Iterator[Child]:
    with running(genai, "tiny-lemon-oga-int4", "--ctx-size", "1024") as child:
        yield child
