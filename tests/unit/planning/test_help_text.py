"""Flags out of an engine's help, and arguments that are not among them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lemonade.core.errors import BadArgument
from lemonade.planning import check_known, flags_in, grammar_of, parse_argv
from lemonade.planning.second_try import fitting_context
from tests.unit.planning.examples import recipe

LLAMA = """\
----- common params -----

-h,    --help, --usage                  print usage and exit
--version                               show version and build info
-t,    --threads N                      number of CPU threads to use during generation
                                        (env: LLAMA_ARG_THREADS)
-Cr,   --cpu-range lo-hi                range of CPUs for affinity. Complements --cpu-mask
--poll <0...100>                        use polling level to wait for work, --not-a-flag
-n,    --predict, --n-predict N         number of tokens to predict (default: -1, -1 = infinity)
-fa,   --flash-attn [on|off|auto]       set Flash Attention use ('on', 'off', or 'auto')
-kvu,  --kv-unified, -no-kvu, --no-kv-unified
                                        use single unified KV buffer
                                        - none: nothing
--override-kv KEY=TYPE:VALUE,...        advanced option to override model metadata by key
"""

ARGPARSE = """\
usage: api_server.py [-h] [--headless] [--usage-only USAGE_ONLY]
                     [--trust | --no-trust]

options:
  --api-server-count API_SERVER_COUNT, -asc API_SERVER_COUNT
                        How many API server processes to run. (default: None)
  --config CONFIG       Read CLI options from a config file.
  --enable-log-requests, --no-enable-log-requests
                        - INFO: Request ID.
  --grpc                Launch the server on
                        --port instead of the HTTP server.
  --gdn-backend {flashinfer,triton}, -g {flashinfer,triton}
  --lora-modules LORA_MODULES [LORA_MODULES ...]
  --max_num_seqs N      How many.
  -O, --optimization-level LEVEL
  -h, --help            show this help message and exit
"""


def test_flags_as_llama_cpp_prints_them() -> None:
    assert flags_in(LLAMA) == {
        *("-h", "--help", "--usage", "--version", "-t", "--threads", "-Cr", "--cpu-range"),
        *("--poll", "-n", "--predict", "--n-predict", "-fa", "--flash-attn", "-kvu"),
        *("--kv-unified", "-no-kvu", "--no-kv-unified", "--override-kv"),
    }


def test_flags_as_argparse_prints_them() -> None:
    assert flags_in(ARGPARSE) == {
        *("--api-server-count", "-asc", "--config", "--enable-log-requests"),
        *("--no-enable-log-requests", "--grpc", "--gdn-backend", "-g", "--lora-modules"),
        *("--max-num-seqs", "-O", "--optimization-level", "-h", "--help"),
    }


@pytest.mark.parametrize("text", ["", "error: no such thing", "- a list\n- of words\n", "---\n"])
def test_what_has_no_flags_has_none(text: str) -> None:
    assert flags_in(text) == frozenset()


@given(st.text())
def test_any_text_can_be_read(text: str) -> None:
    flags_in(text)
    flags_in("\n".join(f"  --{word}" for word in text.split()))


@pytest.mark.parametrize(
    "text",
    ["--threads 4", "-t 4", "--n_predict 5", "--override-kv.a 1", "-n4", "--flash-attn=on", ""],
)
def test_what_the_engine_knows_passes(text: str) -> None:
    known, grammar = flags_in(LLAMA), grammar_of(recipe())
    check_known(parse_argv(text, "request").arguments, known, grammar)


@pytest.mark.parametrize(
    ("text", "near"),
    [
        ("--thread 4", "--threads"),
        ("--flash-attention on", "--flash-attn"),
        ("--no-kv-unifie", "--no-kv-unified"),
        ("--threads 2 --n-predicts 4", "--n-predict"),
    ],
)
def test_what_it_does_not_know_is_refused_with_the_nearest(text: str, near: str) -> None:
    known, grammar = flags_in(LLAMA), grammar_of(recipe())
    with pytest.raises(BadArgument) as caught:
        check_known(parse_argv(text, "saved").arguments, known, grammar)
    assert near in caught.value.remedy
    assert "the model's saved options" in caught.value.message


def test_another_spelling_than_the_build_has_names_the_one_it_has() -> None:
    with pytest.raises(BadArgument, match="--tensor-parallel-size"):
        check_known(
            parse_argv("-tp 2", "request").arguments,
            {"--tensor-parallel-size", "--x", "--y"},
            grammar_of(recipe("vllm")),
        )


def test_a_value_may_be_attached_to_a_letter() -> None:
    known, grammar = {"--optimization-level", "--x"}, grammar_of(recipe("vllm"))
    check_known(parse_argv("-O3", "request").arguments, known, grammar)
    with pytest.raises(BadArgument):
        check_known(parse_argv("-P3", "request").arguments, known, grammar)


# ---- what would have fitted


@pytest.mark.parametrize(
    ("line", "tokens"),
    [
        (
            "(EngineCore pid=1) ValueError: To serve at least one request with the model's max "
            "seq len (131072), (16.0 GiB KV cache is needed, which is larger than the available "
            "KV cache memory (2.0 GiB). Based on the available memory, the estimated maximum "
            "model length is 16384. Try increasing `gpu_memory_utilization`",
            16384,
        ),
        (
            "ValueError: The model's max seq len (32768) is larger than the maximum number of "
            "tokens that can be stored in KV cache (29120). Try increasing",
            29120,
        ),
        ("ValueError: No available memory for the cache blocks.", None),
        ("the estimated maximum model length is 0. ", None),
    ],
)
def test_a_context_that_would_fit_is_found_in_the_last_words(line: str, tokens: int) -> None:
    retries = recipe("vllm").upstream.retry
    after = [f"frame {number}" for number in range(80)]
    assert fitting_context(retries, ["INFO", line, *after]) == tokens
    assert fitting_context(retries, after) is None
