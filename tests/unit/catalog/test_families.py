"""Which arguments a model gets by family."""

from __future__ import annotations

import json

import pytest

from lemonade.catalog import Catalog, FamilyRegistry, sources
from lemonade.core.errors import BadDescriptor

CONTENT = {
    "schema_version": 1,
    "enable_checkpoint_regex_match": True,
    "families": {
        "z-ale": {"checkpoint_regex": r"Ale-\d", "args": "--z"},
        "ale": {"checkpoint_regex": r"Ale", "args": "--ale", "speculative_config": {"n": 1}},
        "bare": {"args": "--bare"},
    },
    "models": {
        "Named": {"family": "bare", "args": "--own"},
        "Alone": {"disable_family_match": True, "args": "--own"},
        "Quick": {"speculative_config": {"n": 2}},
    },
}

MATCHES = [
    ("Any", "acme/Ale-7B", ("ale", "--ale", "", {"n": 1})),
    ("Any", "acme/Ale", ("ale", "--ale", "", {"n": 1})),
    ("Any", "acme/Stout", ("", "", "", None)),
    ("Named", "acme/Ale", ("bare", "--bare", "--own", None)),
    ("Alone", "acme/Ale", ("", "", "--own", None)),
    ("Quick", "acme/Ale", ("ale", "--ale", "", {"n": 2})),
]


def read(tmp_path, content):
    path = tmp_path / "families.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return FamilyRegistry.read(path)


@pytest.mark.parametrize(("model", "checkpoint", "expected"), MATCHES)
def test_match(tmp_path, model, checkpoint, expected):
    found = read(tmp_path, CONTENT).match(model, checkpoint)
    assert (
        found.family,
        found.family_args,
        found.model_args,
        found.speculative_config,
    ) == expected


def test_matching_can_be_switched_off(tmp_path):
    registry = read(tmp_path, CONTENT | {"enable_checkpoint_regex_match": False})
    assert registry.match("Any", "acme/Ale").family == ""
    assert registry.match("Named", "acme/Ale").family == "bare"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"schema_version": 2}, "schema_version"),
        ({}, "schema_version"),
        ("[]", "JSON object"),
        ("{", "not valid JSON"),
        ({"schema_version": 1, "models": {"A": {"family": "none"}}}, "'none'"),
        ({"schema_version": 1, "models": {"A": {"famly": "x"}}}, "famly"),
        (
            {"schema_version": 1, "families": {"a": {"checkpoint_regex": "("}}},
            "regular expression",
        ),
    ],
)
def test_what_is_wrong_is_told(tmp_path, content, told):
    with pytest.raises(BadDescriptor) as caught:
        read(tmp_path, content)
    assert told in caught.value.message
    assert "families.json" in caught.value.message


def test_a_broken_file_fails_whoever_needs_it_and_stays_where_it_is(tmp_path):
    file = tmp_path / "vllm_model_config.json"
    file.write_text('{"schema_version": 1,\n "families": {,}}')
    catalog = Catalog.load((*sources({}, tmp_path / "none"), tmp_path))
    for _ in range(2):
        with pytest.raises(BadDescriptor, match=r"vllm_model_config.json.*line 2 column"):
            catalog.families("vllm_model_config.json")
    assert file.exists()
    assert catalog.builtin_models()


def test_a_file_of_the_operators_replaces_the_shipped_one(tmp_path):
    (tmp_path / "vllm_model_config.json").write_text(json.dumps(CONTENT))
    catalog = Catalog.load((*sources({}, tmp_path / "none"), tmp_path))
    assert set(catalog.families("vllm_model_config.json").families) == {"z-ale", "ale", "bare"}


def test_no_file_is_an_empty_registry(folder, caplog):
    assert folder.load().families("none.json").match("A", "b").family == ""
    assert "none.json" in caplog.text
