# ruff: noqa: D103 - flags.toml says which flag each rule serves
"""The flags of `server.py`: reads `flags.toml` and holds the rules that are more than one field.

Names and meaning are those of llama-server. A rule changes a `CommonParams` of xllamacpp in place
and raises `Refused` for a value it cannot take.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import xllamacpp

Params = Any  # xllamacpp.CommonParams: the wheel has no type hints
Apply = Callable[[Params, Any], None]

MOST = 2**31 - 1
TRUTH = {"on": True, "true": True, "1": True, "off": False, "false": False, "0": False}
EXPERTS = r"\.ffn_\w+_(ch)?exps"


class Refused(Exception):
    """The command line cannot be obeyed."""


class Flag(NamedTuple):
    """One flag.

    Attributes:
        names: its spellings.
        negations: spellings that say the opposite.
        value: what `--help` calls its value. If empty it takes none, and `apply` is given True for
            one of the names and False for one of the negations.
        apply: changes the parameters.
    """

    names: tuple[str, ...]
    negations: tuple[str, ...]
    value: str
    apply: Apply


# ---- the table


def read_table() -> tuple[list[Flag], dict[str, str]]:
    """`flags.toml`: the flags, and for every flag we refuse the reason."""
    table = tomllib.loads(Path(__file__).with_name("flags.toml").read_text(encoding="utf-8"))
    impossible = table.pop("impossible")
    reasons = {name: why for why, names in impossible.items() for name in names.split()}
    readers = {"whole": whole, "real": real, "text": text, "switch": text, "choice": choice}
    flags = []
    for kind, rows in table.items():
        for spellings, row in rows.items():
            names, _, negations = spellings.partition("|")
            value, apply = own(row) if kind == "own" else readers[kind](row)
            if "chosen" in row:
                apply = remembering(apply, row["chosen"])
            value = "" if kind == "switch" else value
            flags.append(Flag(tuple(names.split()), tuple(negations.split()), value, apply))
    return flags, reasons


def assign(params: Params, path: str, value: object) -> None:
    """Set `params.a.b` for the path `a.b`."""
    *parents, field = path.split(".")
    for parent in parents:
        params = getattr(params, parent)
    setattr(params, field, value)


def whole(row: Mapping[str, Any]) -> tuple[str, Apply]:
    least, most = row.get("least", -MOST), row.get("most", MOST)
    return "N", lambda p, v: assign(p, row["field"], whole_of(v, least, most))


def real(row: Mapping[str, Any]) -> tuple[str, Apply]:
    return "N", lambda p, v: assign(p, row["field"], real_of(v))


def text(row: Mapping[str, Any]) -> tuple[str, Apply]:
    return "TEXT", lambda p, v: assign(p, row["field"], v)


def choice(row: Mapping[str, Any]) -> tuple[str, Apply]:
    options = members(row["enum"], row["words"])
    return "|".join(options), lambda p, v: assign(p, row["field"], one_of(v, options))


def own(row: Mapping[str, Any]) -> tuple[str, Apply]:
    apply: Apply = globals()[row["call"]]
    if row.get("file"):
        return row["value"], lambda p, v: apply(p, Path(v).read_text(encoding="utf-8"))
    return row.get("value", ""), apply


def remembering(apply: Apply, bit: str) -> Apply:
    """`apply`, which also notes that the user chose: the model's own value is not taken then."""
    config = xllamacpp.common_params_sampling_config
    mask = getattr(config, f"COMMON_PARAMS_SAMPLING_CONFIG_{bit}").value

    def apply_and_remember(params: Params, value: object) -> None:
        apply(params, value)
        params.sampling.user_sampling_config |= mask

    return apply_and_remember


def members(enum: str, words: str) -> dict[str, Any]:
    """Members of an enumeration of xllamacpp; `word=member` where the two names differ."""
    found = {}
    for pair in words.split():
        word, _, member = pair.partition("=")
        ending = "_" + re.sub(r"\W", "_", member or word).upper()
        prefix = enum.removesuffix("_strategy").upper()
        names = [m for m in getattr(xllamacpp, enum) if m.name.endswith(ending)]
        found[word] = min(names, key=lambda m: (prefix not in m.name, len(m.name)))
    return found


# ---- reading values


def whole_of(value: str, least: int = -MOST, most: int = MOST) -> int:
    try:
        number = int(value)
    except ValueError:
        raise Refused(f"'{value}' is not a whole number") from None
    if not least <= number <= most:
        raise Refused(f"{number} is not between {least} and {most}")
    return number


def real_of(value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise Refused(f"'{value}' is not a number") from None


def one_of(value: str, options: Mapping[str, Any]) -> Any:  # noqa: ANN401 - whatever they are
    if value not in options:
        raise Refused(f"'{value}' is not one of {', '.join(options)}")
    return options[value]


def listed(value: str) -> list[str]:
    return [part.strip() for part in value.split(",") if part.strip()]


# ---- flags with a rule of their own


def add_alias(params: Params, value: str) -> None:
    params.model_alias = {*params.model_alias, *listed(value)}  # a string would become letters


def set_tags(params: Params, value: str) -> None:
    params.model_tags = set(listed(value))


def set_host(params: Params, value: str) -> None:
    params.hostnames = listed(value)


def add_keys(params: Params, value: str) -> None:
    params.api_keys = [*params.api_keys, *listed(value)]


def add_key_lines(params: Params, content: str) -> None:
    lines = [line for line in content.splitlines() if line and not line.startswith("#")]
    params.api_keys = [*params.api_keys, *lines]


def set_timeout(params: Params, value: str) -> None:
    params.timeout_read = params.timeout_write = whole_of(value, 0)


def set_cors_origins(params: Params, value: str) -> None:
    params.cors_origins, params.cors_origins_explicit = value, True


def set_reranking(params: Params, _: object) -> None:
    params.embedding = True
    params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_RANK


def add_loras(params: Params, value: str) -> None:
    added = [xllamacpp.CommonAdapterLoraInfo(path, 1.0) for path in listed(value)]
    params.lora_adapters = [*params.lora_adapters, *added]


def add_scaled_loras(params: Params, value: str) -> None:
    for part in listed(value):
        path, colon, scale = part.rpartition(":")
        if not colon:
            raise Refused(f"'{part}' is not FILE:SCALE")
        added = xllamacpp.CommonAdapterLoraInfo(path, real_of(scale))
        params.lora_adapters = [*params.lora_adapters, added]


def set_device(_: Params, value: str) -> None:
    if value.lower() not in {"none", "cpu"}:
        raise Refused(f"there is no device '{value}': this engine computes on the processor only")


def set_gpu_layers(params: Params, value: str) -> None:
    params.n_gpu_layers = {"auto": -1, "all": -2}.get(value) or whole_of(value)


def set_draft_gpu_layers(params: Params, value: str) -> None:
    params.speculative.draft.n_gpu_layers = {"auto": -1, "all": -2}.get(value) or whole_of(value)


def set_tensor_split(params: Params, value: str) -> None:
    shares, room = [real_of(part) for part in listed(value)], len(params.tensor_split)
    params.tensor_split = (shares + [0.0] * room)[:room]


def add_tensor_override(params: Params, value: str) -> None:
    params.tensor_buft_overrides = ",".join(filter(None, [params.tensor_buft_overrides, value]))


def keep_experts(params: Params, _: object) -> None:
    add_tensor_override(params, EXPERTS + "=CPU")


def keep_some_experts(params: Params, value: str) -> None:
    for layer in range(whole_of(value, 0, 10_000)):
        add_tensor_override(params, rf"blk\.{layer}{EXPERTS}=CPU")


def set_fit(params: Params, value: str) -> None:
    params.fit_params = one_of(value, TRUTH)


def set_fit_target(params: Params, value: str) -> None:
    sizes = [whole_of(part, 0) * 1024**2 for part in listed(value)]
    old = params.fit_params_target
    params.fit_params_target = (sizes * len(old) if len(sizes) == 1 else sizes + old)[: len(old)]


def set_rope_scale(params: Params, value: str) -> None:
    if (factor := real_of(value)) <= 0:
        raise Refused(f"{value} is not above 0")
    params.rope_freq_scale = 1.0 / factor


def set_template(params: Params, content: str) -> None:
    params.chat_template = content


def add_template_kwargs(params: Params, value: str) -> None:
    try:
        given = json.loads(value)
    except ValueError as error:
        raise Refused(f"not JSON: {error}") from None
    if not isinstance(given, dict):
        raise Refused("not a JSON object")
    as_text = {key: json.dumps(item) for key, item in given.items()}
    params.default_template_kwargs = {**params.default_template_kwargs, **as_text}


def set_reasoning(params: Params, value: str) -> None:
    on = one_of(value, {**TRUTH, "auto": None})
    params.enable_reasoning = -1 if on is None else int(on)
    if on is not None:
        add_template_kwargs(params, json.dumps({"enable_thinking": on}))


def set_effort(params: Params, value: str) -> None:
    if value != "default":
        add_template_kwargs(params, json.dumps({"reasoning_effort": value}))


def keep_reasoning(params: Params, on: bool) -> None:  # noqa: FBT001 - called through the table
    params.preserve_reasoning_specified = True
    add_template_kwargs(params, json.dumps({"preserve_reasoning": on}))


def set_seed(params: Params, value: str) -> None:
    params.sampling.seed = whole_of(value, -1, 2**32 - 1) % 2**32


def set_samplers(params: Params, value: str) -> None:
    params.sampling.samplers = value
    if value and not params.sampling.samplers:
        raise Refused(f"'{value}' names no sampler")


def set_grammar(params: Params, value: str) -> None:
    user = xllamacpp.common_grammar_type.COMMON_GRAMMAR_TYPE_USER
    params.sampling.grammar = xllamacpp.CommonGrammar(user, value)


def add_speculation(params: Params, value: str) -> None:
    kinds = members(
        "common_speculative_type",
        "none draft-simple draft-eagle3 draft-mtp draft-dflash draft-dspark "
        "ngram-simple ngram-map-k ngram-map-k4v ngram-mod ngram-cache",
    )
    wanted = [one_of(word, kinds) for word in listed(value)]
    params.speculative.types = [*params.speculative.types, *wanted]


def say_everything(params: Params, _: object) -> None:
    params.verbosity = MOST
