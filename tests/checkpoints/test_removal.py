"""Removal takes what a model alone uses, and nothing else; whatever shares what with whom."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lemonade.catalog import ModelSpec, RecipeSpec
from lemonade.checkpoints import ModelStore
from lemonade.core.errors import CheckpointError, NotDeletable
from lemonade.storage import FileLock
from tests.checkpoints.conftest import Bench, until
from tests.checkpoints.hub_fixture import gguf, set_faults, write_repository

COMMITS = ("c" * 40, "d" * 40)


def model(checkpoint: str, name: str = "m", **more: Any) -> ModelSpec:
    recipe = more.pop("recipe", "gguf")
    return ModelSpec(name=name, origin="user", recipe=recipe, checkpoint=checkpoint, **more)


def put(
    cache: Path, path: str, content: bytes, repo: str = "o/r", commit: str = COMMITS[0]
) -> Path:
    """A file in a snapshot, as huggingface-hub would put it there."""
    root = cache / f"models--{repo.replace('/', '--')}"
    blob = root / "blobs" / hashlib.sha256(content).hexdigest()
    pointer = root / "snapshots" / commit / path
    for directory in (blob.parent, pointer.parent, root / "refs"):
        directory.mkdir(parents=True, exist_ok=True)
    blob.write_bytes(content)
    if not pointer.is_symlink():
        pointer.symlink_to(os.path.relpath(blob, pointer.parent))
    (root / "refs" / "main").write_text(commit)
    return pointer


async def test_the_only_model_of_a_repository_takes_it_all(store: ModelStore) -> None:
    pointer = put(store.hub_cache, "m-Q4_K_M.gguf", gguf(100))
    put(store.hub_cache, "README.md", b"#")
    root = pointer.parents[2]
    (root / "blobs" / "abc.12345678.incomplete").write_bytes(b"half")
    (store.hub_cache / ".locks" / root.name).mkdir(parents=True)
    other = put(store.hub_cache, "m-Q4_K_M.gguf", gguf(100), repo="o/other")
    await store.delete(model("o/r:Q4_K_M"), [model("o/other:Q4_K_M", "n")])
    assert not root.exists()
    assert list((store.hub_cache / ".locks").iterdir()) == []
    assert other.exists()


async def test_of_a_shared_repository_only_the_own_files_go(store: ModelStore) -> None:
    cache = store.hub_cache
    mine = put(cache, "m-Q4_K_M.gguf", gguf(100, 1))
    older = put(cache, "m-Q4_K_M.gguf", gguf(100, 2), commit=COMMITS[1])
    blobs = [mine.resolve(), older.resolve()]
    theirs = put(cache, "m-Q8_0.gguf", gguf(100, 3))
    config = put(cache, "config.json", b"{}")
    await store.delete(model("o/r:Q4_K_M"), [model("o/r:Q8_0", "n")])
    assert not any(path.exists() for path in (mine, older, *blobs))
    assert not older.parent.exists()
    assert theirs.exists()
    assert config.exists()
    assert store.files(model("o/r:Q8_0")) is not None


async def test_a_content_two_names_share_stays_for_the_other(store: ModelStore) -> None:
    same = gguf(100)
    mine = put(store.hub_cache, "a-Q4_K_M.gguf", same)
    theirs = put(store.hub_cache, "b-Q8_0.gguf", same)
    await store.delete(model("o/r:Q4_K_M"), [model("o/r:Q8_0", "n")])
    assert not mine.is_symlink()
    assert theirs.read_bytes() == same


async def test_nothing_goes_that_another_name_uses_too(store: ModelStore) -> None:
    pointer = put(store.hub_cache, "m-Q4_K_M.gguf", gguf(100))
    await store.delete(model("o/r:Q4_K_M"), [model("o/r:m-Q4_K_M.gguf", "n")])
    assert pointer.exists()


async def test_what_only_came_along_goes_with_the_last(store: ModelStore) -> None:
    """Another registered model names the repository, but has nothing here."""
    pointer = put(store.hub_cache, "m-Q4_K_M.gguf", gguf(100))
    put(store.hub_cache, "config.json", b"{}")
    await store.delete(model("o/r:Q4_K_M"), [model("o/r:Q8_0", "n")])
    assert not pointer.parents[2].exists()


async def test_a_shared_projector_stays(store: ModelStore) -> None:
    main = put(store.hub_cache, "m-Q4_K_M.gguf", gguf(100))
    mmproj = put(store.hub_cache, "mmproj.gguf", gguf(50), repo="o/eyes")
    spec = model("o/r:Q4_K_M", checkpoints={"mmproj": "o/eyes:mmproj.gguf"})
    other = model("o/s:Q8_0", "n", checkpoints={"mmproj": "o/eyes:mmproj.gguf"})
    await store.delete(spec, [other])
    assert not main.is_symlink()
    assert mmproj.exists()
    await store.delete(other, [])
    assert not mmproj.is_symlink()


async def test_a_whole_repository_in_use_keeps_all(store: ModelStore) -> None:
    cache = store.hub_cache
    mine = put(cache, "m-Q4_K_M.gguf", gguf(100))
    put(cache, "config.json", b"{}")
    whole = model("o/r", "n", recipe="whole")
    await store.delete(model("o/r:Q4_K_M"), [whole])
    assert mine.exists()
    await store.delete(whole, [model("o/r:Q4_K_M")])
    assert mine.exists()
    await store.delete(whole, [])
    assert not mine.parents[2].exists()


async def test_half_a_model_goes_as_well(store: ModelStore) -> None:
    part = put(store.hub_cache, "m-Q4_K_M-00001-of-00002.gguf", gguf(100))
    theirs = put(store.hub_cache, "m-Q8_0.gguf", gguf(100, 2))
    await store.delete(model("o/r:Q4_K_M"), [model("o/r:Q8_0", "n")])
    assert not part.is_symlink()
    assert theirs.exists()


async def test_a_model_that_was_never_fetched(store: ModelStore) -> None:
    await store.delete(model("o/nothing:Q4_K_M"), [])
    partial = store.hub_cache / "models--o--r" / "blobs" / "abc.incomplete"
    partial.parent.mkdir(parents=True)
    partial.write_bytes(b"half")
    await store.delete(model("o/r:Q4_K_M"), [])
    assert not partial.parent.parent.exists()


async def test_files_that_are_not_ours(store: ModelStore, tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(gguf(80))
    with pytest.raises(NotDeletable, match="part of Lemonade"):
        await store.delete(model("tiny.gguf", source="shipped"), [])
    with pytest.raises(NotDeletable) as caught:
        await store.delete(model(str(path), source="extra_models_dir"), [])
    assert str(path) in str(caught.value)
    await store.delete(model(str(path), source="local_path"), [])
    assert path.exists()


async def test_what_another_process_is_fetching_stays(store: ModelStore) -> None:
    pointer = put(store.hub_cache, "m-Q4_K_M.gguf", gguf(100))
    root = pointer.parents[2]
    partial = root / "blobs" / "abc.incomplete"
    partial.write_bytes(b"half")
    lock = FileLock(store.hub_cache / ".locks" / root.name / "abc.lock")
    with lock:
        with pytest.raises(NotDeletable, match="downloading"):
            await store.delete(model("o/r:Q4_K_M"), [])
        assert pointer.exists()
        assert partial.exists()
    await store.delete(model("o/r:Q4_K_M"), [])
    assert not root.exists()


async def test_a_content_shared_between_repositories(store: ModelStore) -> None:
    """huggingface-hub's store of contents that several repositories link to."""
    cache = store.hub_cache
    shared = cache / "blobs" / "ab" / ("ab" + "0" * 62)
    pointers = []
    for repo in ("o/r", "o/s"):
        pointer = put(cache, "m-Q4_K_M.gguf", gguf(100), repo=repo)
        blob = pointer.resolve()
        shared.parent.mkdir(parents=True, exist_ok=True)
        blob.replace(shared)
        blob.symlink_to(os.path.relpath(shared, blob.parent))
        with shared.with_name(f"{shared.name}.refs").open("a") as refs:
            refs.write(f"{blob.relative_to(cache).as_posix()}\n")
        pointers.append(pointer)
    (cache / "blobs" / ".huggingface-shared-blobs").write_text("1\n")
    put(cache, "m-Q8_0.gguf", gguf(100, 2))
    assert store.files(model("o/r:Q4_K_M")) is not None
    await store.delete(model("o/r:Q4_K_M"), [model("o/r:Q8_0", "a"), model("o/s:Q4_K_M", "b")])
    assert not pointers[0].is_symlink()
    assert pointers[1].read_bytes() == gguf(100)
    await store.delete(model("o/s:Q4_K_M"), [])
    assert not shared.exists()


async def test_a_file_that_cannot_be_removed(store: ModelStore) -> None:
    # A reference that points to itself cannot even be read by root.
    pointer = put(store.hub_cache, "m-Q4_K_M.gguf", gguf(100))
    put(store.hub_cache, "m-Q8_0.gguf", gguf(100, 2))
    (pointer.parents[2] / "refs" / "odd").mkdir()
    ref = pointer.parents[2] / "refs" / "odd" / "loop"
    ref.symlink_to("loop")
    with pytest.raises(CheckpointError, match="cannot be removed"):
        await store.delete(model("o/r:Q4_K_M"), [model("o/r:Q8_0", "n")])
    assert store.files(model("o/r:Q8_0")) is not None


async def test_deleting_ends_the_models_own_download(bench: Bench, hub_url: str, hub_root: Path):
    write_repository(hub_root, "o/r", {"m-Q4_K_M.gguf": gguf(100_000)})
    set_faults(hub_url, {"path": "*", "kind": "stall", "after": 1000})
    spec = bench.model("o/r:Q4_K_M")
    bench.downloads.detach(spec, bench.recipes["gguf"])
    root = bench.hub.cache_dir / "models--o--r"
    await until(lambda: any(root.rglob("*.incomplete")))
    await bench.downloads.delete(spec, [])
    assert not root.exists()
    assert bench.downloads.jobs.snapshots() == ()


# ---- any set of models, any of them deleted

VARIANTS = ("Q4_K_M", "Q8_0", "m-Q8_0.gguf", "BF16", "*", "", "mmproj-F16.gguf", "Q2_K")
FILES = {
    "m-Q4_K_M.gguf": gguf(60, 1),
    "m-Q8_0.gguf": gguf(60, 2),
    "BF16/m-BF16-00001-of-00002.gguf": gguf(60, 3),
    "BF16/m-BF16-00002-of-00002.gguf": gguf(60, 4),
    "copy-of-Q8.gguf": gguf(60, 2),
    "mmproj-F16.gguf": gguf(60, 5),
    "config.json": b"{}",
    "README.md": b"#",
}

checkpoints = st.tuples(st.sampled_from(["o/r", "o/s"]), st.sampled_from(VARIANTS))


@st.composite
def some_models(draw: st.DrawFn) -> list[ModelSpec]:
    count = draw(st.integers(1, 4))
    found = []
    for index in range(count):
        repo, variant = draw(checkpoints)
        eyes = draw(st.sampled_from([None, "o/r:mmproj-F16.gguf", "o/s:mmproj-F16.gguf"]))
        whole = draw(st.booleans()) and variant not in ("Q4_K_M", "Q8_0", "Q2_K")
        found.append(
            model(
                f"{repo}:{variant}" if variant else repo,
                f"m{index}",
                recipe="whole" if whole else "gguf",
                checkpoints={"mmproj": eyes} if eyes else {},
            )
        )
    return found


@given(
    models=some_models(),
    commits=st.lists(st.sampled_from(COMMITS), min_size=1, max_size=2, unique=True),
    absent=st.sets(st.sampled_from(sorted(FILES)), max_size=3),
    order=st.randoms(use_true_random=False),
)
@settings(max_examples=120)
async def test_what_others_use_is_never_touched(
    models: list[ModelSpec],
    commits: list[str],
    absent: set[str],
    order: Any,
    recipes: dict[str, RecipeSpec],
) -> None:
    directory = Path(tempfile.mkdtemp())
    try:
        store = ModelStore(
            directory / "hub", shipped=Path, recipes=recipes, state=directory / "state"
        )
        for repo in ("o/r", "o/s"):
            for commit in commits:
                for path, content in FILES.items():
                    if path not in absent:
                        put(store.hub_cache, path, content, repo=repo, commit=commit)
        order.shuffle(models)
        while models:
            gone = models.pop()
            used = {spec.name: store.files(spec) for spec in models}
            bytes_used = {
                path: _content(path)
                for files in used.values()
                for role in (files or {}).values()
                for path in role
            }
            await store.delete(gone, models)
            for path, content in bytes_used.items():
                assert _content(path) == content
            for spec in models:
                assert store.files(spec) == used[spec.name]
        for repo in ("o--r", "o--s"):
            root = store.hub_cache / f"models--{repo}"
            # What is left has no content nobody links to, and no link without a content.
            links = {p.resolve() for p in root.rglob("snapshots/**/*") if p.is_symlink()}
            blobs = {p.resolve() for p in root.glob("blobs/*")}
            assert links == blobs
    finally:
        shutil.rmtree(directory)


def _content(path: Path) -> dict[str, bytes]:
    if path.is_dir():
        return {p.name: p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}
    return {path.name: path.read_bytes()}
