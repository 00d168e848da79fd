"""What is declared in backends/, recipes/ and the two JSON registries holds together."""

from __future__ import annotations

import json
import re
from collections import Counter

import pytest

from lemonade.catalog import Catalog, FamilyRegistry, shipped
from lemonade.catalog.labels import modes_in
from lemonade.planning.rules import RULES
from tests.house.tree import CHECKOUT

CATALOG = Catalog.load([shipped()])
MODELS = CATALOG.builtin_models()

BY_RECIPE = {
    "llamacpp": 94,
    "ryzenai-llm": 80,
    "sd-cpp": 12,
    "vllm": 11,
    "thenoise": 7,
    "whispercpp": 6,
    "collection.omni": 4,
    "moonshine": 3,
    "openmoss": 2,
    "onnxruntime": 2,
    "kokoro": 1,
    "thinksound": 1,
    "acestep": 1,
    "trellis": 1,
}
BY_LABEL = {
    "chat": 180,
    "vision": 46,
    "tool-calling": 48,
    "reasoning": 43,
    "hot": 20,
    "image": 19,
    "mtp": 13,
    "embeddings": 6,
    "reranking": 3,
    "transcription": 9,
}
ROLES = {"main", "mmproj", "draft", "text_encoder", "vae", "npu_cache"}


def test_the_checkout_is_what_is_shipped():
    assert shipped() == CHECKOUT


@pytest.mark.parametrize("backend", CATALOG.backends.values(), ids=lambda spec: spec.id)
def test_a_backend_is_called_after_its_file(backend):
    assert CATALOG.origin_file(backend.id).stem == backend.backend_id.file_stem


@pytest.mark.parametrize("recipe", CATALOG.recipes.values(), ids=lambda spec: spec.id)
def test_a_recipe_is_called_after_its_file(recipe):
    assert CATALOG.origin_file(recipe.id).stem == recipe.id


@pytest.mark.parametrize("recipe", CATALOG.recipes.values(), ids=lambda spec: spec.id)
def test_a_recipe_can_be_run_by_something(recipe):
    assert CATALOG.backends_of(recipe.id)


@pytest.mark.parametrize("backend", CATALOG.backends.values(), ids=lambda spec: spec.id)
def test_what_is_fetched_is_pinned(backend):
    if backend.pin.source == "github":
        assert backend.pin.version
        assert {row.os for row in backend.runs_on} == {asset.os for asset in backend.pin.assets}
    if backend.pin.source != "pypi":
        assert not backend.pin.packages
        assert backend.pin.executable
        return
    assert backend.pin.version
    if backend.pin.lock:
        assert backend.pin.lock == f"{backend.backend_id.file_stem}.lock"
        assert backend.pin.python, "it was resolved for some versions of Python"
        engine = [p for p in backend.pin.locked if p.version == backend.pin.version]
        assert engine, "the engine itself, in the version that the bundle is called after"
        return
    assert backend.pin.packages
    for package in backend.pin.packages:
        name, pinned, _ = package.partition("==")
        assert pinned, f"{package} is not pinned"
        files = [f for f in backend.pin.sha256 if f.lower().startswith(name.replace("-", "_"))]
        assert files, f"{package} has no digest"
    for file, digest in backend.pin.sha256.items():
        assert re.fullmatch(r"[0-9a-f]{64}", digest), file


def test_preferences_decide():
    for recipe in CATALOG.recipes:
        preferences = [spec.preference for spec in CATALOG.backends_of(recipe)]
        assert len(set(preferences)) == len(preferences)


def test_every_rule_is_there_and_every_rule_is_used():
    named = {rule for recipe in CATALOG.recipes.values() for rule in recipe.rules.launch}
    assert named == set(RULES)


def test_reserved_flags_are_in_their_shown_spelling():
    for recipe in CATALOG.recipes.values():
        shown = {spelling: group[0] for group in recipe.argv.synonyms for spelling in group}
        for flag in recipe.argv.reserved:
            assert shown.get(flag, flag) == flag


def test_no_spelling_means_two_flags():
    for recipe in CATALOG.recipes.values():
        counted = Counter(word for group in recipe.argv.synonyms for word in group)
        assert not [word for word, times in counted.items() if times > 1]


def test_every_option_is_explained():
    for recipe in CATALOG.recipes.values():
        for option in recipe.option:
            assert option.help.endswith(".")
            assert option.flag.startswith("--") or (not option.flag and not recipe.runs)


def test_settings_of_options_are_declared():
    for recipe in CATALOG.recipes.values():
        for option in recipe.option:
            assert not option.setting or option.setting in recipe.settings


def test_there_are_225_models():
    assert len(MODELS) == 225
    assert Counter(spec.recipe for spec in MODELS.values()) == BY_RECIPE
    assert sum(spec.suggested for spec in MODELS.values()) == 208
    assert sum(spec.source == "modelscope" for spec in MODELS.values()) == 10


def test_labels_are_counted():
    counted = Counter(label for spec in MODELS.values() for label in spec.labels)
    assert {label: counted[label] for label in BY_LABEL} == BY_LABEL


@pytest.mark.parametrize("spec", MODELS.values(), ids=lambda spec: spec.name)
def test_a_model_is_whole(spec):
    assert len(modes_in(spec.labels)) == 1
    assert spec.size_gb > 0
    assert set(spec.checkpoints) <= ROLES
    if spec.source == "shipped":
        return
    for role, checkpoint in spec.checkpoints.items():
        assert re.fullmatch(r"[\w.-]+/[\w.-]+(:[\w./-]+|:\*)?", checkpoint), checkpoint
        assert role == "main" or ":" in checkpoint


def test_a_gguf_model_names_its_variant():
    without = {
        name
        for name, spec in MODELS.items()
        if spec.recipe in CATALOG.recipes
        and CATALOG.recipe(spec.recipe).files == "gguf"
        and spec.source != "shipped"
        and ":" not in spec.checkpoints["main"]
    }
    # These repositories hold nothing but the one model, so all of them is the variant.
    assert without == {"bge-reranker-v2-m3-GGUF", "gpt-oss-20b-mxfp4-GGUF"}


def test_shipped_models_are_there_with_their_size():
    ours = [spec for spec in MODELS.values() if spec.source == "shipped"]
    assert len(ours) == 5
    assert {spec.type for spec in ours} == {"llm", "embedding", "reranking"}
    for spec in ours:
        path = CATALOG.shipped_model_file(spec.checkpoints["main"])
        files = [path] if path.is_file() else list(path.iterdir())
        assert abs(sum(file.stat().st_size for file in files) / 1e9 - spec.size_gb) < 1e-6
        if path.is_file():
            assert path.read_bytes()[:4] == b"GGUF"
        else:
            assert CATALOG.recipe(spec.recipe).files == "repository"
        assert spec.suggested


def test_options_of_models_are_options_of_their_recipe():
    for spec in MODELS.values():
        recipe = CATALOG.recipes.get(spec.recipe)
        if recipe is not None:
            assert spec.recipe_options.keys() <= {option.name for option in recipe.option}


def test_families_name_models_that_exist():
    registry = FamilyRegistry.read(CHECKOUT / "vllm_model_config.json")
    assert set(registry.families) == {"qwen3.", "glm4.7"}
    assert len(registry.models) == 11
    for name in registry.models:
        match = registry.match(name, MODELS[name].checkpoints["main"])
        assert match.family, name
    speculating = {n for n, m in registry.models.items() if m.speculative_config}
    assert len(speculating) == 4


def test_checkpoints_of_members_are_of_their_family():
    registry = FamilyRegistry.read(CHECKOUT / "vllm_model_config.json")
    for name, member in registry.models.items():
        by_checkpoint = registry.match("", MODELS[name].checkpoints["main"]).family
        assert by_checkpoint in ("", member.family)


@pytest.mark.parametrize("name", ["server_models.json", "vllm_model_config.json"])
def test_no_key_is_written_twice(name):
    def once(pairs):
        keys = [key for key, _ in pairs]
        assert len(set(keys)) == len(keys), [key for key in keys if keys.count(key) > 1]
        return dict(pairs)

    json.loads((CHECKOUT / name).read_text(), object_pairs_hook=once)
