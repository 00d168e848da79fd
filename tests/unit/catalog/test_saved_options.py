"""Load options that are kept per model."""

from __future__ import annotations

import json

import pytest

from lemonade.catalog import SavedOptions, is_unset

UNSET = [
    ("brew_args", None, True),
    ("brew_args", "", True),
    ("brew_backend", "auto", True),
    ("evict_idle_timeout", -1, True),
    ("ctx_size", -1, False),
    ("ctx_size", None, True),
    ("ctx_size", 0, False),
    ("merge_args", False, False),
    ("merge_args", True, False),
    ("brew_args", "-x", False),
    ("names", [], False),
    ("table", {}, False),
]


@pytest.mark.parametrize(("key", "value", "unset"), UNSET)
def test_is_unset(key, value, unset):
    assert is_unset(key, value) is unset


@pytest.fixture
def file(tmp_path):
    return tmp_path / "recipe_options.json"


def test_putting_replaces_all_but_what_is_null(file):
    saved = SavedOptions(file)
    assert saved.get("user.X") == {}
    saved.put("user.X", {"ctx_size": 1024, "brew_args": "-x", "merge_args": False})
    saved.put("user.X", {"ctx_size": None, "brew_device": "gpu0", "brew_backend": None})
    assert saved.get("user.X") == {"ctx_size": 1024, "brew_device": "gpu0"}
    assert SavedOptions(file).get("user.X") == saved.get("user.X")


def test_merging_erases_what_is_unset(file):
    saved = SavedOptions(file)
    saved.merge("user.X", {"ctx_size": -1, "brew_args": "-x"})
    saved.merge("user.X", {"brew_args": "", "merge_args": False})
    assert saved.get("user.X") == {"ctx_size": -1, "merge_args": False}
    saved.merge("user.X", {"ctx_size": None, "merge_args": None})
    assert json.loads(file.read_text()) == {}


def test_erasing(file):
    saved = SavedOptions(file)
    saved.put("user.X", {"ctx_size": 1})
    saved.put("user.Y", {"ctx_size": 2})
    saved.erase("user.X")
    saved.erase("user.Z")
    assert json.loads(file.read_text()) == {"user.Y": {"ctx_size": 2}}


def test_nothing_is_written_for_nothing(file):
    SavedOptions(file).erase("user.X")
    assert not file.exists()


def test_bare_names_of_builtin_models_are_renamed_once(file):
    file.write_text('{"Stout": {"ctx_size": 1}, "user.Stout": {"ctx_size": 2}}')
    saved = SavedOptions(file, ["Stout", "Ale"])
    assert saved.get("builtin.Stout") == {"ctx_size": 1}
    assert json.loads(file.read_text()).keys() == {"builtin.Stout", "user.Stout"}


def test_what_is_no_object_does_no_harm(file, caplog):
    file.write_text('{"user.X": 5, "user.Y": {"ctx_size": 1}}')
    assert SavedOptions(file).get("user.X") == {}
    assert "user.X" in caplog.text


def test_what_another_process_saved_is_not_lost(file):
    one, two = SavedOptions(file), SavedOptions(file)
    one.put("user.X", {"ctx_size": 1})
    two.put("user.Y", {"ctx_size": 2})
    assert json.loads(file.read_text()).keys() == {"user.X", "user.Y"}
