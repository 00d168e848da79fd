"""Where declared data comes from, and who replaces whom."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from lemonade.catalog import Catalog, shipped, sources
from lemonade.core.ids import BackendId
from tests.unit.catalog.conftest import BACKEND, RECIPE, WHOLE

CPU = BackendId("brew", "cpu")


def test_the_order_of_the_folders(tmp_path):
    own, two = tmp_path / "own", tmp_path / "two"
    own.mkdir()
    two.mkdir()
    found = sources({"LEMONADE_CATALOG": f"{own}:{two}:"}, tmp_path / "config")
    assert found == (shipped(), Path("/etc/lemonade"), tmp_path / "config", own, two)


def test_a_folder_is_looked_at_once_where_it_is_named_last(tmp_path):
    assert sources({}, shipped()) == (Path("/etc/lemonade"), shipped())
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    assert sources({"LEMONADE_CATALOG": f"{one}:{two}:{one}"}, tmp_path)[-2:] == (two, one)


def test_folders_are_absolute_whatever_was_written(tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert sources({"LEMONADE_CATALOG": "mine"}, tmp_path)[-1] == tmp_path / "mine"
    assert sources({"LEMONADE_CATALOG": "~/mine"}, tmp_path)[-1] == tmp_path / "mine"


def test_a_named_folder_that_is_not_there_is_told(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        sources({"LEMONADE_CATALOG": "/no/such/folder"}, tmp_path)
    assert "/no/such/folder" in caplog.text


def test_folders_that_are_not_there_are_skipped(folder):
    assert folder.load(Path("/no/such/folder")).recipes.keys() == {"brew", "whole"}


def test_a_file_of_ones_own_replaces_the_whole_descriptor(folder, overlay):
    path = overlay.write(
        "backends/my-own-name.toml", BACKEND.replace("Brewer on the processor", "Mine")
    )
    catalog = folder.load(overlay.path)
    assert catalog.backend(CPU).title == "Mine"
    assert catalog.origin_file("brew:cpu") == path
    assert catalog.overlay_dir(CPU) == overlay.path / "backends" / "my-own-name.overlay"


def test_nothing_is_merged_into_the_replaced_file(folder, overlay):
    overlay.write("recipes/brew.toml", WHOLE.replace('"whole"', '"brew"'))
    assert folder.load(overlay.path).recipe("brew").files == "repository"


def test_a_backend_can_be_dropped_in(folder, overlay):
    overlay.write(
        "backends/brew-gpu.toml",
        BACKEND.replace("brew:cpu", "brew:gpu").replace("= 50", "= 10"),
    )
    catalog = folder.load(overlay.path)
    assert [spec.id for spec in catalog.backends_of("brew")] == ["brew:gpu", "brew:cpu"]
    assert catalog.sections()["brew"].variants == ("cpu", "gpu")


def test_a_recipe_can_be_dropped_in(folder, overlay):
    overlay.write("recipes/tea.toml", RECIPE.replace('"brew"', '"tea"').replace("brew_", "tea_"))
    overlay.write("backends/tea-cpu.toml", BACKEND.replace("brew:cpu", "tea:cpu"))
    catalog = folder.load(overlay.path)
    assert catalog.recipe("tea").section == "tea"
    assert len(catalog.backends_of("tea")) == 1


def test_models_are_merged_by_name_each_as_a_whole(folder, overlay):
    overlay.write(
        "server_models.json",
        json.dumps(
            {
                "Stout-GGUF": {"checkpoint": "me/Stout:Q8_0", "recipe": "brew"},
                "Mine-GGUF": {"checkpoint": "me/Mine:Q8_0", "recipe": "brew"},
            }
        ),
    )
    models = folder.load(overlay.path).builtin_models()
    assert models["Stout-GGUF"].checkpoints == {"main": "me/Stout:Q8_0"}
    assert models["Stout-GGUF"].labels == ("chat",)
    assert not models["Stout-GGUF"].suggested
    assert models["Mine-GGUF"].origin == "builtin"
    assert "Ale-GGUF" in models


def test_the_highest_file_of_families_counts(folder, overlay):
    folder.write("families.json", '{"schema_version": 1, "models": {"A": {"args": "-a"}}}')
    overlay.write("families.json", '{"schema_version": 1, "models": {"B": {"args": "-b"}}}')
    registry = folder.load(overlay.path).families("families.json")
    assert registry.match("A", "x").model_args == ""
    assert registry.match("B", "x").model_args == "-b"


def test_other_files_are_not_read(folder):
    folder.write("backends/README.md", "text")
    folder.write("backends/brew-cpu.overlay/server.py", "pass")
    folder.write("backends/notes.toml.bak", "nonsense")
    folder.load()


def test_shipped_model_files(folder, overlay):
    folder.write("models/tiny.gguf", "GGUF")
    catalog = folder.load(overlay.path)
    assert catalog.shipped_model_file("tiny.gguf") == folder.path / "models" / "tiny.gguf"


@pytest.mark.parametrize("name", ["none.gguf", "../server_models.json", "", "/etc/passwd"])
def test_shipped_model_files_are_file_names(folder, name):
    with pytest.raises(Exception, match="No model file"):
        folder.load().shipped_model_file(name)


def test_the_checkout_is_the_shipped_catalog():
    catalog = Catalog.load([shipped()])
    assert catalog.builtin_models()
