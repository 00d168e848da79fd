"""What may be registered, and what becomes of it."""

from __future__ import annotations

import json

import pytest

from lemonade.core.errors import DefinitionDiffers, LemonadeError, MalformedRequest, UnknownRecipe

PLAIN = {"model_name": "user.X", "recipe": "brew", "checkpoint": "acme/X-GGUF:Q4_K_M"}
HUB = "huggingface"

STORED = [
    # what is sent besides, what is stored
    ({}, {"checkpoints": {"main": "acme/X-GGUF:Q4_K_M"}, "source": HUB, "suggested": True}),
    ({}, {"labels": ["chat", "custom"], "recipe": "brew"}),
    ({"checkpoint": "https://huggingface.co/acme/X-GGUF:Q4_K_M"}, {"source": HUB}),
    (
        {"checkpoint": "https://modelscope.cn/models/acme/X:Q8_0"},
        {"source": "modelscope", "checkpoints": {"main": "acme/X:Q8_0"}},
    ),
    ({"source": "ms"}, {"source": "modelscope"}),
    ({"source": "HF"}, {"source": HUB}),
    ({"registry_source": "modelscope"}, {"source": "modelscope"}),
    ({"source": None, "registry_source": ""}, {"source": HUB}),
    (
        {"mmproj": "mm.gguf"},
        {"checkpoints": {"main": "acme/X-GGUF:Q4_K_M", "mmproj": "acme/X-GGUF:mm.gguf"}},
    ),
    (
        {"checkpoints": {"main": "a/b:Q8_0", "mmproj": "c/d:mm.gguf"}, "mmproj": "no.gguf"},
        {"checkpoints": {"main": "a/b:Q8_0", "mmproj": "c/d:mm.gguf"}},
    ),
    ({"labels": ["vision", "hot"]}, {"labels": ["chat", "custom", "hot", "vision"]}),
    ({"labels": ["embedding"]}, {"labels": ["custom", "embeddings"]}),
    ({"labels": ["custom", "chat"]}, {"labels": ["chat", "custom"]}),
    ({"embedding": True}, {"labels": ["custom", "embeddings"]}),
    ({"reranking": True}, {"labels": ["custom", "reranking"]}),
    ({"vision": True, "reasoning": True}, {"labels": ["chat", "custom", "reasoning", "vision"]}),
    ({"vision": False}, {"labels": ["chat", "custom"]}),
    ({"size": 1.5}, {"size": 1.5}),
    ({"size": None}, {}),
    ({"recipe_options": {"ctx_size": 4096}}, {"recipe_options": {"ctx_size": 4096}}),
    ({"system_prompt": "Be brief."}, {"system_prompt": "Be brief."}),
    ({"stream": True, "do_not_upgrade": False, "id": "X", "object": "model"}, {}),
    (
        {"checkpoint": "/models/x.gguf", "source": "local_path"},
        {"checkpoints": {"main": "/models/x.gguf"}, "source": "local_path"},
    ),
    (
        {"checkpoint": "models--X/x.gguf", "source": "local_upload"},
        {"checkpoints": {"main": "models--X/x.gguf"}},
    ),
    (
        {"checkpoint": "tiny.gguf", "source": "shipped", "registry_source": ""},
        {"source": "shipped"},
    ),
    ({"recipe": "whole", "checkpoint": "acme/X"}, {"checkpoints": {"main": "acme/X"}}),
]


@pytest.mark.parametrize(("sent", "stored"), STORED, ids=str)
def test_stored(registry, user_file, sent, stored):
    spec, new = registry().register(PLAIN | sent)
    assert new
    assert spec.canonical_name == "user.X"
    entry = json.loads(user_file.read_text())["X"]
    assert stored.items() <= entry.items()
    assert not {"stream", "do_not_upgrade", "id", "object", "model_name"} & entry.keys()
    assert registry().resolve("user.X") == spec


REFUSED = [
    ({"model_name": None}, "must be a string"),
    ({"model_name": "X"}, "user."),
    ({"model_name": "extra.X"}, "user."),
    ({"model_name": "user.builtin.X"}, "two prefixes"),
    ({"model_name": "user.../../x"}, "like a path"),
    ({"recipe": None}, "recipe"),
    ({"recipe": 5}, "recipe"),
    ({"checkpoint": None}, "checkpoint"),
    ({"checkpoint": 5}, "must be a string"),
    ({"checkpoint": ["a/b:Q4"]}, "must be a string"),
    ({"checkpoints": "a/b:Q4"}, "must be an object"),
    ({"checkpoints": {"mmproj": "a/b:c"}, "checkpoint": None}, "'main'"),
    ({"checkpoints": {"main": "a/b:Q4", "mmproj": None}}, "'mmproj' must be a string"),
    ({"checkpoints": {"main": "a/b:Q4", "mmproj": "a/b"}}, "must name a file"),
    ({"checkpoints": {"main": "a/b:Q4", "vae": "a/b:c"}}, "no checkpoint 'vae'"),
    ({"checkpoint": "acme/X"}, "a variant must be chosen"),
    ({"checkpoint": "acme/X:"}, "a variant must be chosen"),
    ({"checkpoint": "acme"}, "not owner/repo"),
    ({"checkpoint": "a/b/c:Q4"}, "not owner/repo"),
    ({"checkpoint": "../b:Q4"}, "not owner/repo"),
    ({"checkpoint": "a/..:Q4"}, "not owner/repo"),
    ({"checkpoint": "a/b:../../../etc/passwd"}, "leaves the repository"),
    ({"checkpoint": "a/b:/etc/passwd"}, "leaves the repository"),
    ({"checkpoint": "a/b:x\x00"}, "control characters"),
    ({"checkpoint": "https://example.com/a/b:Q4"}, "not owner/repo"),
    ({"checkpoint": "models/x.gguf", "source": "local_path"}, "must be absolute"),
    ({"checkpoint": "../x.gguf", "source": "local_upload"}, "leaves the hub cache"),
    ({"checkpoint": "../x.gguf", "source": "shipped"}, "not a file name"),
    ({"mmproj": "../mm.gguf"}, "leaves the repository"),
    ({"mmproj": 5}, "mmproj"),
    ({"source": 5}, "'source' cannot be 5"),
    ({"source": "ollama"}, "'ollama'"),
    ({"registry_source": "local_path"}, "'local_path'"),
    ({"source": "hf", "registry_source": "ms"}, "says modelscope"),
    ({"source": "ms", "checkpoint": "https://huggingface.co/a/b:Q4"}, "says huggingface"),
    ({"labels": "chat"}, "list of strings"),
    ({"labels": [1]}, "list of strings"),
    ({"labels": ["chat", "embeddings"]}, "one mode"),
    ({"labels": ["chat"], "embedding": True}, "one mode"),
    ({"labels": ["image"]}, "cannot serve the label 'image'"),
    ({"vision": "yes"}, "true or false"),
    ({"size": "1 GB"}, "'size'"),
    ({"size": True}, "'size'"),
    ({"size": -1}, "'size'"),
    ({"size": float("nan")}, "'size'"),
    ({"recipe_options": "-t 1"}, "'recipe_options' must be an object"),
    ({"image_defaults": [1]}, "'image_defaults' must be an object"),
    ({"system_prompt": 5}, "'system_prompt' must be a string"),
]


@pytest.mark.parametrize(("sent", "told"), REFUSED, ids=str)
def test_refused(registry, user_file, sent, told):
    models = registry()
    with pytest.raises(MalformedRequest) as caught:
        models.register(PLAIN | sent)
    assert told in caught.value.message
    assert not user_file.exists()


@pytest.mark.parametrize("recipe", ["unheard-of", "collection.omni"])
def test_a_recipe_that_is_not_there_yet(registry, user_file, recipe):
    with pytest.raises(UnknownRecipe, match=f"no recipe '{recipe}' yet"):
        registry().register(PLAIN | {"recipe": recipe, "components": ["A"]})
    assert not user_file.exists()


def test_saying_it_again_changes_nothing(registry, user_file):
    models = registry()
    first, _ = models.register(PLAIN)
    before = user_file.stat().st_mtime_ns
    again, new = models.register(PLAIN)
    assert (again, new) == (first, False)
    assert user_file.stat().st_mtime_ns == before


def test_the_source_is_inherited(registry):
    models = registry()
    models.register(PLAIN | {"source": "modelscope"})
    spec, new = models.register(PLAIN)
    assert (spec.source, new) == ("modelscope", False)


def test_labels_stay_unless_they_are_said(registry):
    models = registry()
    models.register(PLAIN | {"labels": ["embeddings", "hot"], "size": 2})
    spec, _ = models.register(PLAIN)
    assert spec.labels == ("custom", "embeddings", "hot")
    assert spec.size_gb == 2
    spec, _ = models.register(PLAIN | {"labels": ["reranking"]})
    assert spec.labels == ("custom", "reranking")


DIFFERENT = [
    ({"checkpoint": "acme/X-GGUF:Q8_0"}, "checkpoints was main=acme/X-GGUF:Q4_K_M"),
    ({"mmproj": "mm.gguf"}, "checkpoints was"),
    ({"recipe": "whole"}, "recipe was brew and would be whole"),
    ({"source": "modelscope"}, "source was huggingface and would be modelscope"),
]


@pytest.mark.parametrize(("sent", "told"), DIFFERENT, ids=str)
def test_another_definition_is_refused_unless_replaced(registry, user_file, sent, told):
    models = registry()
    models.register(PLAIN)
    before = user_file.read_text()
    with pytest.raises(DefinitionDiffers) as caught:
        models.register(PLAIN | sent)
    assert told in caught.value.message
    assert "lemonade delete user.X" in caught.value.remedy
    assert user_file.read_text() == before
    spec, new = models.register(PLAIN | sent, replace=True)
    assert not new
    assert models.resolve("X") == spec


def test_entries_in_the_older_form_are_the_same_definition(registry, user_file):
    user_file.parent.mkdir()
    user_file.write_text(
        json.dumps(
            {"X": {"checkpoint": "acme/X-GGUF:Q4_K_M", "mmproj": "mm.gguf", "recipe": "brew"}}
        )
    )
    _, new = registry().register(PLAIN | {"mmproj": "mm.gguf"})
    assert not new


def test_the_default_source_is_the_operators(registry):
    spec, _ = registry().register(PLAIN, default_source="modelscope")
    assert spec.source == "modelscope"


@pytest.mark.parametrize(
    "key", [*PLAIN, "checkpoints", "mmproj", "labels", "source", "size", "recipe_options"]
)
def test_any_type_is_taken_or_refused_with_a_sentence(registry, key):
    models = registry()
    refused = 0
    for value in (None, True, 1, 1.5, "x", [], [1], {}, {"a": 1}):
        try:
            models.register({**PLAIN, key: value}, replace=True)
        except LemonadeError:  # anything else fails the test
            refused += 1
    assert refused


@pytest.mark.parametrize("mmproj", ["mmproj.gguf", "/data/a:b/mmproj.gguf"])
def test_a_projector_of_a_local_file_lies_beside_it(registry, mmproj):
    spec, _ = registry().register(
        {
            "model_name": "user.local",
            "recipe": "brew",
            "source": "local_path",
            "checkpoint": "/data/a:b/model.gguf",
            "mmproj": mmproj,
        }
    )
    assert spec.checkpoints["mmproj"] == "/data/a:b/mmproj.gguf"
