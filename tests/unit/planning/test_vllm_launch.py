"""vLLM's command line: its order, what the device class decides, and the context."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lemonade.catalog import BackendSpec
from lemonade.core.bundle import Bundle
from lemonade.core.errors import BadOption, ReservedArgument
from lemonade.hardware.facts import Gpu, Machine
from lemonade.planning import EffectiveOptions, plan_command, resolve_options
from lemonade.planning.command import CommandPlan
from lemonade.planning.memory import bytes_of
from tests.unit.planning.examples import MACHINE, backend, facts, model, recipe
from tests.unit.planning.test_families import registry
from tests.unit.planning.test_transformers_config import LLAMA_3_1_8B, QWEN_2_5_7B

VLLM = recipe("vllm")
GIB = 1 << 30
ANY_GPU = [{"os": ["linux"], "gpu": ["gfx*", "sm_*"]}]


def on_any_gpu(name: str) -> BackendSpec:
    """The backend as if it ran on every GPU: the policy is asked, not the support matrix."""
    spec = backend(name)
    rows = tuple(type(spec.runs_on[0]).model_validate(row) for row in ANY_GPU)
    return spec.model_copy(update={"runs_on": rows})


def gpu(family: str, *, gib: int = 24, integrated: bool = False) -> Gpu:
    vendor = "amd" if family.startswith("gfx") else "nvidia"
    shared = gib * GIB if integrated else 0
    return Gpu(vendor, "a GPU", family, integrated, 0 if integrated else gib * GIB, shared)  # type: ignore[arg-type]


def machine(*gpus: Gpu) -> Machine:
    return replace(MACHINE, gpus=gpus)


def options(text: str = "", origin: str = "request", **more: Any) -> EffectiveOptions:
    layers: dict[str, Any] = {
        "request": {},
        "saved": {},
        "declared": {},
        "section": {},
        "variant": None,
        "ctx_size": -1,
    }
    if text:
        layers[origin] = {"vllm_args": text}
    if "ctx_size" in more:
        where = more.pop("ctx_from", "request")
        if where == "config":
            layers["ctx_size"] = more.pop("ctx_size")
        else:
            layers[where] = {**layers[where], "ctx_size": more.pop("ctx_size")}
    return resolve_options(VLLM, **(layers | more))


def plan(*gpus: Gpu, where: str = "vllm-rocm", **changes: Any) -> CommandPlan:
    given: dict[str, Any] = {
        "model": model(name="Tiny", recipe="vllm", checkpoint="owner/tiny"),
        "recipe": VLLM,
        "backend": on_any_gpu(where) if gpus or where != "vllm-cpu" else backend(where),
        "bundle": Bundle(backend(where).backend_id, "1", Path("/b"), ("/b/bin/vllm-server",)),
        "files": {"main": (Path("/models/tiny"),)},
        "machine": machine(*gpus),
        "options": options(),
    }
    return plan_command(facts(**(given | changes)))


def flag(command: CommandPlan, name: str) -> str | None:
    """Its value; `on` for none; `None` if it is not given."""
    found = [a for a in command.arguments.arguments if a.flag == name]
    assert len(found) <= 1, f"{name} is given twice"
    return None if not found else " ".join(found[0].values) or "on"


# ---- the whole command line


def test_the_order_is_the_one_that_was_always_there() -> None:
    family = registry(
        {
            "f": {
                "checkpoint_regex": ".",
                "args": "--enable-auto-tool-choice --tool-call-parser hermes",
                "speculative_config": {"method": "mtp", "num_speculative_tokens": 1},
            }
        },
        {},
    ).match("m", "c")
    config = LLAMA_3_1_8B | {"quantization_config": {"quant_method": "awq"}}
    command = plan(
        gpu("gfx1151", gib=96, integrated=True),
        config=config,
        options=options("--max-num-seqs 4", family=family, ctx_size=8192),
    )
    assert command.words == (
        *("/b/bin/vllm-server", "--model", "/models/tiny", "--port", "40123"),
        *("--host", "127.0.0.1", "--served-model-name", "Tiny", "--enforce-eager"),
        *("--max-model-len", "8192", "--quantization", "awq", "--dtype", "float16"),
        *("--enable-prefix-caching", "--kv-cache-memory-bytes", "4G", "--speculative-config"),
        '{"method":"mtp","num_speculative_tokens":1}',
        *("--enable-auto-tool-choice", "--tool-call-parser", "hermes", "--max-num-seqs", "4"),
    )


def test_prefix_caching_is_given_once() -> None:
    assert flag(plan(gpu("gfx942")), "--enable-prefix-caching") == "on"
    asked = plan(gpu("gfx942"), options=options("--enable-prefix-caching"))
    assert flag(asked, "--enable-prefix-caching") == "on"
    assert len(asked.notices) == 1
    with pytest.raises(ReservedArgument):
        options("--no-enable-prefix-caching")


def test_reserved_flags_never_arrive() -> None:
    with pytest.raises(ReservedArgument):
        plan(gpu("gfx942"), options=options("--host 0.0.0.0"))


# ---- the device class


@pytest.mark.parametrize(
    ("family", "integrated", "args", "eager", "capped", "awq"),
    [
        ("gfx1151", True, "", True, True, True),
        ("gfx1100", False, "", True, True, True),
        ("gfx1201", False, "", True, True, True),
        ("gfx942", False, "", False, False, False),
        ("gfx950", False, "", False, False, False),
        ("gfx90a", False, "", False, False, False),
        ("gfx942", False, "--gpu-memory-utilization 0.5", False, False, False),
        ("gfx90c", True, "", True, True, True),
        ("sm_80", False, "", False, False, False),
        ("sm_90", False, "", False, False, False),
        ("sm_100", False, "", False, False, False),
        ("sm_89", False, "", True, True, False),
        ("gfx1100", False, "--gpu-memory-utilization 0.5", True, False, True),
        ("gfx1100", False, "--kv-cache-memory-bytes 2G", True, False, True),
        ("gfx1100", False, "--no-enforce-eager", False, True, True),
        ("gfx942", False, "--enforce_eager --enforce-eager", True, False, False),
    ],
)
def test_the_device_class_decides(
    family: str, integrated: bool, args: str, eager: bool, capped: bool, awq: bool
) -> None:
    command = plan(
        gpu(family, gib=64, integrated=integrated),
        config=LLAMA_3_1_8B | {"quantization_config": {"quant_method": "awq"}},
        options=options(args, ctx_size=8192),
    )
    assert (flag(command, "--enforce-eager") == "on") is eager
    ours = [a for a in command.arguments.arguments if a.origin == "cache-cap"]
    assert bool(ours) is capped
    assert (flag(command, "--quantization") == "awq") is awq
    assert (flag(command, "--dtype") == "float16") is awq


def test_an_unknown_gpu_is_started_carefully() -> None:
    command = plan(where="vllm-rocm")
    assert flag(command, "--enforce-eager") == "on"
    assert flag(command, "--kv-cache-memory-bytes") == "4G"


@pytest.mark.parametrize(
    ("args", "quantisation", "dtype"),
    [
        ("", "awq", "float16"),
        ("--quantization gptq", "gptq", None),
        ("-q awq", None, "float16"),
        ("--dtype bfloat16", "awq", "bfloat16"),
    ],
)
def test_who_names_a_kernel_or_a_type_decides(
    args: str, quantisation: str | None, dtype: str | None
) -> None:
    config = LLAMA_3_1_8B | {"quantization_config": {"quant_method": "awq"}}
    command = plan(gpu("gfx1100"), config=config, options=options(args, ctx_size=1024))
    assert flag(command, "--quantization") == quantisation
    assert flag(command, "--dtype") == dtype


@pytest.mark.parametrize("method", ["fp8", "gptq", "compressed-tensors"])
def test_other_quantisations_are_left_to_the_engine(method: str) -> None:
    config = LLAMA_3_1_8B | {"quantization_config": {"quant_method": method}}
    command = plan(gpu("gfx1100"), config=config)
    assert flag(command, "--quantization") is None
    assert flag(command, "--dtype") is None


def test_a_processor_is_started_eagerly_and_nothing_else() -> None:
    command = plan(where="vllm-cpu", config=QWEN_2_5_7B)
    assert flag(command, "--enforce-eager") == "on"
    assert flag(command, "--kv-cache-memory-bytes") is None
    compiled = plan(where="vllm-cpu", options=options("--no-enforce-eager"))
    assert flag(compiled, "--enforce-eager") is None


def test_a_rule_says_why() -> None:
    command = plan(gpu("gfx1151", integrated=True))
    (eager,) = [a for a in command.arguments.arguments if a.flag == "--enforce-eager"]
    assert eager.origin == "eager-by-device"
    assert eager.because.endswith(".")


def test_a_context_says_who_chose_it() -> None:
    def why(command: CommandPlan) -> str:
        (found,) = [a for a in command.arguments.arguments if a.flag == "--max-model-len"]
        return found.because

    def planned(**more: Any) -> CommandPlan:
        return plan(where="vllm-cpu", config=QWEN_2_5_7B, options=options(**more))

    assert why(planned(ctx_size=512)) == "Option 'ctx_size' of the request."
    assert why(planned(ctx_size=512, ctx_from="saved")) == (
        "Option 'ctx_size' of the model's saved options."
    )
    nobody = planned()
    assert why(nobody) == nobody.context.because
    left = planned(ctx_size=-1)
    assert why(left) == left.context.because


# ---- several GPUs


@pytest.mark.parametrize(
    ("count", "gib", "weights", "args", "expected"),
    [
        (2, 24, 16, "", None),
        (2, 24, 30, "", "2"),
        (4, 24, 30, "", "2"),
        (4, 24, 60, "", "4"),
        (3, 24, 60, "", None),  # 32 heads cannot be dealt to three
        (2, 24, 100, "", None),
        (1, 24, 30, "", None),
        (4, 24, 30, "-pp 2", None),
        (4, 24, 16, "--tensor-parallel-size 4", "4"),
        (2, 24, 0, "", None),
    ],
)
def test_a_model_is_shared_by_as_few_gpus_as_hold_it(
    count: int, gib: int, weights: int, args: str, expected: str | None
) -> None:
    command = plan(
        *[gpu("gfx942", gib=gib) for _ in range(count)],
        config=LLAMA_3_1_8B,
        weights_bytes=weights * GIB,
        options=options(args, ctx_size=1024),
    )
    assert flag(command, "--tensor-parallel-size") == expected


def test_layers_are_dealt_out_where_heads_cannot_be() -> None:
    odd = LLAMA_3_1_8B | {"num_attention_heads": 25, "num_key_value_heads": 5}
    gpus = [gpu("gfx942", gib=24) for _ in range(4)]
    command = plan(*gpus, config=odd, weights_bytes=30 * GIB, options=options(ctx_size=1024))
    assert flag(command, "--tensor-parallel-size") is None
    assert flag(command, "--pipeline-parallel-size") == "2"
    assert command.context.budget_bytes is not None
    whose = plan(*gpus, config=odd, weights_bytes=30 * GIB, options=options("-tp 5"))
    assert flag(whose, "--pipeline-parallel-size") is None
    shallow = odd | {"num_hidden_layers": 1}
    assert (
        flag(plan(*gpus, config=shallow, weights_bytes=30 * GIB), "--pipeline-parallel-size")
        is None
    )


def test_unequal_gpus_do_not_share() -> None:
    command = plan(
        gpu("gfx942", gib=24), gpu("gfx942", gib=48), config=LLAMA_3_1_8B, weights_bytes=30 * GIB
    )
    assert flag(command, "--tensor-parallel-size") is None


# ---- the context


def cpu_plan(space: str = "", **changes: Any) -> CommandPlan:
    environ = {"PATH": "/usr/bin"} | ({"VLLM_CPU_KVCACHE_SPACE": space} if space else {})
    return plan(where="vllm-cpu", **({"config": LLAMA_3_1_8B, "environ": environ} | changes))


@pytest.mark.parametrize(
    ("space", "config", "tokens"),
    [
        ("", LLAMA_3_1_8B, 16384),  # two gibibytes of 128 KiB each
        ("4", LLAMA_3_1_8B, 32768),
        ("64", LLAMA_3_1_8B, 131072),
        ("", QWEN_2_5_7B, 32768),
        ("1", QWEN_2_5_7B, 18688),
    ],
)
def test_on_a_processor_the_context_fills_the_cache(
    space: str, config: dict[str, Any], tokens: int
) -> None:
    command = cpu_plan(space, config=config)
    assert flag(command, "--max-model-len") == str(tokens)
    context = command.context
    assert context.cache_bytes is not None
    assert context.budget_bytes is not None
    assert context.cache_bytes <= context.budget_bytes


def test_what_was_chosen_is_honoured() -> None:
    assert flag(cpu_plan(options=options(ctx_size=2048)), "--max-model-len") == "2048"


def test_more_than_the_model_can_do_is_refused_with_numbers() -> None:
    with pytest.raises(BadOption, match=r"262144 tokens.*at most 131072"):
        cpu_plan("900", options=options(ctx_size=262144))


def test_more_than_the_cache_holds_is_refused_with_numbers() -> None:
    with pytest.raises(BadOption) as caught:
        cpu_plan(options=options(ctx_size=32768))
    message = str(caught.value)
    for part in ("32768", "4.3 GB", "2.1 GB", "16384", "VLLM_CPU_KVCACHE_SPACE"):
        assert part in message, message
    assert caught.value.facts["fitting"] == 16384


def test_an_8_bit_cache_holds_twice_as_much() -> None:
    command = cpu_plan(options=options("--kv-cache-dtype fp8_e5m2"))
    assert flag(command, "--max-model-len") == "32768"


def test_on_a_processor_a_size_as_an_argument_takes_the_defaults_place() -> None:
    command = cpu_plan(options=options("--kv-cache-memory-bytes 1G"))
    assert flag(command, "--max-model-len") == "8192"
    assert "VLLM_CPU_KVCACHE_SPACE" not in {v.name for v in command.environment}
    # The engine follows the variable where both are there, so it is what is planned with.
    both = cpu_plan("4", options=options("--kv-cache-memory-bytes 1G"))
    assert flag(both, "--max-model-len") == "32768"


def test_a_context_for_all_models_gives_way() -> None:
    command = cpu_plan(options=options(ctx_size=32768, ctx_from="config"))
    assert flag(command, "--max-model-len") == "16384"
    assert "gives way" in command.notices[0]
    longer = cpu_plan("900", options=options(ctx_size=200000, ctx_from="config"))
    assert flag(longer, "--max-model-len") == "131072"


def test_whoever_stretches_a_model_may_ask_for_more() -> None:
    stretched = options("--hf-overrides '{\"rope_scaling\": {}}'", ctx_size=200000)
    assert flag(cpu_plan("900", options=stretched), "--max-model-len") == "200000"


def test_on_a_gpu_weights_come_first() -> None:
    command = plan(
        gpu("gfx1100", gib=24), config=LLAMA_3_1_8B, weights_bytes=15 * GIB, options=options()
    )
    tokens = int(flag(command, "--max-model-len") or 0)
    left = int(24 * GIB * 0.9) - 15 * GIB - 3 * GIB // 2
    assert tokens == left // (128 * 1024) // 128 * 128
    assert flag(command, "--kv-cache-memory-bytes") is not None
    cap = bytes_of(flag(command, "--kv-cache-memory-bytes") or "")
    assert cap is not None
    assert tokens * 128 * 1024 <= cap <= left


def test_an_estimate_refuses_nobody() -> None:
    command = plan(
        gpu("gfx1100", gib=24),
        config=LLAMA_3_1_8B,
        weights_bytes=15 * GIB,
        options=options(ctx_size=131072),
    )
    assert flag(command, "--max-model-len") == "131072"
    assert "estimate" in command.notices[0]
    assert flag(command, "--kv-cache-memory-bytes") is None


def test_a_cache_of_a_given_size_is_certain() -> None:
    with pytest.raises(BadOption, match="--kv-cache-memory-bytes"):
        plan(
            gpu("gfx1100"),
            config=LLAMA_3_1_8B,
            options=options("--kv-cache-memory-bytes 1G", ctx_size=16384),
        )


def test_what_the_engine_said_holds() -> None:
    command = cpu_plan("900", context_limit=5000)
    assert flag(command, "--max-model-len") == "5000"


def test_without_a_readable_config_the_engine_decides() -> None:
    assert flag(cpu_plan(config=None), "--max-model-len") is None
    assert flag(cpu_plan(config={"model_type": "new"}), "--max-model-len") is None
    chosen = cpu_plan(config=None, options=options(ctx_size=777))
    assert flag(chosen, "--max-model-len") == "777"


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4G", 4 << 30),
        ("4g", 4 * 10**9),
        ("512M", 512 << 20),
        ("67108864", 67108864),
        ("1.5G", 3 << 29),
        ("4GiB", 4 << 30),
        ("much", None),
        ("", None),
    ],
)
def test_sizes_as_the_engine_reads_them(text: str, size: int | None) -> None:
    assert bytes_of(text) == size
