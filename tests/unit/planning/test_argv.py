"""Arguments: read, merged, refused. The table beside this file is the specification."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lemonade.core.errors import BadArgument, ReservedArgument
from lemonade.planning.argv import (
    Argument,
    Argv,
    Grammar,
    check_reserved,
    grammar_of,
    merge,
    parse_argv,
)
from lemonade.planning.words import join_words, split_words
from tests.unit.planning.examples import a_recipe, recipe

GRAMMARS = {
    "plain": Grammar(),
    "llama": grammar_of(recipe()),
    "groups": Grammar(
        repeatable=frozenset({"--again"}),
        valueless=frozenset({"--switch"}),
        conflicts=(
            ("--enable-auto-tools", "--disable-auto-tools"),
            ("--kv-bytes", "--gpu-fraction"),
        ),
    ),
}


def cases() -> list[object]:
    lines = (Path(__file__).parent / "argv_cases.tsv").read_text().splitlines()
    rows = [line.split("\t") for line in lines if line and not line.startswith("#")]
    return [pytest.param(*row[:5], id=f"{row[5]}: {row[1]}") for row in rows]


@pytest.mark.parametrize(("grammar", "low", "middle", "high", "expected"), cases())
def test_layers_merge(grammar: str, low: str, middle: str, high: str, expected: str) -> None:
    def read() -> str:
        layers = [
            parse_argv(text.replace("\\t", "\t").replace("\\n", "\n").replace("\\\\", "\\"), name)
            for name, text in (("config", low), ("model", middle), ("request", high))
        ]
        return join_words(merge(layers, GRAMMARS[grammar]).words())

    if expected.startswith("error: "):
        with pytest.raises(BadArgument) as caught:
            read()
        assert expected.removeprefix("error: ") in caught.value.message
    else:
        assert read() == expected


# ---- words


@given(st.lists(st.text()))
def test_joined_words_split_into_the_same_words(words: list[str]) -> None:
    assert split_words(join_words(words)) == tuple(words)


@given(st.lists(st.text()))
def test_a_shell_reads_joined_words_the_same(words: list[str]) -> None:
    assert shlex.split(join_words(words)) == words


def test_an_unclosed_quote_says_where_it_was_opened() -> None:
    with pytest.raises(BadArgument) as caught:
        split_words('--chat-template-kwargs \'{"a": 1}')
    assert caught.value.facts == {"position": 24}
    assert "column 24" in caught.value.message


def test_an_escaped_line_end_continues_the_line() -> None:
    assert split_words("--a 1 \\\n  --b 2") == ("--a", "1", "--b", "2")


def test_a_dollar_sign_means_nothing() -> None:
    assert split_words('--a "$HOME" `id` *') == ("--a", "$HOME", "`id`", "*")


# ---- lists


def test_a_list_of_words_needs_no_quoting() -> None:
    argv = parse_argv(["--name", 'it\'s "two" words', "--x=1 2"], "request")
    assert argv.words() == ("--name", 'it\'s "two" words', "--x", "1 2")


@pytest.mark.parametrize(
    "words", [["--threads 4"], ["--threads", 4], ["--a", "b\0c"], [None]], ids=repr
)
def test_a_list_that_cannot_be_arguments_is_refused(words: list[str]) -> None:
    with pytest.raises(BadArgument):
        parse_argv(words, "request")


# ---- provenance


def test_an_argument_remembers_its_layer_and_what_it_overrode() -> None:
    layers = [
        parse_argv("-c 1 --threads 4", "config"),
        parse_argv("--ctx-size 2", "model"),
        parse_argv("-c 3", "request"),
    ]
    merged = merge(layers, GRAMMARS["llama"])
    assert [(a.flag, a.origin) for a in merged.arguments] == [
        ("--threads", "config"),
        ("-c", "request"),
    ]
    (model_level,) = merged.arguments[1].overrode
    assert model_level == Argument("--ctx-size", ("2",), "model")
    assert model_level.overrode == (Argument("-c", ("1",), "config"),)


FLAGS = ("--a", "--b", "--no-a", "--lora", "-c", "--ctx-size")
LAYER = st.lists(
    st.tuples(st.sampled_from(FLAGS), st.lists(st.sampled_from(["1", "-2", "x"]), max_size=2))
)


def layers_of(layers: list[list[tuple[str, list[str]]]]) -> list[Argv]:
    return [
        Argv(tuple(Argument(flag, tuple(values), str(i)) for flag, values in layer))
        for i, layer in enumerate(layers)
    ]


@given(st.lists(LAYER, max_size=4))
def test_the_highest_layer_is_never_touched(layers: list[list[tuple[str, list[str]]]]) -> None:
    argvs = layers_of(layers)
    merged = merge(argvs, GRAMMARS["llama"])
    if argvs and argvs[-1].arguments:
        assert merged.arguments[-len(argvs[-1].arguments) :] == argvs[-1].arguments


@given(st.lists(LAYER, max_size=4))
def test_nothing_is_lost_and_nothing_invented(
    layers: list[list[tuple[str, list[str]]]],
) -> None:
    argvs = layers_of(layers)
    merged = merge(argvs, GRAMMARS["llama"])

    def everything(arguments: tuple[Argument, ...]) -> list[Argument]:
        return [a for x in arguments for a in (x, *everything(x.overrode))]

    def key(argument: Argument) -> tuple[str, str, tuple[str, ...]]:
        return (argument.origin, argument.flag, argument.values)

    given_ones = [a for argv in argvs for a in argv.arguments]
    assert sorted(map(key, everything(merged.arguments))) == sorted(map(key, given_ones))


@given(LAYER)
def test_an_empty_layer_changes_nothing(layer: list[tuple[str, list[str]]]) -> None:
    (argv,) = layers_of([layer])
    assert merge([Argv(), argv, Argv()], GRAMMARS["llama"]) == argv


@given(LAYER)
def test_words_read_back_as_the_same_arguments(layer: list[tuple[str, list[str]]]) -> None:
    (argv,) = layers_of([layer])
    assert parse_argv(join_words(argv.words()), "0") == argv


# ---- finding


@pytest.mark.parametrize(
    ("text", "flag", "found"),
    [
        ("--no-mmap", "--no-mmap", True),
        ("-lm none", "-lm", True),
        ("-lm none", "--load-mode", True),
        ("--load-mode=auto", "--load-mode", True),
        ("--mmap=auto", "--mmap", True),
        ("--threads 8", "--mmap", False),
        ("--no-mmap-x", "--no-mmap", False),
        ("--name --mmap=1", "--mmap", True),
    ],
)
def test_a_flag_is_found_by_whole_words(text: str, flag: str, *, found: bool) -> None:
    argument = GRAMMARS["llama"].find(parse_argv(text, "request"), flag)
    assert (argument is not None) is found


# ---- reserved


@pytest.mark.parametrize(
    "text",
    [
        "--port 1",
        "--port=1",
        "--host 0.0.0.0",
        "-m other.gguf",
        "--model x",
        "-hf owner/repo",
        "--api-key k",
        "--api_key k",
        "-c 4096",
        "--ctx_size 4096",
        "-dev Vulkan0",
        "--embedding",
        "--rerank",
        "--no-jinja",
        "--no-metrics",
        "--webui",
        "--no-mmproj",
        "--spec-draft-model d.gguf",
        "--port.x 1",
        "--threads 4 --ssl-key-file k",
    ],
)
def test_a_reserved_flag_is_refused_however_it_is_spelt(text: str) -> None:
    with pytest.raises(ReservedArgument) as caught:
        check_reserved(parse_argv(text, "request"), GRAMMARS["llama"])
    assert "the request" in caught.value.message
    assert caught.value.facts["flag"] in caught.value.message
    assert caught.value.remedy


@pytest.mark.parametrize(
    "text", ["--threads 4", "--no-host", "--no-mmap", "--portable", "--flash-attn on", "-np 2"]
)
def test_other_flags_pass(text: str) -> None:
    check_reserved(parse_argv(text, "request"), GRAMMARS["llama"])


def test_the_remedy_names_the_option_that_does_it() -> None:
    with pytest.raises(ReservedArgument, match="option 'ctx_size'"):
        check_reserved(parse_argv("-c 1", "config"), GRAMMARS["llama"])
    with pytest.raises(ReservedArgument, match="option 'llamacpp_device'"):
        check_reserved(parse_argv("--device CUDA0", "saved"), GRAMMARS["llama"])


@pytest.mark.parametrize("text", ["--name 'x", '--name "x', "--name x\\"])
def test_what_cannot_be_read_names_its_layer(text: str) -> None:
    with pytest.raises(BadArgument, match=r"column 8.*|column 9.*") as caught:
        parse_argv(text, "family")
    assert caught.value.message.endswith(", in the arguments of the model's family.")
    assert caught.value.facts["origin"] == "family"
    assert caught.value.facts["position"]


def test_a_recipe_reserves_by_any_spelling() -> None:
    argv = {
        "always": ["--port", "{port}"],
        "reserved": ["-p", "--quiet"],
        "synonyms": [["--port", "-p"]],
    }
    grammar = grammar_of(a_recipe(argv=argv))
    for text in ("-p 1", "--port 1", "--no-quiet", "--no-port"):
        with pytest.raises(ReservedArgument):
            check_reserved(parse_argv(text, "request"), grammar)


def test_what_only_looks_like_a_negation_passes_where_the_recipe_says_so() -> None:
    argv = {"always": ["--host", "{host}"], "reserved": ["--host"], "apart": ["--no-host"]}
    grammar = grammar_of(a_recipe(argv=argv))
    check_reserved(parse_argv("--no-host", "request"), grammar)
    with pytest.raises(ReservedArgument):
        check_reserved(parse_argv("--host x", "request"), grammar)
