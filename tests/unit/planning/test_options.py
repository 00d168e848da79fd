"""Options of a load: who wins, what merges, what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from lemonade.core.errors import BadArgument, BadOption, ReservedArgument
from lemonade.planning import EffectiveOptions, check_options, known_options, resolve_options
from tests.unit.planning.examples import a_recipe, recipe


def resolve(**layers: Any) -> EffectiveOptions:
    given: dict[str, Any] = {
        "request": {},
        "saved": {},
        "declared": {},
        "section": {},
        "variant": None,
        "ctx_size": -1,
    }
    return resolve_options(recipe(), **(given | layers))


# ---- defaults


def test_without_a_word_everything_has_its_default() -> None:
    options = resolve()
    assert options.values == {
        "ctx_size": -1,
        "llamacpp_backend": "",
        "llamacpp_device": "",
        "llamacpp_args": "",
        "merge_args": True,
        "auto_evict": None,
        "evict_idle_timeout": 300,
        "downsize_idle_timeout": 60,
        "evict_weight_factor": 1.0,
        "ready_timeout": 0,
        "stall_timeout": 0,
        "hang_timeout": 0,
        "watch_hangs": None,
        "max_open_files": 0,
        "nice": 0,
        "cpus": "",
        "max_memory": "",
        "pinned": False,
    }
    assert set(options.origins.values()) == {"default"}
    assert set(options.origins) == set(options.values)


def test_a_section_at_its_defaults_is_nobodys_choice() -> None:
    options = resolve(section={"backend": "auto", "args": "", "device": ""}, ctx_size=-1)
    assert options == resolve()
    assert set(options.origins.values()) == {"default"}


# ---- precedence of single values


@pytest.mark.parametrize(
    ("layers", "value", "origin"),
    [
        ({}, -1, "default"),
        ({"ctx_size": 1000}, 1000, "config"),
        ({"ctx_size": 1000, "declared": {"ctx_size": 2000}}, 2000, "model"),
        ({"declared": {"ctx_size": 2000}, "saved": {"ctx_size": 3000}}, 3000, "saved"),
        ({"saved": {"ctx_size": 3000}, "request": {"ctx_size": 4000}}, 4000, "request"),
        ({"saved": {"ctx_size": 3000}, "request": {"ctx_size": -1}}, -1, "request"),
        ({"ctx_size": 1000, "saved": {"ctx_size": -1}}, -1, "saved"),
        ({"saved": {"ctx_size": 3000}, "request": {"ctx_size": None}}, -1, "default"),
        (
            {
                "declared": {"ctx_size": 2000},
                "saved": {"ctx_size": 3000},
                "request": {"ctx_size": None},
            },
            2000,
            "model",
        ),
        ({"architecture": {"ctx_size": 1500}, "ctx_size": 1000}, 1500, "architecture"),
    ],
)
def test_ctx_size(layers: dict[str, Any], value: int, origin: str) -> None:
    options = resolve(**layers)
    assert options.values["ctx_size"] == value
    assert options.origins["ctx_size"] == origin


@pytest.mark.parametrize("nothing", [None, "", "auto", -1])
def test_a_value_that_says_nothing_leaves_it_to_the_next_layer(nothing: object) -> None:
    options = resolve(
        request={"llamacpp_backend": nothing},
        declared={"llamacpp_backend": nothing},
        section={"backend": "system"},
    )
    assert options.values["llamacpp_backend"] == "system"
    assert options.origins["llamacpp_backend"] == "config"


def test_the_chosen_variant_answers_where_nobody_named_one() -> None:
    options = resolve(variant="wheel", section={"backend": "auto"})
    assert options.values["llamacpp_backend"] == "wheel"
    assert options.origins["llamacpp_backend"] == "default"
    named = resolve(variant="wheel", request={"llamacpp_backend": "system"})
    assert named.values["llamacpp_backend"] == "system"


def test_common_options_follow_the_same_layers() -> None:
    options = resolve(
        request={"evict_idle_timeout": 10}, saved={"pinned": True}, declared={"auto_evict": False}
    )
    assert options.values["evict_idle_timeout"] == 10
    assert options.values["pinned"] is True
    assert options.values["auto_evict"] is False
    assert options.origins["pinned"] == "saved"


def test_a_recipe_without_a_context_has_no_context_option() -> None:
    options = resolve_options(
        a_recipe(),
        request={},
        saved={},
        declared={},
        section={},
        variant=None,
        ctx_size=4096,
    )
    assert "ctx_size" not in options.values


def test_equal_values_are_equal_options_whoever_said_them() -> None:
    assert resolve(request={"ctx_size": 7}) == resolve(saved={"ctx_size": 7})
    assert resolve(request={"ctx_size": 7}) != resolve(request={"ctx_size": 8})
    assert resolve(request={"llamacpp_args": "-t 1"}) == resolve(
        declared={"llamacpp_args": "-t 1"}
    )


# ---- arguments over the layers

BACKEND = "-b 2048 -ub 1024 -np 1"
ARCHITECTURE = "--temp 0.8 --top-k 40"
DECLARED = "--flash-attn on"
SAVED = "--no-mmap --threads 8"


@pytest.mark.parametrize(
    ("request_", "expected", "origin"),
    [
        ({}, f"{BACKEND} {ARCHITECTURE} {SAVED}", "saved"),
        ({"llamacpp_args": "--threads 4"}, f"{BACKEND} --threads 4", "request"),
        ({"llamacpp_args": ""}, BACKEND, "request"),
        ({"llamacpp_args": None}, f"{BACKEND} {ARCHITECTURE} {DECLARED}", "model"),
        ({"merge_args": False}, "", "default"),
        ({"llamacpp_args": "--threads 4", "merge_args": False}, "--threads 4", "request"),
        ({"llamacpp_args": None, "merge_args": False}, "", "default"),
        ({"llamacpp_args": ["-b", "1"]}, "-ub 1024 -np 1 -b 1", "request"),
        ({"llamacpp_args": []}, BACKEND, "request"),
    ],
)
def test_arguments_scope(request_: dict[str, Any], expected: str, origin: str) -> None:
    options = resolve(
        request=request_,
        saved={"llamacpp_args": SAVED},
        declared={"llamacpp_args": DECLARED},
        architecture={"llamacpp_args": ARCHITECTURE},
        section={"args": BACKEND},
    )
    assert options.values["llamacpp_args"] == expected
    assert options.origins["llamacpp_args"] == origin
    assert " ".join(options.arguments.words()) == expected


def test_a_saved_wish_not_to_merge_holds_too() -> None:
    options = resolve(
        saved={"merge_args": False, "llamacpp_args": "--threads 8"}, section={"args": BACKEND}
    )
    assert options.values["llamacpp_args"] == ""


def test_the_variants_own_arguments_stand_in_for_the_general_ones() -> None:
    section = {"args": "--threads 1", "wheel_args": "--threads 2", "system_args": ""}
    assert resolve(section=section).values["llamacpp_args"] == "--threads 1"
    assert resolve(section=section, variant="wheel").values["llamacpp_args"] == "--threads 2"
    assert resolve(section=section, variant="system").values["llamacpp_args"] == "--threads 1"


def test_each_merged_argument_knows_its_layer() -> None:
    options = resolve(
        request={"llamacpp_args": "--threads 4"}, section={"args": "--threads 1 --parallel 2"}
    )
    assert [(a.flag, a.origin) for a in options.arguments.arguments] == [
        ("--parallel", "config"),
        ("--threads", "request"),
    ]
    assert options.arguments.arguments[1].overrode[0].origin == "config"


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        ({"request": {"llamacpp_args": "--port 1"}}, "the request"),
        ({"saved": {"llamacpp_args": "--port 1"}}, "the model's saved options"),
        ({"declared": {"llamacpp_args": "--port 1"}}, "the model's declaration"),
        ({"section": {"args": "--port 1"}}, "the configuration"),
    ],
)
def test_a_reserved_argument_is_refused_in_every_layer(layer: dict[str, Any], words: str) -> None:
    with pytest.raises(ReservedArgument, match=words):
        resolve(**layer)


def test_an_overridden_reserved_argument_is_refused_all_the_same() -> None:
    with pytest.raises(ReservedArgument, match="the configuration"):
        resolve(section={"args": "--no-jinja"}, request={"llamacpp_args": "--threads 1"})


def test_arguments_that_do_not_take_part_are_not_looked_at() -> None:
    options = resolve(
        saved={"llamacpp_args": "--port 1"}, request={"llamacpp_args": "--threads 1"}
    )
    assert options.values["llamacpp_args"] == "--threads 1"


# ---- types


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("ctx_size", "4096", "must be a whole number, not the string '4096'"),
        ("ctx_size", 4096.5, "must be a whole number, not the number 4096.5"),
        ("ctx_size", True, "must be a whole number, not true"),
        ("ctx_size", -2, "cannot be -2"),
        ("ctx_size", 2**40, "cannot be"),
        ("ctx_size", float("inf"), "must be a whole number"),
        ("llamacpp_backend", 3, "must be a string, not the number 3"),
        ("llamacpp_device", ["x"], "must be a string, not a list"),
        ("llamacpp_args", 3, "must be a string, or a list of strings"),
        ("llamacpp_args", ["--threads", 4], "a list that holds something else"),
        ("llamacpp_args", {"threads": 4}, "not an object"),
        ("merge_args", "yes", "must be true or false"),
        ("pinned", 1, "must be true or false"),
        ("evict_idle_timeout", "5m", "must be a number"),
    ],
)
def test_a_wrong_type_names_option_and_value(option: str, value: object, words: str) -> None:
    with pytest.raises(BadOption) as caught:
        check_options(recipe(), {option: value})
    assert words in caught.value.message
    assert caught.value.facts["option"] == option


def test_a_wrong_type_in_another_layer_names_the_layer() -> None:
    with pytest.raises(BadOption, match="model's saved options"):
        resolve(saved={"pinned": "yes"})


def test_checked_options_come_back_typed() -> None:
    checked = check_options(
        recipe(),
        {"ctx_size": 4096.0, "llamacpp_args": ["-t", "1"], "llamacpp_backend": None},
    )
    assert checked == {"ctx_size": 4096, "llamacpp_args": ["-t", "1"], "llamacpp_backend": None}
    assert type(checked["ctx_size"]) is int


def test_arguments_are_read_when_they_are_checked() -> None:
    with pytest.raises(BadArgument):
        check_options(recipe(), {"llamacpp_args": "--name 'x"})
    with pytest.raises(ReservedArgument):
        check_options(recipe(), {"llamacpp_args": "--port 1"})


# ---- unknown options


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("ctxsize", "ctx_size"),
        ("ctx-size", "ctx_size"),
        ("llama_args", "llamacpp_args"),
        ("merge_arg", "merge_args"),
    ],
)
def test_a_misspelt_option_is_told_what_was_meant(name: str, near: str) -> None:
    with pytest.raises(BadOption) as caught:
        check_options(recipe(), {name: 1})
    assert near in caught.value.remedy
    assert near in caught.value.facts["near"]  # type: ignore[operator]


def test_an_unknown_option_is_told_what_there_is() -> None:
    with pytest.raises(BadOption) as caught:
        check_options(recipe(), {"zzz": 1})
    assert "ctx_size" in caught.value.remedy


def test_fields_and_options_of_others_are_left_out() -> None:
    mill = a_recipe(
        option=[{"name": "mill_args", "type": "argv", "default": "", "help": "More."}],
    )
    ignorable = known_options([mill, recipe()]) | {"model_name"}
    checked = check_options(
        recipe(),
        {"model_name": "x", "mill_args": "--anything", "ctx_size": 1},
        ignorable=ignorable,
    )
    assert checked == {"ctx_size": 1}
    with pytest.raises(BadOption):
        check_options(recipe(), {"mil_args": ""}, ignorable=ignorable)


# ---- which layers take part


BACKEND = "-b 2048 -ub 1024 -np 1"
ARCHITECTURE = "--temp 0.8 --top-k 40"
ABSENT = object()


@pytest.mark.parametrize(
    ("wished", "merges", "expected"),
    [
        pytest.param(ABSENT, True, f"{BACKEND} {ARCHITECTURE} --no-mmap --threads 8", id="saved"),
        pytest.param("--threads 4", True, f"{BACKEND} --threads 4", id="instead of the model's"),
        pytest.param("", True, BACKEND, id="cleared"),
        pytest.param(None, True, f"{BACKEND} {ARCHITECTURE} --flash-attn on", id="declared"),
        pytest.param(ABSENT, False, "", id="nothing is inherited"),
        pytest.param("--threads 4", False, "--threads 4", id="alone"),
        pytest.param(None, False, "", id="null inherits nothing either"),
    ],
)
def test_which_layers_of_arguments_take_part(wished: object, merges: bool, expected: str) -> None:
    request: dict[str, Any] = {"merge_args": merges}
    if wished is not ABSENT:
        request["llamacpp_args"] = wished
    options = resolve(
        request=request,
        saved={"llamacpp_args": "--no-mmap --threads 8"},
        declared={"llamacpp_args": "--flash-attn on"},
        architecture={"llamacpp_args": ARCHITECTURE},
        section={"args": BACKEND},
    )
    assert options.values["llamacpp_args"] == expected


def test_limits_of_the_configuration_hold_unless_the_model_has_its_own() -> None:
    limits = {"nice": 7, "max_memory": "24GiB", "cpus": "", "max_open_files": 0}
    options = resolve(limits=limits, saved={"max_memory": "none"}, request={"cpus": "0"})
    told = {name: (options.values[name], options.origins[name]) for name in limits}
    assert told == {
        "nice": (7, "config"),
        "max_memory": ("none", "saved"),
        "cpus": ("0", "request"),
        "max_open_files": (0, "default"),
    }
    assert resolve(limits=limits, request={"nice": 0}).values["nice"] == 0
