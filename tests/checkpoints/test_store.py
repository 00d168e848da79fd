"""What counts as complete, from whichever tool it came; without asking anybody."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lemonade.catalog import ModelSpec
from lemonade.checkpoints import ModelStore
from lemonade.planning.checkpoint import CheckpointPlan, RepoFile
from tests.checkpoints.hub_fixture import gguf

COMMIT = "c" * 40
OLDER = "d" * 40
Put = Callable[..., Path]


def model(checkpoint: str, name: str = "m", **more: Any) -> ModelSpec:
    recipe = more.pop("recipe", "gguf")
    return ModelSpec(name=name, origin="user", recipe=recipe, checkpoint=checkpoint, **more)


@pytest.fixture
def put(store: ModelStore) -> Put:
    """Puts a file into a snapshot: as a link to a blob, or for real."""

    def put(
        path: str,
        content: bytes = b"",
        *,
        repo: str = "o/r",
        commit: str = COMMIT,
        real: bool = False,
        active: bool = True,
        source: str = "models",
    ) -> Path:
        root = store.hub_cache / f"{source}--{repo.replace('/', '--')}"
        target = root / "snapshots" / commit / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if real:
            target.write_bytes(content)
        else:
            blob = root / "blobs" / f"{abs(hash((path, content, commit))):x}"
            blob.parent.mkdir(exist_ok=True)
            blob.write_bytes(content)
            target.symlink_to(os.path.relpath(blob, target.parent))
        if active:
            (root / "refs").mkdir(exist_ok=True)
            (root / "refs" / "main").write_text(commit)
        return target

    return put


@pytest.mark.parametrize("real", [False, True])
def test_links_and_real_files_count(store: ModelStore, put: Put, real: bool) -> None:
    path = put("m-Q4_K_M.gguf", gguf(100), real=real)
    for variant in ("Q4_K_M", "q4_k_m", "m-Q4_K_M.gguf", "m-Q4_K_M", "*", ""):
        assert store.files(model(f"o/r:{variant}")) == {"main": (path,)}, variant
    assert store.files(model("o/r:Q8_0")) is None
    assert "Q8_0" in store.missing(model("o/r:Q8_0"))


def test_without_an_active_commit_nothing_counts(store: ModelStore, put: Put) -> None:
    put("m-Q4_K_M.gguf", gguf(100), active=False)
    assert store.files(model("o/r:Q4_K_M")) is None


@pytest.mark.parametrize("ref", ["", "elsewhere", "../../etc", "\xff"])
def test_a_reference_to_nothing(store: ModelStore, put: Put, ref: str) -> None:
    path = put("m-Q4_K_M.gguf", gguf(100))
    (path.parents[2] / "refs" / "main").write_text(ref)
    assert store.files(model("o/r:Q4_K_M")) is None


def test_an_older_snapshot_serves_what_the_active_one_lacks(store: ModelStore, put: Put) -> None:
    old = put("m-Q4_K_M.gguf", gguf(100), commit=OLDER)
    new = put("m-Q8_0.gguf", gguf(100), commit=COMMIT)
    assert store.files(model("o/r:Q4_K_M")) == {"main": (old,)}
    assert store.files(model("o/r:Q8_0")) == {"main": (new,)}


@pytest.mark.parametrize("leftover", [".download_manifest.json", "m-Q4_K_M.gguf.partial"])
def test_a_snapshot_said_to_be_unfinished(store: ModelStore, put: Put, leftover: str) -> None:
    path = put("m-Q4_K_M.gguf", gguf(100), real=True)
    path.with_name(leftover).write_bytes(b"{}")
    assert store.files(model("o/r:Q4_K_M")) is None
    path.with_name(leftover).unlink()
    assert store.files(model("o/r:Q4_K_M")) is not None


def test_a_link_that_leads_nowhere(store: ModelStore, put: Put) -> None:
    path = put("m-Q4_K_M.gguf", gguf(100))
    path.resolve().unlink()
    assert store.files(model("o/r:Q4_K_M")) is None


def test_half_a_content_is_not_a_file(store: ModelStore, put: Put) -> None:
    path = put("config.json", b"{}")
    (path.parents[2] / "blobs" / "abc.incomplete").write_bytes(gguf(100))
    assert store.files(model("o/r:Q4_K_M")) is None


def test_every_part_must_be_there(store: ModelStore, put: Put) -> None:
    parts = [put(f"m-Q4_K_M-{i}-of-12.gguf", gguf(50, i)) for i in range(1, 13)]
    files = store.files(model("o/r:Q4_K_M"))
    assert files is not None
    assert files["main"][0] == parts[0]
    assert set(files["main"]) == set(parts)
    assert store.size_on_disk(model("o/r:Q4_K_M")) == 12 * 50
    parts[9].unlink()
    assert store.files(model("o/r:Q4_K_M")) is None
    assert "part 10 of 12" in store.missing(model("o/r:Q4_K_M"))
    assert store.size_on_disk(model("o/r:Q4_K_M")) == 0


def test_a_model_in_a_folder(store: ModelStore, put: Put) -> None:
    first = put("UD-Q4_K_XL/m-00001-of-00002.gguf", gguf(50))
    second = put("UD-Q4_K_XL/m-00002-of-00002.gguf", gguf(50))
    assert store.files(model("o/r:UD-Q4_K_XL")) == {"main": (first, second)}
    assert store.files(model("o/r:ud-q4_k_xl")) == {"main": (first, second)}


def test_every_role_must_be_there_but_lazy_ones(store: ModelStore, put: Put) -> None:
    main = put("m-Q4_K_M.gguf", gguf(100))
    spec = model("o/r:Q4_K_M", mmproj="mmproj-F16.gguf")
    assert store.files(spec) is None
    mmproj = put("mmproj-F16.gguf", gguf(60))
    assert store.files(spec) == {"main": (main,), "mmproj": (mmproj,)}
    lazy = model("o/r:Q4_K_M", checkpoints={"npu_cache": "o/elsewhere:x.rai"})
    assert store.files(lazy) == {"main": (main,)}


def test_a_projector_never_is_the_model(store: ModelStore, put: Put) -> None:
    projector = put("a-mmproj.gguf", gguf(60))
    main = put("z.gguf", gguf(100))
    files = store.files(model("o/r:*"))
    assert files is not None
    assert files["main"] == (main, projector)


def test_a_file_that_is_no_gguf(store: ModelStore, put: Put) -> None:
    path = put("m-Q4_K_M.gguf", b"GG")
    assert store.files(model("o/r:Q4_K_M")) is None
    assert "does not start like a GGUF" in store.missing(model("o/r:Q4_K_M"))
    path.resolve().write_bytes(gguf(100))
    assert store.files(model("o/r:Q4_K_M")) is not None


def test_what_we_fetched_is_remembered_exactly(store: ModelStore, put: Put) -> None:
    """Two files of a folder that do not say they belong together."""
    put("Q4/a.gguf", gguf(50))
    second = put("Q4/b.gguf", gguf(60))
    chosen = (RepoFile("Q4/a.gguf", 50), RepoFile("Q4/b.gguf", 60))
    plan = CheckpointPlan(
        "o/r", COMMIT, "main", "Q4", chosen, ("Q4/a.gguf", "Q4/b.gguf"), "Q4/a.gguf"
    )
    store.remember([plan], "huggingface")
    assert store.files(model("o/r:Q4")) is not None
    second.unlink()
    assert store.files(model("o/r:Q4")) is None
    assert "Q4/b.gguf" in store.missing(model("o/r:Q4"))


def test_a_document_of_ours_that_is_nonsense_does_no_harm(
    store: ModelStore, put: Put, tmp_path: Path
) -> None:
    put("m-Q4_K_M.gguf", gguf(100))
    (tmp_path / "state").mkdir()
    rows = {
        "models--o--r": {
            "Q4_K_M": {"revision": "../..", "files": {"/etc/passwd": 1}},
            "x": {"revision": COMMIT, "files": {"../../x": 1}},
            "y": 5,
        },
        "models--o--s": [],
    }
    (tmp_path / "state" / "checkpoints.json").write_text(json.dumps({"repositories": rows}))
    assert store.files(model("o/r:Q4_K_M")) is not None
    assert store.files(model("o/r:x")) is None


# ---- whole repositories


def test_a_whole_repository_without_our_notes(store: ModelStore, put: Put) -> None:
    spec = model("o/r", recipe="whole")
    config = put("config.json", b"{}")
    assert "No weights" in store.missing(spec)
    put("model.safetensors", b"w")
    assert store.files(spec) == {"main": (config.parent,)}
    partial = config.parents[2] / "blobs" / "abc.incomplete"
    partial.write_bytes(b"")
    assert store.files(spec) is None
    partial.unlink()
    config.unlink()
    assert "No configuration" in store.missing(spec)


def test_an_index_names_what_must_be_there(store: ModelStore, put: Put) -> None:
    spec = model("o/r", recipe="whole")
    put("config.json", b"{}")
    weights = {"a": "model-1.safetensors", "b": "model-2.safetensors"}
    put("model.safetensors.index.json", json.dumps({"weight_map": weights}).encode())
    put("model-1.safetensors", b"w")
    assert "model-2.safetensors" in store.missing(spec)
    put("model-2.safetensors", b"w")
    assert store.missing(spec) == ""
    assert store.size_on_disk(spec) > 4


def test_a_folder_of_a_repository_is_given_like_a_whole_one(store: ModelStore, put: Put) -> None:
    path = put("cpu/int4/model.onnx", b"w")
    put("cpu/int4/genai_config.json", b"{}")
    put("gpu/model.onnx", b"w")
    assert store.files(model("o/r:cpu/int4", recipe="whole")) == {"main": (path.parent,)}


def test_a_file_of_a_repository_that_is_not_gguf(store: ModelStore, put: Put) -> None:
    path = put("split/vae.safetensors", b"w")
    assert store.files(model("o/r:split/vae.safetensors", recipe="whole")) == {"main": (path,)}
    # A recipe this version does not have: files are found all the same.
    assert store.files(model("o/r:split/vae.safetensors", recipe="nobody")) == {"main": (path,)}


def test_another_registry_has_its_own_folder(store: ModelStore, put: Put) -> None:
    path = put("m-Q4_K_M.gguf", gguf(100), real=True, source="modelscope--models")
    assert store.files(model("o/r:Q4_K_M")) is None
    assert store.files(model("o/r:Q4_K_M", source="modelscope")) == {"main": (path,)}


# ---- files that are no hub's


def test_a_model_that_is_part_of_the_package(store: ModelStore, tmp_path: Path) -> None:
    spec = model("tiny.gguf", source="shipped")
    assert store.files(spec) is None
    (tmp_path / "shipped").mkdir()
    (tmp_path / "shipped" / "tiny.gguf").write_bytes(gguf(80))
    assert store.files(spec) == {"main": (tmp_path / "shipped" / "tiny.gguf",)}
    whole = model("tiny-hf", source="shipped", recipe="whole")
    (tmp_path / "shipped" / "tiny-hf").mkdir()
    assert store.files(whole) == {"main": (tmp_path / "shipped" / "tiny-hf",)}


def test_a_model_at_a_path(store: ModelStore, tmp_path: Path) -> None:
    path = tmp_path / "some where" / "m.gguf"
    spec = model(str(path), source="local_path")
    assert "is not there" in store.missing(spec)
    path.parent.mkdir()
    path.write_bytes(gguf(80))
    assert store.files(spec) == {"main": (path,)}
    # A colon in a path is no variant.
    odd = tmp_path / "a:b.gguf"
    odd.write_bytes(gguf(80))
    assert store.files(model(str(odd), source="local_path")) == {"main": (odd,)}


def test_parts_at_a_path(store: ModelStore, tmp_path: Path) -> None:
    first, second = (tmp_path / f"m-0000{i}-of-00002.gguf" for i in (1, 2))
    first.write_bytes(gguf(80))
    spec = model(str(first), source="local_path")
    assert "part 2 of 2" in store.missing(spec)
    second.write_bytes(gguf(80))
    assert store.files(spec) == {"main": (first, second)}


def test_a_folder_at_a_path(store: ModelStore, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    assert store.files(model(str(folder), source="extra_models_dir")) is None
    (folder / "b.gguf").write_bytes(gguf(80))
    (folder / "a-mmproj.gguf").write_bytes(gguf(80))
    assert store.files(model(str(folder), source="extra_models_dir")) == {
        "main": (folder / "b.gguf",)
    }
    whole = model(str(folder), source="local_path", recipe="whole")
    assert store.files(whole) == {"main": (folder,)}


def test_a_model_somebody_put_into_the_cache(store: ModelStore) -> None:
    path = store.hub_cache / "models--mine" / "m.gguf"
    path.parent.mkdir(parents=True)
    path.write_bytes(gguf(80))
    assert store.files(model("models--mine", source="local_upload")) == {"main": (path,)}
    assert store.files(model("models--mine:m.gguf", source="local_upload")) == {"main": (path,)}


def test_a_collection_has_no_files_of_its_own(store: ModelStore) -> None:
    spec = ModelSpec(
        name="team", origin="user", recipe="team", checkpoints={}, components=("a", "b")
    )
    assert store.files(spec) == {}


def test_the_context_a_model_was_made_for(store: ModelStore, put: Put) -> None:
    path = put("m-Q4_K_M.gguf", gguf(300, context=4096))
    spec = model("o/r:Q4_K_M")
    assert store.context_length(spec) == 4096
    path.resolve().write_bytes(gguf(300))
    assert store.context_length(spec) is None
    assert store.context_length(model("o/r:Q8_0")) is None


def test_a_header_full_of_lies(store: ModelStore, put: Put) -> None:
    path = put("m-Q4_K_M.gguf", gguf(300, context=4096))
    honest = path.resolve().read_bytes()
    for at in range(4, 100):
        path.resolve().write_bytes(honest[:at] + b"\xff" * 8 + honest[at + 8 :])
        store.context_length(model("o/r:Q4_K_M"))  # says something or nothing, but says it soon


def test_the_shipped_models_say_theirs(store: ModelStore, tmp_path: Path) -> None:
    models = Path(__file__).resolve().parents[2] / "models"
    (tmp_path / "shipped").symlink_to(models)
    whole = [path for path in models.glob("*.gguf") if "lora" not in path.name]
    assert len(whole) >= 4
    for path in whole:
        length = store.context_length(model(path.name, source="shipped"))
        assert length is not None
        assert length >= 256


def test_a_path_that_cannot_be_is_incomplete_and_no_more(
    store: ModelStore, tmp_path: Path
) -> None:
    spec = model(str(tmp_path / (300 * "x")), source="local_path")
    assert store.files(spec) is None
    assert "cannot be looked at" in store.missing(spec)
    assert store.size_on_disk(spec) == 0


def test_a_file_of_the_same_size_and_time_is_another_file(
    store: ModelStore, tmp_path: Path
) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(gguf(100))
    spec = model(str(path), source="local_path")
    assert store.files(spec) is not None
    stat = path.stat()
    other = tmp_path / "other"
    other.write_bytes(b"x" * 100)
    os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    other.replace(path)
    assert store.files(spec) is None
