"""What a checkpoint's `config.json` says about its cache: a pure reading of the usual spellings.

Only what decides how many bytes a token of context takes is read: layers and which of them look
back how far, heads, sizes, and what the model was trained for. What is not understood makes the
answer `None`, never a guess that somebody would plan with.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from lemonade.core.records import dataclass

Config = Mapping[str, object]

_NESTED: Final = ("text_config", "llm_config", "language_config", "thinker_config")
"""Where models of several senses keep what concerns text."""

_LONGEST: Final = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "seq_length",
    "model_max_length",
    "max_sequence_length",
    "max_target_positions",
)
_MOST_LAYERS: Final = 4096
"""Thirty times as many as any model has; what says more is damaged."""

_UNSCALED: Final = frozenset({"su", "longrope", "llama3", "default", "mrope"})
"""Ways to stretch positions that the declared maximum has in it already."""

_WINDOWED: Final = frozenset({"sliding_attention", "sliding_window", "local", "chunked_attention"})
_STATEFUL: Final = frozenset(
    {"linear_attention", "mamba", "mamba2", "conv", "recurrent", "rwkv", "gated_deltanet"}
)
_FULL: Final = frozenset({"full_attention", "attention", "global", "hybrid", "moe", "dense"})

_ASSUMED: Final[Mapping[str, Config]] = {
    # These publish only what differs from the defaults of their class.
    "gemma3_text": {
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "max_position_embeddings": 131072,
        "sliding_window_pattern": 6,
        "sliding_window": 4096,
    },
    "gemma2": {"sliding_window_pattern": 2, "sliding_window": 4096},
    "cohere2": {"sliding_window_pattern": 4, "sliding_window": 4096},
    "qwen3_next": {"full_attention_interval": 4},
    "qwen3_5_text": {"full_attention_interval": 4},
}


@dataclass(frozen=True, slots=True)
class CacheGroup:
    """Layers that keep the same of every token.

    Attributes:
        layers: how many they are.
        numbers: what each keeps of a token: keys and values, or the latent they are made from.
        window: how many tokens each looks back; 0 is all of them.
    """

    layers: int
    numbers: int
    window: int = 0


@dataclass(frozen=True, slots=True)
class ModelShape:
    """A model as far as memory goes.

    Attributes:
        layers: all of them, with those that keep no cache.
        heads: query heads.
        kv_heads: heads that are kept; 1 where a latent is.
        head_size: of a kept head; the latent's size where there is one.
        groups: the layers that keep a cache.
        longest: tokens it was trained for; `None` if it does not say.
        quantisation: `fp8`, `awq`, `gptq`, `compressed-tensors` ...; empty if none.
        dtype: as the checkpoint names it, or empty.
    """

    layers: int
    heads: int
    kv_heads: int
    head_size: int
    groups: tuple[CacheGroup, ...]
    longest: int | None
    quantisation: str
    dtype: str

    @property
    def numbers_per_token(self) -> int:
        """What a token takes while no window is full."""
        return sum(group.layers * group.numbers for group in self.groups)

    def cache_bytes(self, tokens: int, number_bytes: int, batched: int = 0) -> int:
        """What a context takes; layers with a window keep the batch in work beside it."""
        return sum(
            group.layers
            * group.numbers
            * number_bytes
            * (min(tokens, group.window + batched) if group.window else tokens)
            for group in self.groups
        )

    def fitting(self, budget_bytes: int, number_bytes: int, batched: int = 0) -> int | None:
        """The longest context that fits into so many bytes; `None` if any does."""
        most = self.longest or 1 << 30
        if self.cache_bytes(most, number_bytes, batched) <= budget_bytes:
            return None
        low, high = 0, most
        while low < high:
            middle = (low + high + 1) // 2
            if self.cache_bytes(middle, number_bytes, batched) <= budget_bytes:
                low = middle
            else:
                high = middle - 1
        return low


def quantisation_of(config: Config) -> str:
    """How the weights are quantised, in the engine's word for it; empty if they are not."""
    declared = _declared_quantisation(config)
    if declared is None:
        return ""
    method = declared.get("quant_method")
    if isinstance(method, str):
        return method.lower()
    producer = declared.get("producer")  # older ones of ModelOpt name themselves instead
    name = producer.get("name") if isinstance(producer, Mapping) else None
    return name.lower() if isinstance(name, str) and "quantization" in declared else ""


def is_quantised(config: Config) -> bool:
    """Whether it says anything about how the weights are quantised, understood or not."""
    return _declared_quantisation(config) is not None


def dtype_of(config: Config) -> str:
    """The type its numbers are kept in, as the checkpoint names it; empty if it does not say."""
    part = _text_part(config)
    dtype = part.get("torch_dtype") or part.get("dtype") or config.get("torch_dtype")
    dtype = dtype or config.get("dtype")
    return dtype if isinstance(dtype, str) else ""


def _declared_quantisation(config: Config) -> Config | None:
    for part in (config, _text_part(config)):
        for key in ("quantization_config", "compression_config"):
            declared = part.get(key)
            if isinstance(declared, Mapping):
                return declared
    return None


def read_shape(config: Config) -> ModelShape | None:
    """The shape of a model; `None` if the file does not say enough."""
    part = _with_defaults(_text_part(config))
    layers = _number(part, "num_hidden_layers", "n_layer", "num_layers", "n_layers")
    heads = _number(part, "num_attention_heads", "n_head", "n_heads") or 0
    if not layers or layers > _MOST_LAYERS:
        return None
    kept = _kept_heads(part, heads)
    if kept is None:
        return None
    kv_heads, head_size, numbers = kept
    groups = _groups(part, layers, numbers)
    if groups is None:
        return None
    return ModelShape(
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        head_size=head_size,
        groups=groups,
        longest=_longest(part),
        quantisation=quantisation_of(config),
        dtype=dtype_of(config),
    )


def _text_part(config: Config) -> Config:
    for key in _NESTED:
        nested = config.get(key)
        if isinstance(nested, Mapping):
            return _text_part(nested)
    return config


def _with_defaults(part: Config) -> Config:
    return {**_ASSUMED.get(str(part.get("model_type")), {}), **part}


def _kept_heads(part: Config, heads: int) -> tuple[int, int, int] | None:
    """Kept heads, their size, and the numbers a layer keeps of a token."""
    latent, positions = _number(part, "kv_lora_rank"), _number(part, "qk_rope_head_dim")
    if latent and positions:
        return 1, latent + positions, latent + positions
    hidden = _number(part, "hidden_size", "n_embd", "d_model")
    size = _number(part, "head_dim") or (hidden // heads if hidden and heads else None)
    kept = _number(part, "num_key_value_heads", "num_kv_heads", "n_head_kv") or heads
    if part.get("multi_query") is True and "num_kv_heads" not in part:
        kept = 1
    if not size or not kept:
        return None
    return kept, size, 2 * kept * size


# ---- which layers keep what


def _groups(part: Config, layers: int, numbers: int) -> tuple[CacheGroup, ...] | None:
    windows = _windows(part, layers)
    if windows is None:
        return None
    counts = Counter(window for window in windows if window is not None)
    return tuple(CacheGroup(count, numbers, window) for window, count in sorted(counts.items()))


def _windows(part: Config, layers: int) -> Sequence[int | None] | None:
    """How far each layer looks back: 0 all the way, `None` it keeps no cache."""
    window = 0 if part.get("use_sliding_window") is False else _number(part, "sliding_window") or 0
    for read in (_by_name, _by_pattern, _by_interval):
        found = read(part, layers, window)
        if found is not None:
            return found if len(found) == layers else None
    first_windowed = _number(part, "max_window_layers")
    if window and part.get("use_sliding_window") is True and first_windowed is not None:
        return [0 if at < first_windowed else window for at in range(layers)]
    return [window] * layers


def _by_name(part: Config, layers: int, window: int) -> list[int | None] | None:
    """`layer_types` and its kin: a word for each layer."""
    names = part.get("layer_types") or part.get("layers_block_type")
    if not isinstance(names, Sequence) or isinstance(names, str):
        return None
    chunk = _number(part, "attention_chunk_size") or 0
    found: list[int | None] = []
    for name in map(str, names[:layers]):
        if name in _WINDOWED:
            found.append(window or chunk)
        elif name in _STATEFUL:
            found.append(None)
        elif name in _FULL:
            found.append(0)
        else:
            return []
    return found


def _by_pattern(part: Config, layers: int, window: int) -> list[int | None] | None:
    """A letter for each layer, or the numbers of those with attention."""
    pattern = part.get("hybrid_override_pattern")
    if isinstance(pattern, str):
        return [0 if letter == "*" else None for letter in pattern]
    for key in ("attn_layer_indices", "full_attn_idxs"):
        numbers = part.get(key)
        if isinstance(numbers, Sequence) and not isinstance(numbers, str):
            return [0 if at in numbers else None for at in range(layers)]
    del window
    return None


def _by_interval(part: Config, layers: int, window: int) -> list[int | None] | None:
    """Every so manieth layer looks all the way back, the others less far or not at all."""
    rest: int | None = None
    first = -1
    every = _number(part, "full_attention_interval")
    if not every and (every := _number(part, "attn_layer_period")):
        first = (_number(part, "attn_layer_offset") or 0) - every
    if not every and window:
        every, rest = _number(part, "sliding_window_pattern"), window
    if not every:
        return None
    return [0 if (at - first) % every == 0 else rest for at in range(layers)]


# ---- how long it may become


def _longest(part: Config) -> int | None:
    declared = [value for key in _LONGEST if (value := _number(part, key))]
    if not declared:
        return None
    scaling = part.get("rope_scaling") or part.get("rope_parameters")
    if not isinstance(scaling, Mapping):
        return min(declared)
    kind = scaling.get("rope_type") or scaling.get("type")
    factor = scaling.get("factor", 1)
    stretched = isinstance(factor, int | float) and not isinstance(factor, bool) and factor > 1
    if not stretched or kind in _UNSCALED or "gemma3" in str(part.get("model_type")):
        return min(declared)
    assert isinstance(factor, int | float)
    base = min(declared)
    if kind == "yarn":
        base = _number(scaling, "original_max_position_embeddings") or base
    return int(base * factor)


def _number(part: Config, *keys: str) -> int | None:
    for key in keys:
        value = part.get(key)
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return value
    return None
