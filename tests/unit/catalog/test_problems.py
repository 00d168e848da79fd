"""What engines print when they die, and what people are told then."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from lemonade.catalog import Catalog, sources
from lemonade.core.process import Diagnosis, KnownProblem
from lemonade.supervisor.diagnosis import diagnose

CATALOG = Catalog.load(sources({}, Path("/nonexistent")))

LLAMACPP = (
    ("error: invalid argument: --bogus", "the argument --bogus"),
    ("E llama_model_load: error loading model: unknown model architecture: 'lxama'", "'lxama'"),
    ("E gguf_init_from_reader: invalid magic characters: 'XXXX', expected 'GGUF'", "damaged"),
    ("error loading model: tensor 'blk.0.attn_v.weight' data is not within the file bounds, "
     "model is corrupted or incomplete", "damaged"),
    ("E gguf_init_from_file: failed to open GGUF file '/m/x.gguf' (Permission denied)",
     "cannot open /m/x.gguf: Permission denied"),
    ("failed to initialize the context: failed to allocate buffer for kv cache", "enough memory"),
    ("ggml_cuda: cudaMalloc failed: out of memory", "enough memory"),
    ("E cmn  common_init_: failed to load lora adapter '/a.gguf'", "adapter /a.gguf"),
    ("E srv start: couldn't bind HTTP server socket, hostname: 1.2.3.4, port: 22", "its port"),
    ("llama-server: error while loading shared libraries: libgomp.so.1: cannot open shared "
     "object file", "library libgomp.so.1 "),
)  # fmt: skip

VLLM = (
    ("ValueError: To serve at least one request with the model's max seq len (40960), (1.25 GiB "
     "KV cache is needed, which is larger than the available KV cache memory (1.0 GiB). Based on "
     "the available memory, the estimated maximum model length is 32752. Try", "too long"),
    ("ValueError: No available memory for the cache blocks. Try increasing", "no memory left"),
    ("ValueError: Free memory on device cuda:0 (3.2/23.6 GiB) on startup is less than desired",
     "free memory"),
    ("torch.OutOfMemoryError: HIP out of memory. Tried to allocate 2.00 GiB.", "free memory"),
    ("Unable to open /dev/kfd read-write: Permission denied", "may not open the GPU"),
    ("Memory access fault by GPU node-1 (Agent handle: 0x55) on address 0x7f", "has faulted"),
    ("ValueError: Model architectures ['LemonForCausalLM'] are not supported for now.",
     "['LemonForCausalLM']"),
    ("ImportError: cannot import name 'x' from 'huggingface_hub' (/home/me/.local/lib)",
     "outside the engine's own environment"),
    ("RuntimeError: Failed to find C compiler. Please specify via CC", "no C compiler"),
    ("Please pass the argument `trust_remote_code=True` to allow custom code", "program code"),
    ("ValueError: The quantization method fp8 is not supported for the current GPU. Minimum "
     "capability: 89", "FP8"),
    ("DeepGEMM warmup (experts): 12%|#2   | 91/748 [03:20<23:59,  2.19s/it]", "compiling FP8"),
    ("[aiter] start build [module_gemm_a8w8_blockscale] under /tmp/x", "compiling FP8"),
    ("safetensors_rust.SafetensorError: Error while deserializing header: HeaderTooSmall",
     "damaged"),
    ("api_server.py: error: unrecognized arguments: --bogus 3", "argument --bogus 3"),
)  # fmt: skip


def problems(recipe: str) -> tuple[KnownProblem, ...]:
    return tuple(
        KnownProblem(one.pattern, one.cause, one.fix, one.signal)
        for one in CATALOG.recipes[recipe].problem
    )


@pytest.mark.parametrize(
    ("recipe", "line", "words"),
    [("llamacpp", *row) for row in LLAMACPP] + [("vllm", *row) for row in VLLM],
)
def test_known_words(recipe: str, line: str, words: str) -> None:
    found = diagnose(problems(recipe), ["loading", line, "exiting"], None)
    assert found is not None
    assert words in found.cause
    assert "{" not in found.cause + found.fix, "everything in braces is filled"


def test_the_context_that_would_fit_is_named() -> None:
    found = diagnose(problems("vllm"), [VLLM[0][0]], None)
    assert found is not None
    assert "--ctx-size 32752" in found.fix


@pytest.mark.parametrize("recipe", ["llamacpp", "vllm"])
def test_signals_tell_too(recipe: str) -> None:
    found = diagnose(problems(recipe), ["loading"], signal.SIGILL)
    assert found is not None
    assert "instructions" in found.cause
    killed = diagnose(problems(recipe), [], signal.SIGKILL)
    assert killed is not None
    assert "memory" in killed.cause


@pytest.mark.parametrize(
    "line",
    ["0.00.007.958 W llama_context: n_ctx_seq (2000) > n_ctx_train (96)", "loading model", "",
     "Using FP8 weights", "INFO [gpu_worker] Free memory on device cuda:0: 20 GiB"],
)  # fmt: skip
def test_other_words_mean_nothing(line: str) -> None:
    for recipe in ("llamacpp", "vllm"):
        assert diagnose(problems(recipe), [line], None) is None


def test_a_sentence_may_have_braces_of_its_own() -> None:
    known = KnownProblem("no (?P<what>.*)", 'No {what}: {other} {"a": 1}', "")
    assert diagnose([known], ["no sugar"], None) == Diagnosis('No sugar: {other} {"a": 1}', "")


def test_what_was_printed_long_ago_is_not_looked_at() -> None:
    known = KnownProblem("sour", "It is sour.", "")
    assert diagnose([known], ["sour", *["fine"] * 200], None) is None
