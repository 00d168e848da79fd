"""Small catalogs in folders of their own; no engine's name in them is a real one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lemonade.catalog import Catalog, ModelRegistry

RECIPE = """\
schema   = 1
id       = "brew"
title    = "Brewer"
section  = "brew"
modality = "Text generation"
modes    = ["chat", "embeddings", "reranking"]
checkpoints = ["main", "mmproj"]
files    = "gguf"

[upstream]
ready = "/health"
ready_within = "90s"

[upstream.operations]
chat = "/v1/chat/completions"

[argv]
always  = ["-m", "{checkpoint.main}", "--host", "{host}", "--port", "{port}", "--alias", "{model}"]
context = ["-c", "{ctx_size}"]

[argv.for_checkpoint]
mmproj = ["--mmproj", "{checkpoint.mmproj}"]

[settings]
args = ""

[[option]]
name = "brew_args"
type = "argv"
default = ""
help = "Arguments."
setting = "args"

[[option]]
name = "brew_device"
type = "string"
default = "gpu0"
help = "Device."
setting = "device"
"""

BACKEND = """\
schema     = 1
id         = "brew:cpu"
title      = "Brewer on the processor"
preference = 50
devices    = ["cpu"]

[pin]
source     = "system"
executable = "brew"

[[runs_on]]
os = ["linux"]

[bundle]
argv = ["{executable}"]
"""

WHOLE = RECIPE.replace('"brew"', '"whole"').replace('"gguf"', '"repository"')


class Folder:
    """A root of declared data that a test writes."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, name: str, text: str) -> Path:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def load(self, *others: Path) -> Catalog:
        return Catalog.load([self.path, *others])


@pytest.fixture
def folder(tmp_path) -> Folder:
    """A root with two recipes and one backend."""
    made = Folder(tmp_path / "shipped")
    made.write("recipes/brew.toml", RECIPE)
    made.write("recipes/whole.toml", WHOLE)
    made.write("backends/brew-cpu.toml", BACKEND)
    made.write(
        "server_models.json",
        """{
          "Stout-GGUF": {"checkpoint": "acme/Stout-GGUF:Q4_K_M", "recipe": "brew",
                         "labels": ["chat", "hot"], "size": 1.5, "suggested": true},
          "Ale-GGUF": {"checkpoint": "acme/Ale-GGUF:Q8_0", "recipe": "brew", "labels": ["hot"]},
          "Later": {"checkpoint": "acme/Later", "recipe": "unheard-of", "labels": ["image"]},
          "Kit": {"checkpoint": "acme/Kit", "recipe": "collection.omni", "labels": ["chat"]}
        }""",
    )
    return made


@pytest.fixture
def overlay(tmp_path) -> Folder:
    """A second root, above the first."""
    return Folder(tmp_path / "own")


@pytest.fixture
def registry(folder, tmp_path) -> Callable[[], ModelRegistry]:
    """A registry over the folder; called again, it starts afresh from the same file."""
    return lambda: ModelRegistry(folder.load(), tmp_path / "config" / "user_models.json")


@pytest.fixture
def user_file(tmp_path) -> Path:
    return tmp_path / "config" / "user_models.json"
