"""Arguments out of a registry of families, below the user's. The table beside it is the rule."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lemonade.catalog import FamilyRegistry
from lemonade.catalog.families import FamilyFile
from lemonade.core.errors import BadArgument, ReservedArgument
from lemonade.planning import EffectiveOptions, grammar_of, merge, parse_argv
from lemonade.planning.argv import Argv, check_reserved, notices_of
from lemonade.planning.options import resolve_options
from tests.unit.planning.examples import recipe

VLLM = recipe("vllm")
GRAMMAR = grammar_of(VLLM)

FAMILIES = {
    "qwen3": {
        "checkpoint_regex": r"Qwen3\.",
        "args": "--enable-auto-tool-choice --tool-call-parser qwen3_coder --quantization awq "
        "--max-num-seqs 4",
    },
    "memory_family": {
        "match": [{"checkpoint_regex": "never"}, {"checkpoint_regex": "^Memory/"}],
        "args": "--gpu-memory-utilization 0.8 --tool-call-parser hermes",
    },
}
MODELS = {
    "Qwen3.5-4B-vLLM": {"family": "qwen3"},
    "Qwen3.5-2B-vLLM": {
        "family": "qwen3",
        "args": "--tool-call-parser hermes --quantization gptq",
    },
    "NoFamily-vLLM": {"disable_family_match": True, "args": "--tool-call-parser hermes"},
}


def registry(families: object, models: object, *, matching: bool = True) -> FamilyRegistry:
    content = {
        "schema_version": 1,
        "enable_checkpoint_regex_match": matching,
        "families": families,
        "models": models,
    }
    return FamilyRegistry(FamilyFile.model_validate(content))


REGISTRIES = {
    "a": registry(FAMILIES, MODELS),
    "off": registry(FAMILIES, MODELS, matching=False),
    "binary": registry(
        {
            "binary": {
                "checkpoint_regex": "^Binary/",
                "args": "--feature-enabled --no-old-feature --valued-flag family",
            }
        },
        {},
    ),
    "repeat": registry(
        {
            "repeat": {
                "checkpoint_regex": "^Repeat/",
                "args": "--repeatable-arg base --repeatable-arg extra --max-num-seqs 4",
            }
        },
        {"Repeat-vLLM": {"args": "--repeatable-arg model"}},
    ),
    "spec": registry(
        {
            "spec": {
                "checkpoint_regex": "^Spec/",
                "args": "--max-num-seqs 4",
                "speculative_config": {"method": "mtp", "num_speculative_tokens": 2},
            }
        },
        {
            "Own-vLLM": {
                "args": "--max-num-batched-tokens 8",
                "speculative_config": {"method": "mtp", "num_speculative_tokens": 1},
            }
        },
    ),
}


def resolve(name: str, model: str, checkpoint: str, **layers: Any) -> EffectiveOptions:
    given_layers: dict[str, Any] = {
        "request": {},
        "saved": {},
        "declared": {},
        "section": {},
        "variant": None,
        "ctx_size": -1,
    }
    found = REGISTRIES[name].match(model, checkpoint)
    return resolve_options(VLLM, family=found, **(given_layers | layers))


def cases() -> list[object]:
    lines = (Path(__file__).parent / "family_cases.tsv").read_text().splitlines()
    rows = [line.split("\t") for line in lines if line and not line.startswith("#")]
    return [pytest.param(*row[:5], id=f"{row[-1]}: {row[1]} {row[3]}") for row in rows]


@pytest.mark.parametrize("layer", ["request", "saved", "declared", "section"])
@pytest.mark.parametrize(("name", "model", "checkpoint", "user", "expected"), cases())
def test_family_then_model_then_user(
    name: str, model: str, checkpoint: str, user: str, expected: str, layer: str
) -> None:
    key = "args" if layer == "section" else "vllm_args"
    layers = {layer: {key: user} if user else {}}
    if expected.startswith("error: "):
        with pytest.raises((BadArgument, ReservedArgument)) as caught:
            resolve(name, model, checkpoint, **layers)
        assert expected.removeprefix("error: ") in caught.value.message
    else:
        assert resolve(name, model, checkpoint, **layers).values["vllm_args"] == expected


def test_each_argument_says_which_layer_it_is_from() -> None:
    options = resolve(
        "a",
        "Qwen3.5-2B-vLLM",
        "x",
        section={"args": "--seed 1"},
        request={"vllm_args": "--quantization fp8"},
    )
    assert [(a.flag, a.origin) for a in options.arguments.arguments] == [
        ("--enable-auto-tool-choice", "family"),
        ("--max-num-seqs", "family"),
        ("--tool-call-parser", "registry"),
        ("--seed", "config"),
        ("--quantization", "request"),
    ]
    (below,) = options.arguments.arguments[-1].overrode
    assert (below.origin, below.values) == ("registry", ("gptq",))
    assert (below.overrode[0].origin, below.overrode[0].values) == ("family", ("awq",))
    assert options.origins["vllm_args"] == "request"
    assert resolve("a", "Qwen3.5-4B-vLLM", "x").origins["vllm_args"] == "family"


def test_an_empty_request_clears_the_users_layers_and_leaves_the_family() -> None:
    options = resolve(
        "a", "NoFamily-vLLM", "x", saved={"vllm_args": "--seed 1"}, request={"vllm_args": ""}
    )
    assert options.values["vllm_args"] == "--tool-call-parser hermes"


def test_without_merging_the_request_stands_alone() -> None:
    options = resolve(
        "a", "NoFamily-vLLM", "x", request={"vllm_args": "--seed 1", "merge_args": False}
    )
    assert options.values["vllm_args"] == "--seed 1"


def test_a_registry_cannot_give_what_is_reserved() -> None:
    bad = registry({"f": {"checkpoint_regex": ".", "args": "--host 0.0.0.0"}}, {})
    with pytest.raises(ReservedArgument, match="the model's family"):
        resolve_options(
            VLLM,
            request={},
            saved={},
            declared={},
            section={},
            variant=None,
            ctx_size=-1,
            family=bad.match("m", "c"),
        )


# ---- what Lemonade gives by default


def test_asking_for_what_is_given_anyway_is_a_notice() -> None:
    options = resolve("a", "m", "c", request={"vllm_args": "--enable_prefix_caching"})
    (notice,) = options.notices
    assert "--enable-prefix-caching of the request changes nothing" in notice


def test_what_is_given_anyway_may_be_taken_back_where_that_is_not_reserved() -> None:
    grammar = replace(GRAMMAR, reserved=frozenset(), defaults=frozenset({"--enable-seeds"}))
    (notice,) = notices_of(parse_argv("--no_enable_seeds", "config"), grammar)
    assert "takes back --enable-seeds" in notice
    assert "the configuration" in notice
    assert not resolve("a", "m", "c", section={"args": "--seed 1"}).notices
    with pytest.raises(ReservedArgument, match="the configuration"):
        resolve("a", "m", "c", section={"args": "--no-enable-prefix-caching"})


# ---- whatever is merged


GRAMMARS = {name: grammar_of(recipe(name)) for name in ("vllm", "llamacpp", "ryzenai-llm")}
SPELLINGS = sorted(
    (name, spelling)
    for name, grammar in GRAMMARS.items()
    for spelling in {
        *grammar.reserved,
        *(s for group in grammar.synonyms if group[0] in grammar.reserved for s in group),
    }
)


@given(
    st.sampled_from(SPELLINGS),
    st.sampled_from(["", " x", "=x", ".y z"]),
    st.booleans(),
    st.sampled_from(["request", "saved", "config"]),
)
def test_every_reserved_spelling_is_refused(
    reserved: tuple[str, str], value: str, underscores: bool, origin: str
) -> None:
    name, flag = reserved
    spelt = "--" + flag[2:].replace("-", "_") if underscores and flag.startswith("--") else flag
    with pytest.raises(ReservedArgument) as caught:
        check_reserved(parse_argv(spelt + value, origin), GRAMMARS[name])
    assert caught.value.facts["origin"] == origin


@given(st.sampled_from([one for one in SPELLINGS if one[1].startswith("--")]))
def test_every_reserved_negation_is_refused(reserved: tuple[str, str]) -> None:
    name, flag = reserved
    negated = f"--no-{flag.removeprefix('--')}"
    assume(negated not in GRAMMARS[name].apart)
    with pytest.raises(ReservedArgument):
        check_reserved(parse_argv(negated, "request"), GRAMMARS[name])


WORDS = st.lists(
    st.sampled_from(
        ["--a 1", "--a 2", "--b", "--no-b", "--again x", "--quantization awq", "-q gptq"]
    ),
    max_size=4,
).map(" ".join)


@given(WORDS, WORDS)
def test_an_empty_layer_changes_nothing(low: str, high: str) -> None:
    one, other = parse_argv(low, "family"), parse_argv(high, "request")
    merged = merge([one, other], GRAMMAR)
    for layers in ([Argv(), one, other], [one, Argv(), other], [one, other, Argv()]):
        assert merge(layers, GRAMMAR) == merged
    assert merge([merge([one], GRAMMAR), other], GRAMMAR) == merged


@given(WORDS, WORDS)
def test_survivors_keep_their_order_and_come_first(low: str, high: str) -> None:
    one, other = parse_argv(low, "family"), parse_argv(high, "request")
    merged = merge([one, other], GRAMMAR).arguments
    kept = [a for a in merged if a.origin == "family"]
    assert list(merged) == kept + list(other.arguments)
    positions = iter(one.arguments)
    assert all(any(a is b or a == b for b in positions) for a in kept)


def test_the_shipped_registry_is_what_was_published() -> None:
    path = Path(__file__).resolve().parents[3] / "vllm_model_config.json"
    shipped = FamilyRegistry.read(path)
    assert set(shipped.families) == {"qwen3.", "glm4.7"}
    assert len(shipped.models) == 11
    found = shipped.match("Qwen3.6-27B-FP8-vLLM-lowconc", "Qwen/Qwen3.6-27B-FP8")
    assert found.family == "qwen3."
    assert found.model_args == "--max-num-seqs 8"
    assert json.dumps(found.speculative_config) == (
        '{"method": "mtp", "num_speculative_tokens": 1}'
    )
    for model in shipped.models:
        match = shipped.match(model, "")
        for args in (match.family_args, match.model_args):
            check_reserved(parse_argv(args, "registry"), GRAMMAR)
