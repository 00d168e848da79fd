"""Adapters that are remembered, and what a recipe has to say of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from lemonade.catalog import (
    Adapter,
    AdapterRegistry,
    AdaptersSpec,
    Catalog,
    ModelRegistry,
    shipped,
)
from lemonade.core.errors import MalformedRequest, NameTaken, UnknownModel

CHAT = "builtin.Tiny-Lemon-GGUF"


@pytest.fixture
def models(tmp_path: Path) -> ModelRegistry:
    return ModelRegistry(Catalog.load((shipped(),)), tmp_path / "user_models.json")


@pytest.fixture
def registry(tmp_path: Path, models: ModelRegistry) -> AdapterRegistry:
    return AdapterRegistry(tmp_path / "adapters.json", models)


def test_kept_and_read_again(
    tmp_path: Path, models: ModelRegistry, registry: AdapterRegistry
) -> None:
    first, second = Adapter("a", Path("/a.gguf"), 0.5, 8), Adapter("b", Path("/b.gguf"))
    registry.put(CHAT, first)
    registry.put(CHAT, second)
    registry.put("user.other", first)
    again = AdapterRegistry(tmp_path / "adapters.json", models)
    assert again.of(CHAT) == {"a": first, "b": second}
    registry.erase(CHAT, "a")
    registry.erase(CHAT, "nobody")
    assert list(registry.of(CHAT)) == ["b"]
    registry.erase(CHAT)
    assert json.loads((tmp_path / "adapters.json").read_text()) == {
        "user.other": {"a": {"path": "/a.gguf", "scale": 0.5, "rank": 8}}
    }


@pytest.mark.parametrize(
    "entry",
    [None, "x", {}, {"path": "relative"}, {"path": 7}, {"scale": 1}],
    ids=str,
)
def test_a_hand_that_wrote_nonsense(tmp_path: Path, models: ModelRegistry, entry: object) -> None:
    good = {"path": "/a.gguf", "scale": "much", "rank": True}
    file = tmp_path / "adapters.json"
    file.write_text(json.dumps({CHAT: {"bad": entry, "good": good, "a:b": good}, "x": []}))
    registry = AdapterRegistry(file, models)
    assert registry.of(CHAT) == {"good": Adapter("good", Path("/a.gguf"))}


def test_split(registry: AdapterRegistry) -> None:
    adapter = Adapter("pirate", Path("/a.gguf"))
    registry.put(CHAT, adapter)
    for name in ("Tiny-Lemon-GGUF", "nobody", "Tiny-Lemon-GGUF:latest"):
        if ":" in name or name != "nobody":
            assert registry.split(name) == (name, None)
    for base in ("Tiny-Lemon-GGUF", CHAT, "Tiny-Lemon-GGUF:latest"):
        assert registry.split(f"{base}:pirate") == (base, adapter)
    assert registry.split("Tiny-Lemon-GGUF:pirate:latest") == ("Tiny-Lemon-GGUF", adapter)
    assert registry.split("no-colon-no-look") == ("no-colon-no-look", None)
    with pytest.raises(UnknownModel, match=r"no adapter 'pirat'.*mean .*:pirate\?") as caught:
        registry.split("Tiny-Lemon-GGUF:pirat")
    assert caught.value.facts["near"] == ["Tiny-Lemon-GGUF:pirate"]
    for name in ("nobody:pirate", ":pirate", ":", "::latest"):
        with pytest.raises((UnknownModel, MalformedRequest)):
            registry.split(name)


def test_names(models: ModelRegistry, registry: AdapterRegistry) -> None:
    spec = models.resolve(CHAT)
    registry.check_name(spec, "a.b-c_9")
    for name in ("", "a b", "a:b", "a/b", "../x", "latest", "-x", "x" * 65, "ä", "a\n"):
        with pytest.raises(MalformedRequest):
            registry.check_name(spec, name)
    definition = {
        "model_name": "user.Tiny-Lemon-GGUF:own",
        "recipe": "llamacpp",
        "checkpoint": "o/r:Q4_0",
    }
    models.register(definition)
    with pytest.raises(NameTaken):
        registry.check_name(models.resolve("Tiny-Lemon-GGUF"), "own")


GOOD = {
    "format": "gguf",
    "each": ["--lora", "{path}"],
    "chosen_by": "scales",
    "field": "lora",
    "operations": ["chat"],
}


def test_a_recipe_says_one_way() -> None:
    assert AdaptersSpec.model_validate(GOOD).scales
    for wrong in (
        {"each": []},
        {"load": "/load"},
        {"each": [], "load": "/load"},
        {"field": ""},
        {"chosen_by": "name"},
        {"each": [], "load": "/l", "unload": "/u"},
    ):
        with pytest.raises(ValidationError):
            AdaptersSpec.model_validate({**GOOD, **wrong})
