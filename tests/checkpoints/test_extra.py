"""The operator's own folder: what lies there becomes models, whatever else lies there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lemonade.catalog import clean_name
from lemonade.checkpoints import ModelStore
from tests.checkpoints.hub_fixture import gguf
from tests.gateway.adapting import gguf_adapter


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "extra"
    path.mkdir()
    return path


def lay(folder: Path, *paths: str) -> None:
    for index, path in enumerate(paths):
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(gguf(1000, index))


def names(store: ModelStore, folder: Path) -> dict[str, str]:
    return {
        spec.name: Path(spec.checkpoints["main"]).relative_to(folder).as_posix()
        for spec in store.scan_extra(folder)
    }


def test_adapters_are_left_out(store: ModelStore, folder: Path) -> None:
    lay(folder, "a.gguf", "sub/b-Q4_0.gguf", "sub/b-Q8_0.gguf")
    gguf_adapter(folder / "style.gguf")
    gguf_adapter(folder / "sub" / "style.gguf")
    assert names(store, folder) == {
        "a": "a.gguf",
        "b-Q4_0": "sub/b-Q4_0.gguf",
        "b-Q8_0": "sub/b-Q8_0.gguf",
    }


def test_nothing_is_nothing(store: ModelStore, folder: Path) -> None:
    assert store.scan_extra(folder) == ()
    assert store.scan_extra(folder / "missing") == ()
    lay(folder, "a-file.gguf")
    assert store.scan_extra(folder / "a-file.gguf") == ()


def test_a_file_at_the_top_is_a_model(store: ModelStore, folder: Path) -> None:
    lay(folder, "Some Model-Q4_0.GGUF", "mmproj.gguf", "notes.txt")
    (spec,) = store.scan_extra(folder)
    assert spec.canonical_name == "extra.Some Model-Q4_0"
    assert spec.recipe == "gguf"
    assert spec.labels == ("custom", "chat")
    assert spec.source == "extra_models_dir"
    assert spec.suggested
    assert spec.size_gb == pytest.approx(1e-6)
    assert store.files(spec) == {"main": (folder / "Some Model-Q4_0.GGUF",)}


def test_parts_at_the_top_are_one_model(store: ModelStore, folder: Path) -> None:
    lay(folder, "m-00001-of-00002.gguf", "m-00002-of-00002.gguf", "n.gguf")
    assert names(store, folder) == {"m": "m-00001-of-00002.gguf", "n": "n.gguf"}


def test_a_folder_is_a_model_and_sees_with_its_projector(store: ModelStore, folder: Path) -> None:
    lay(folder, "Gemma/b-model.gguf", "Gemma/mmproj-F32.gguf", "Gemma/mmproj-F16.gguf")
    (spec,) = store.scan_extra(folder)
    assert spec.name == "Gemma"
    assert spec.labels == ("custom", "chat", "vision")
    assert store.files(spec) == {
        "main": (folder / "Gemma/b-model.gguf",),
        "mmproj": (folder / "Gemma/mmproj-F16.gguf",),
    }


def test_a_folder_of_parts_is_one_model(store: ModelStore, folder: Path) -> None:
    lay(folder, *[f"Big/b-Q8_0-0000{i}-of-00003.gguf" for i in (1, 2, 3)])
    (spec,) = store.scan_extra(folder)
    assert spec.name == "Big"
    files = store.files(spec)
    assert files is not None
    assert len(files["main"]) == 3
    (folder / "Big/b-Q8_0-00002-of-00003.gguf").unlink()
    assert store.files(store.scan_extra(folder)[0]) is None


def test_a_folder_of_variants_is_several_models(store: ModelStore, folder: Path) -> None:
    lay(folder, "Q/q-Q4_K_M.gguf", "Q/q-Q8_0-00001-of-00002.gguf", "Q/q-Q8_0-00002-of-00002.gguf")
    assert names(store, folder) == {
        "q-Q4_K_M": "Q/q-Q4_K_M.gguf",
        "q-Q8_0": "Q/q-Q8_0-00001-of-00002.gguf",
    }


def test_a_folder_that_is_not_plain_stays_one(store: ModelStore, folder: Path) -> None:
    lay(folder, "Q/q-Q4_K_M.gguf", "Q/q-Q8_0.gguf", "Q/something.gguf")
    assert names(store, folder) == {"Q": "Q"}
    lay(folder, "R/one.gguf", "R/two.gguf")
    assert names(store, folder) == {"Q": "Q", "R": "R"}


def test_names_that_clash_are_told_apart(store: ModelStore, folder: Path) -> None:
    lay(folder, "m.gguf", "a/m/x.gguf", "b/m/x.gguf", "c/q-Q4_0.gguf", "c/q-Q8_0.gguf")
    lay(folder, "d/q-Q4_0.gguf", "d/q-Q8_0.gguf")
    assert names(store, folder) == {
        "m": "m.gguf",
        "m-2": "a/m",
        "m-3": "b/m",
        "q-Q4_0": "c/q-Q4_0.gguf",
        "q-Q8_0": "c/q-Q8_0.gguf",
        "d-q-Q4_0": "d/q-Q4_0.gguf",
        "d-q-Q8_0": "d/q-Q8_0.gguf",
    }


def test_links_that_lead_in_circles_or_nowhere(store: ModelStore, folder: Path) -> None:
    lay(folder, "a/m.gguf")
    (folder / "a" / "up").symlink_to(folder)
    (folder / "a" / "self").symlink_to(folder / "a")
    (folder / "nowhere.gguf").symlink_to(folder / "missing")
    (folder / "folder.gguf").mkdir()
    found = names(store, folder)
    assert found["a"] == "a"
    assert "nowhere" not in found
    assert len(found) <= 3


def test_only_companions_are_no_model(store: ModelStore, folder: Path) -> None:
    lay(folder, "eyes/mmproj.gguf", "eyes/mtp-draft.gguf")
    assert store.scan_extra(folder) == ()


def test_a_link_back_to_the_top_adds_nothing(store: ModelStore, folder: Path) -> None:
    lay(folder, "a.gguf", "sub/b.gguf")
    (folder / "loop").symlink_to(folder)
    (folder / "sub" / "up").symlink_to(folder)
    (folder / "nowhere.gguf").symlink_to("nowhere.gguf")
    assert names(store, folder) == {"a": "a.gguf", "sub": "sub"}


def test_every_name_can_be_asked_for(store: ModelStore, folder: Path) -> None:
    lay(folder, "...gguf", ".gguf", "._a.gguf", "a.gguf")
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff.gguf")).write_bytes(gguf(100))
    found = store.scan_extra(folder)
    assert sorted(spec.name for spec in found) == [".gguf", "_", "__", "a"]
    assert [clean_name(spec.name) for spec in found] == [spec.name for spec in found]
    assert all(store.files(spec) is not None for spec in found)
