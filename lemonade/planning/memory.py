"""What an engine's cache may take: of a size somebody gave, or of the devices it computes on."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from math import prod
from typing import Final

from lemonade.core.units import render_size
from lemonade.hardware.facts import Gpu
from lemonade.planning.argv import Argv, grammar_of
from lemonade.planning.context import ContextWish, chosen_context
from lemonade.planning.facts import LaunchFacts
from lemonade.planning.held import free_on, held_on
from lemonade.planning.matrix import best_device
from lemonade.planning.transformers_config import ModelShape, read_shape

WORKING_BYTES: Final = 3 << 29
"""What an engine takes on each device beside weights and cache: 1.5 GiB for a batch in work,
graphs and libraries, as much as vLLM's profiling run finds with models of up to 30 GB."""

_LEAST_CACHE: Final = 1 << 30
"""A device that is full of weights alone is of no use."""

_GIB: Final = 1 << 30
_COUNT: Final = re.compile(r"(\d+(?:\.\d+)?)([kmgtKMGT]?)i?[bB]?\Z")
_POWERS: Final = "kmgt"
_BYTES: Final = {"float32": 4, "float": 4, "fp32": 4}
"""Types that are named with another size than two bytes; what begins with fp8 or int8 is one."""


def devices_of(facts: LaunchFacts) -> tuple[Gpu, ...]:
    """The GPUs a model could be shared by: the best for its backend, and its equals."""
    best = best_device(facts.backend.runs_on, facts.machine)
    if not isinstance(best, Gpu):
        return ()
    if best.integrated:
        return (best,)
    equals = [
        gpu
        for gpu in facts.machine.gpus
        if gpu.problem is None
        and not gpu.integrated
        and (gpu.family, gpu.vram_bytes) == (best.family, best.vram_bytes)
    ]
    return tuple(equals)


def on_processor(facts: LaunchFacts) -> bool:
    """Whether its backend computes on nothing else."""
    return facts.backend.devices == ("cpu",)


def share_of_memory(facts: LaunchFacts, argv: Argv) -> float:
    """How much of a device's memory the engine may take, from 0 to 1."""
    spec = facts.recipe.context
    if spec is None:
        return 1.0
    given = _value(facts, argv, spec.memory_share)
    try:
        return float(given) if given else spec.default_share
    except ValueError:
        return spec.default_share


def shared_by(facts: LaunchFacts, argv: Argv) -> int:
    """How many devices share the model: as the arguments say, or as few as hold its weights."""
    spec = facts.recipe.context
    if spec is None or not spec.parallel:
        return 1
    given = [_value(facts, argv, flag) for flag in spec.parallel]
    if any(given):
        return prod(int(text) for text in given if text.isdigit() and int(text) > 0)
    return split_over(facts, argv)[1]


def split_over(facts: LaunchFacts, argv: Argv) -> tuple[str, int]:
    """The flag that shares the model, and by how many devices; no flag if one holds it.

    Heads are dealt out where their number can be, since all devices compute at once then; layers
    where it cannot.
    """
    spec = facts.recipe.context
    gpus = devices_of(facts)
    shape = read_shape(facts.config) if facts.config is not None else None
    if spec is None or len(gpus) < 2 or shape is None or not facts.weights_bytes:
        return "", 1
    rooms = [room - WORKING_BYTES - _LEAST_CACHE for room in _rooms(facts, argv, gpus)]
    counts = range(1, len(gpus) + 1)
    holding = [n for n in counts if facts.weights_bytes <= n * min(rooms[:n])]
    if not holding or holding[0] == 1:
        return "", 1
    dealt = next((n for n in holding if _divides(n, shape)), None)
    if dealt is not None:
        return spec.parallel[0], dealt
    layered = next((n for n in holding if n <= shape.layers), None)
    return (spec.parallel[1], layered) if layered and len(spec.parallel) > 1 else ("", 1)


def _rooms(facts: LaunchFacts, argv: Argv, gpus: Sequence[Gpu]) -> list[int]:
    """Of each what the engine may take, and others leave it."""
    share = share_of_memory(facts, argv)
    return [
        min(int(gpu.pool_bytes * share), free_on(gpu, facts.held, facts.machine)) for gpu in gpus
    ]


def _divides(count: int, shape: ModelShape) -> bool:
    """Whether the heads can be dealt out evenly."""
    kept = shape.kv_heads % count == 0 or count % shape.kv_heads == 0
    return shape.heads % count == 0 and kept


def context_wish(facts: LaunchFacts, argv: Argv, env: Mapping[str, str]) -> ContextWish:
    """Everything known for planning the context.

    Args:
        facts: the launch.
        argv: the arguments as far as they are settled.
        env: the child's environment.
    """
    values, spec = facts.options.values, facts.recipe.context
    chosen = chosen_context(values)
    origin = facts.options.origins.get("ctx_size", "default")
    if spec is None:
        return ContextWish(chosen, origin, limit=facts.context_limit)
    budget, exact, words, more = _budget(facts, argv, env)
    batched = _value(facts, argv, spec.batched_tokens)
    return ContextWish(
        chosen=chosen,
        origin=origin,
        shape=read_shape(facts.config) if facts.config is not None else None,
        budget_bytes=budget,
        exact=exact,
        budget_from=words,
        more=more,
        number_bytes=_number_bytes(facts, argv),
        batched=int(batched) if batched.isdigit() else spec.default_batched_tokens,
        limit=facts.context_limit,
        stretched=any(_value(facts, argv, flag) for flag in spec.stretching),
    )


def _budget(
    facts: LaunchFacts, argv: Argv, env: Mapping[str, str]
) -> tuple[int | None, bool, str, str]:
    """Bytes, whether they are certain, where they are from, and how there could be more."""
    spec = facts.recipe.context
    assert spec is not None
    if on_processor(facts) and (space := env.get(spec.space_env, "")):
        more = f"{spec.space_env} in the server's environment makes the cache larger."
        size = int(space) * _GIB if space.isdigit() else None
        return size, True, f"{spec.space_env} is {space} GiB", more
    given = bytes_of(_value(facts, argv, spec.cache_bytes))
    if given is not None:
        return given, True, spec.cache_bytes, f"More with {spec.cache_bytes}."
    if on_processor(facts):
        return None, False, "", ""
    gpus = devices_of(facts)
    if not gpus or not all(gpu.pool_bytes for gpu in gpus):
        return None, False, "", ""
    count = min(shared_by(facts, argv), len(gpus))
    share = share_of_memory(facts, argv)
    rooms = _rooms(facts, argv, gpus[:count])
    pool = count * min(rooms)  # each has the same part of the model
    left = max(0, pool - facts.weights_bytes - count * WORKING_BYTES)
    words = f"{share:.0%} of the device's memory, less {render_size(facts.weights_bytes)} weights"
    others = max(held_on(gpu, facts.held, facts.machine) for gpu in gpus[:count])
    if others:
        words += f", beside {render_size(others)} that other models hold"
    return left, False, words, "Unload other models for more." if others else ""


def bytes_of(text: str) -> int | None:
    """`4G` is 4 GiB and `4g` four times a billion, as vLLM reads it; `None` if it is no size."""
    match = _COUNT.match(text)
    if match is None:
        return None
    unit = match[2]
    power = _POWERS.index(unit.lower()) + 1 if unit else 0
    base = 1000 if unit.islower() else 1024
    return int(float(match[1]) * base**power)


def _number_bytes(facts: LaunchFacts, argv: Argv) -> int:
    """Of the cache. Where nothing is said, engines use two bytes, also for larger checkpoints."""
    spec = facts.recipe.context
    assert spec is not None
    cache = _value(facts, argv, spec.cache_dtype)
    if cache.startswith(("fp8", "int8")):
        return 1
    return _BYTES.get(cache) or _BYTES.get(_value(facts, argv, spec.dtype), 2)


def _value(facts: LaunchFacts, argv: Argv, flag: str) -> str:
    found = grammar_of(facts.recipe).find(argv, flag) if flag else None
    return found.values[0] if found is not None and found.values else ""
