"""Checkpoints quantised with AWQ run on AMD's smaller GPUs with the plain kernel.

vLLM would pick a kernel there that they do not have. NVIDIA's have it, so they are left alone.
"""

from __future__ import annotations

from lemonade.planning.argv import Argument, Argv, grammar_of
from lemonade.planning.device_class import careful
from lemonade.planning.facts import LaunchFacts
from lemonade.planning.memory import devices_of
from lemonade.planning.transformers_config import quantisation_of


def apply(facts: LaunchFacts, argv: Argv) -> Argv:
    """Add `--quantization awq` and `--dtype float16`, each unless somebody said otherwise."""
    if facts.config is None or quantisation_of(facts.config) != "awq" or not careful(facts):
        return argv
    if any(gpu.vendor != "amd" for gpu in devices_of(facts)):
        return argv
    grammar = grammar_of(facts.recipe)
    added = []
    chosen = grammar.find(argv, "--quantization")
    because = "The checkpoint is quantised with AWQ, and this GPU has no other kernel for it."
    if chosen is None:
        added.append(Argument("--quantization", ("awq",), "awq-kernel", because=because))
    if (chosen is None or chosen.values == ("awq",)) and grammar.find(argv, "--dtype") is None:
        because = "AWQ's plain kernel computes in half precision."
        added.append(Argument("--dtype", ("float16",), "awq-kernel", because=because))
    return Argv((*argv.arguments, *added))
