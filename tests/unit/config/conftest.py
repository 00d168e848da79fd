"""Configurations in a folder of their own."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from lemonade.config import Configuration, SectionSpec
from lemonade.storage import Directories, directories

SECTIONS = {
    "brew": SectionSpec(
        name="brew",
        title="Brewer",
        defaults={
            "backend": "auto",
            "args": "",
            "rocm_args": "",
            "rocm_bin": "builtin",
            "prefer_system": True,
            "steps": 20,
            "cfg_scale": 7.0,
            "lora_dir": "",
            "threads": 4,
            "ratio": 0.5,
            "greeting": "hello",
            "loud": False,
            "device": "",
        },
        variants=("cpu", "rocm-stable", "system"),
    ),
    "tea": SectionSpec(name="tea", defaults={"args": ""}, selectable=False),
}


@pytest.fixture
def places(tmp_path) -> Directories:
    return directories({}, cache=tmp_path)


@pytest.fixture
def config_file(places):
    return places.config / "config.json"


@pytest.fixture
def load(places) -> Callable[..., Configuration]:
    """Make a configuration; `content` is written to config.json first."""

    def make(content=None, *, environ=None, **overrides) -> Configuration:
        if content is not None:
            text = content if isinstance(content, str) else json.dumps(content)
            (places.config / "config.json").write_text(text)
        return Configuration(places, environ or {}, overrides=overrides, sections=SECTIONS)

    return make
