"""Which model a name means, and what is kept of the user's own."""

from __future__ import annotations

import json
import logging
import threading

import pytest

from lemonade.catalog import EXTRA_SOURCE, ModelRegistry, ModelSpec
from lemonade.core.errors import MalformedRequest, UnknownModel


def extra(name, **more):
    return ModelSpec(
        name=name,
        origin="extra",
        recipe="brew",
        checkpoints={"main": f"/models/{name}.gguf"},
        source=EXTRA_SOURCE,
        **more,
    )


def mine(name):
    return {
        "model_name": f"user.{name}",
        "recipe": "brew",
        "checkpoint": f"me/{name}-GGUF:Q4_K_M",
    }


FOUND = [
    ("Stout-GGUF", "builtin.Stout-GGUF"),
    ("builtin.Stout-GGUF", "builtin.Stout-GGUF"),
    (" Stout-GGUF ", "builtin.Stout-GGUF"),
    ("Stout-GGUF:latest", "builtin.Stout-GGUF"),
    ("Mine", "user.Mine"),
    ("user.Mine", "user.Mine"),
    ("user.Mine:latest", "user.Mine"),
    ("Found", "extra.Found"),
    ("extra.Found", "extra.Found"),
    ("Ale-GGUF", "user.Ale-GGUF"),
    ("builtin.Ale-GGUF", "builtin.Ale-GGUF"),
    ("extra.Ale-GGUF", "extra.Ale-GGUF"),
]
NOT_FOUND = [
    "stout-gguf",
    "user.Stout-GGUF",
    "extra.Stout-GGUF",
    "builtin.Mine",
    "extra.Mine",
    "acme/Stout-GGUF",
    "Stout-GGUF:Q4_K_M",
    "user.user.Mine",
    "latest",
]


@pytest.fixture
def full(registry):
    models = registry()
    models.register(mine("Mine"))
    models.register(mine("Ale-GGUF"))
    models.set_extra([extra("Found"), extra("Ale-GGUF")])
    return models


@pytest.mark.parametrize(("name", "canonical"), FOUND)
def test_found(full, name, canonical):
    assert full.resolve(name).canonical_name == canonical


@pytest.mark.parametrize("name", NOT_FOUND)
def test_not_found(full, name):
    with pytest.raises(UnknownModel) as caught:
        full.resolve(name)
    assert f"'{name}'" in caught.value.message
    assert caught.value.facts["requested"] == name
    assert "`lemonade list`" in caught.value.remedy


@pytest.mark.parametrize("name", ["", "../Mine", "a\x00b", "x" * 201, None, 5])
def test_no_name_at_all(full, name):
    with pytest.raises(MalformedRequest):
        full.resolve(name)


def test_near_names_are_told(full):
    with pytest.raises(UnknownModel) as caught:
        full.resolve("stout-ggug")
    assert caught.value.facts["near"][0] == "Stout-GGUF"
    assert "Did you mean Stout-GGUF" in caught.value.remedy


def test_every_model_has_one_public_name(full):
    names = {full.public_name(spec): spec.canonical_name for spec in full.all()}
    assert names == {
        "Mine": "user.Mine",
        "Ale-GGUF": "user.Ale-GGUF",
        "extra.Ale-GGUF": "extra.Ale-GGUF",
        "builtin.Ale-GGUF": "builtin.Ale-GGUF",
        "Found": "extra.Found",
        "Stout-GGUF": "builtin.Stout-GGUF",
        "Later": "builtin.Later",
        "Kit": "builtin.Kit",
    }
    for public, canonical in names.items():
        assert full.resolve(public).canonical_name == canonical


def test_a_collection_of_ones_own_keeps_its_prefix(registry, user_file):
    user_file.parent.mkdir()
    user_file.write_text(json.dumps({"Mix": {"recipe": "collection.omni", "components": ["A"]}}))
    models = registry()
    assert models.public_name(models.resolve("Mix")) == "user.Mix"
    assert models.public_name(models.resolve("Kit")) == "Kit"


def test_a_removed_model_uncovers_what_it_shadowed(full, registry):
    assert full.remove("Ale-GGUF") is True
    assert full.resolve("Ale-GGUF").origin == "extra"
    full.set_extra([])
    assert full.resolve("Ale-GGUF").origin == "builtin"
    with pytest.raises(UnknownModel):
        full.resolve("Found")
    assert registry().resolve("Ale-GGUF").origin == "builtin"


def test_only_ones_own_can_be_forgotten(full):
    assert full.remove("Stout-GGUF") is False
    assert full.remove("extra.Found") is False
    with pytest.raises(UnknownModel):
        full.remove("none")
    full.resolve("Stout-GGUF")


def test_sizes_are_noted(full, registry):
    full.set_size("user.Mine", 1.25)
    full.set_size("Stout-GGUF", 1.75)
    assert full.resolve("Mine").size_gb == 1.25
    assert full.resolve("Stout-GGUF").size_gb == 1.75
    again = registry()
    assert again.resolve("Mine").size_gb == 1.25
    assert again.resolve("Stout-GGUF").size_gb == 1.5


def test_an_entry_that_is_wrong_is_left_out_and_kept(registry, user_file, caplog):
    user_file.parent.mkdir()
    document = {
        "Good": {"checkpoint": "a/b:Q4", "recipe": "brew"},
        "NoRecipe": {"checkpoint": "a/b:Q4"},
        "Image": {"checkpoint": "a/b:Q4", "recipe": "brew", "labels": ["image"]},
        "Later": {"checkpoint": "a/b", "recipe": "unheard-of"},
        "../Climber": {"checkpoint": "a/b:Q4", "recipe": "brew"},
        "List": [],
    }
    user_file.write_text(json.dumps(document))
    with caplog.at_level(logging.ERROR):
        models = registry()
    assert {s.name for s in models.all() if s.origin == "user"} == {"Good", "Later"}
    for name in ("NoRecipe", "Image", "Climber", "List"):
        assert name in caplog.text
    models.register(mine("New"))
    assert json.loads(user_file.read_text()).keys() == document.keys() | {"New"}


def test_a_broken_file_is_put_aside(registry, user_file):
    user_file.parent.mkdir()
    user_file.write_text("{")
    models = registry()
    models.resolve("Stout-GGUF")
    assert user_file.with_name("user_models.json.corrupted").exists()


def test_what_another_process_wrote_is_not_lost(registry, user_file):
    one, two = registry(), registry()
    one.register(mine("One"))
    two.register(mine("Two"))
    assert json.loads(user_file.read_text()).keys() == {"One", "Two"}
    with pytest.raises(UnknownModel):
        one.resolve("Two")
    one.refresh()
    assert one.resolve("Two").origin == "user"


def test_writers_wait_for_each_other(registry, user_file):
    models = registry()
    threads = [threading.Thread(target=models.register, args=[mine(f"M{n}")]) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(json.loads(user_file.read_text())) == 12


def test_the_catalog_itself_is_not_changed(folder, tmp_path):
    catalog = folder.load()
    models = ModelRegistry(catalog, tmp_path / "user_models.json")
    models.set_size("Stout-GGUF", 9.0)
    assert catalog.builtin_models()["Stout-GGUF"].size_gb == 1.5


def test_a_file_with_a_prefix_in_its_name_shadows_nobody(registry):
    models = registry()
    mine, _ = models.register(
        {"model_name": "user.x", "recipe": "brew", "checkpoint": "acme/x:Q4_0"}
    )
    file = mine.model_copy(update={"name": "user.x", "origin": "extra"})
    models.set_extra([file])
    assert models.resolve("user.x") == mine
    assert models.public_name(file) == "extra.user.x"
    assert models.resolve(models.public_name(file)) is file
