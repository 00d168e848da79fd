"""What well-known checkpoints say about their cache, and what is too strange to be read."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lemonade.planning.transformers_config import quantisation_of, read_shape

KIB = 1024

LLAMA_3_1_8B = {
    "model_type": "llama",
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "num_hidden_layers": 32,
    "max_position_embeddings": 131072,
    "rope_scaling": {
        "rope_type": "llama3",
        "factor": 8.0,
        "original_max_position_embeddings": 8192,
    },
    "torch_dtype": "bfloat16",
}
QWEN_2_5_7B = {
    "model_type": "qwen2",
    "hidden_size": 3584,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "num_hidden_layers": 28,
    "max_position_embeddings": 32768,
    "sliding_window": 131072,
    "use_sliding_window": False,
    "max_window_layers": 28,
}
QWEN_3_30B_A3B = {
    "model_type": "qwen3_moe",
    "hidden_size": 2048,
    "head_dim": 128,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "num_hidden_layers": 48,
    "max_position_embeddings": 40960,
    "use_sliding_window": False,
    "num_experts": 128,
}
GEMMA_2_9B = {
    "model_type": "gemma2",
    "hidden_size": 3584,
    "head_dim": 256,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "num_hidden_layers": 42,
    "max_position_embeddings": 8192,
    "sliding_window": 4096,
}
GEMMA_3_4B = {
    "model_type": "gemma3",
    "text_config": {
        "model_type": "gemma3_text",
        "hidden_size": 2560,
        "num_hidden_layers": 34,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
        "sliding_window": 1024,
    },
    "vision_config": {"num_hidden_layers": 27, "num_attention_heads": 16},
}
DEEPSEEK_V2_LITE = {
    "model_type": "deepseek_v2",
    "hidden_size": 2048,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "num_hidden_layers": 27,
    "kv_lora_rank": 512,
    "qk_rope_head_dim": 64,
    "max_position_embeddings": 163840,
    "rope_scaling": {
        "type": "yarn",
        "factor": 40,
        "original_max_position_embeddings": 4096,
    },
}
DEEPSEEK_V3 = DEEPSEEK_V2_LITE | {
    "model_type": "deepseek_v3",
    "num_attention_heads": 128,
    "num_hidden_layers": 61,
    "quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]},
}
PHI_3_MINI_4K = {
    "model_type": "phi3",
    "hidden_size": 3072,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "num_hidden_layers": 32,
    "max_position_embeddings": 4096,
    "sliding_window": 2047,
}
PHI_4 = {
    "model_type": "phi3",
    "hidden_size": 5120,
    "num_attention_heads": 40,
    "num_key_value_heads": 10,
    "num_hidden_layers": 40,
    "max_position_embeddings": 16384,
    "sliding_window": None,
}
MISTRAL_7B_V0_1 = {
    "model_type": "mistral",
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "num_hidden_layers": 32,
    "max_position_embeddings": 32768,
    "sliding_window": 4096,
}
HYBRID = {
    "model_type": "qwen3_5",
    "text_config": {
        "model_type": "qwen3_5_text",
        "hidden_size": 1024,
        "head_dim": 256,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "num_hidden_layers": 24,
        "layer_types": (["linear_attention"] * 3 + ["full_attention"]) * 6,
        "max_position_embeddings": 262144,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000000},
    },
}
GPT_OSS_20B = {
    "model_type": "gpt_oss",
    "hidden_size": 2880,
    "head_dim": 64,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "num_hidden_layers": 24,
    "layer_types": ["sliding_attention", "full_attention"] * 12,
    "sliding_window": 128,
    "max_position_embeddings": 131072,
    "rope_scaling": {
        "rope_type": "yarn",
        "factor": 32.0,
        "original_max_position_embeddings": 4096,
    },
    "quantization_config": {"quant_method": "mxfp4"},
}
JAMBA = {
    "model_type": "jamba",
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "num_hidden_layers": 32,
    "attn_layer_period": 8,
    "attn_layer_offset": 4,
    "max_position_embeddings": 262144,
}
NEMOTRON_H = {
    "model_type": "nemotron_h",
    "hidden_size": 4096,
    "head_dim": 128,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "num_hidden_layers": 8,
    "hybrid_override_pattern": "M-M-M*M-",
    "max_position_embeddings": 8192,
}


@pytest.mark.parametrize(
    ("config", "token_bytes", "longest", "groups"),
    [
        pytest.param(LLAMA_3_1_8B, 128 * KIB, 131072, [(32, 0)], id="Llama 3.1 8B"),
        pytest.param(QWEN_2_5_7B, 56 * KIB, 32768, [(28, 0)], id="Qwen2.5 7B"),
        pytest.param(QWEN_3_30B_A3B, 96 * KIB, 40960, [(48, 0)], id="Qwen3 30B A3B"),
        pytest.param(GEMMA_2_9B, 336 * KIB, 8192, [(21, 0), (21, 4096)], id="Gemma 2 9B"),
        pytest.param(GEMMA_3_4B, 136 * KIB, 131072, [(5, 0), (29, 1024)], id="Gemma 3 4B"),
        pytest.param(DEEPSEEK_V2_LITE, 27 * 1152, 163840, [(27, 0)], id="DeepSeek V2 Lite"),
        pytest.param(DEEPSEEK_V3, 61 * 1152, 163840, [(61, 0)], id="DeepSeek V3"),
        pytest.param(PHI_3_MINI_4K, 384 * KIB, 4096, [(32, 2047)], id="Phi 3 mini"),
        pytest.param(PHI_4, 200 * KIB, 16384, [(40, 0)], id="Phi 4"),
        pytest.param(MISTRAL_7B_V0_1, 128 * KIB, 32768, [(32, 4096)], id="Mistral 7B v0.1"),
        pytest.param(HYBRID, 12 * KIB, 262144, [(6, 0)], id="Qwen3.5, hybrid"),
        pytest.param(GPT_OSS_20B, 48 * KIB, 131072, [(12, 0), (12, 128)], id="gpt-oss 20B"),
        pytest.param(JAMBA, 16 * KIB, 262144, [(4, 0)], id="Jamba"),
        pytest.param(NEMOTRON_H, 4 * KIB, 8192, [(1, 0)], id="Nemotron H"),
    ],
)
def test_known_architectures(
    config: dict[str, Any], token_bytes: int, longest: int, groups: list[tuple[int, int]]
) -> None:
    shape = read_shape(config)
    assert shape is not None
    assert shape.numbers_per_token * 2 == token_bytes
    assert shape.longest == longest
    assert [(group.layers, group.window) for group in shape.groups] == groups


def test_what_36_layers_need_for_32768_tokens() -> None:
    shape = read_shape(
        {"num_hidden_layers": 36, "num_attention_heads": 32, "hidden_size": 4096}
        | {"num_key_value_heads": 8, "max_position_embeddings": 40960}
    )
    assert shape is not None
    assert shape.cache_bytes(32768, 2) == 36 * 8 * 128 * 2 * 2 * 32768  # 4.5 GiB
    assert shape.fitting(4 << 30, 2) == (4 << 30) // (144 * KIB)
    assert shape.fitting(6 << 30, 2) is None


def test_a_window_bounds_what_a_layer_keeps() -> None:
    shape = read_shape(MISTRAL_7B_V0_1)
    assert shape is not None
    full = 128 * KIB
    assert shape.cache_bytes(4096, 2) == 4096 * full
    assert shape.cache_bytes(32768, 2) == 4096 * full
    assert shape.cache_bytes(32768, 2, batched=2048) == 6144 * full
    assert shape.fitting(4096 * full, 2) is None


@pytest.mark.parametrize(
    ("scaling", "longest"),
    [
        (None, 4096),
        ({"type": "linear", "factor": 4}, 16384),
        ({"rope_type": "dynamic", "factor": 2.0}, 8192),
        (
            {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768},
            131072,
        ),
        ({"rope_type": "longrope", "factor": 32}, 4096),
        ({"type": "mrope", "mrope_section": [16, 24, 24]}, 4096),
        ({"rope_type": "linear", "factor": "four"}, 4096),
        ("linear", 4096),
    ],
)
def test_stretched_positions(scaling: object, longest: int) -> None:
    shape = read_shape(LLAMA_3_1_8B | {"max_position_embeddings": 4096, "rope_scaling": scaling})
    assert shape is not None
    assert shape.longest == longest


@pytest.mark.parametrize(
    ("config", "method"),
    [
        ({"quantization_config": {"quant_method": "awq", "bits": 4}}, "awq"),
        ({"quantization_config": {"quant_method": "gptq"}}, "gptq"),
        ({"quantization_config": {"quant_method": "compressed-tensors"}}, "compressed-tensors"),
        ({"text_config": {"quantization_config": {"quant_method": "fp8"}}}, "fp8"),
        ({"compression_config": {"quant_method": "FP8"}}, "fp8"),
        ({"quantization_config": {"bits": 4}}, ""),
        ({"quantization_config": "awq"}, ""),
        (
            {
                "quantization_config": {
                    "producer": {"name": "modelopt", "version": "0.29"},
                    "quantization": {"quant_algo": "FP8"},
                }
            },
            "modelopt",
        ),
        ({"quantization_config": {"producer": {"name": "modelopt"}}}, ""),
        ({"quantization_config": {"producer": "modelopt", "quantization": {}}}, ""),
        ({}, ""),
    ],
)
def test_how_weights_are_quantised(config: dict[str, Any], method: str) -> None:
    assert quantisation_of(config) == method


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"num_hidden_layers": "32"},
        {"num_hidden_layers": 4},
        {"num_hidden_layers": 4, "hidden_size": 64},
        LLAMA_3_1_8B | {"layer_types": ["full_attention"] * 31 + ["something_new"]},
        LLAMA_3_1_8B | {"layer_types": ["full_attention"] * 31},
        NEMOTRON_H | {"hybrid_override_pattern": "M*"},
    ],
)
def test_what_is_not_understood_is_not_guessed(config: dict[str, Any]) -> None:
    assert read_shape(config) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-10, 10**7) | st.floats(allow_nan=True) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(sorted({*GPT_OSS_20B, *JAMBA, "text_config"})), JSON))
def test_no_file_is_too_strange(changes: dict[str, Any]) -> None:
    shape = read_shape(LLAMA_3_1_8B | changes)
    quantisation_of(changes)
    if shape is not None:
        assert shape.cache_bytes(1000, 2) >= 0


@given(st.integers(0, 1 << 36), st.sampled_from([LLAMA_3_1_8B, GEMMA_3_4B, MISTRAL_7B_V0_1]))
def test_what_fits_fits_and_one_more_does_not(budget: int, config: dict[str, Any]) -> None:
    shape = read_shape(config)
    assert shape is not None
    most = shape.fitting(budget, 2, 2048)
    if most is None:
        assert shape.longest is not None
        assert shape.cache_bytes(shape.longest, 2, 2048) <= budget
    else:
        assert shape.cache_bytes(most, 2, 2048) <= budget
        assert shape.cache_bytes(most + 1, 2, 2048) > budget
