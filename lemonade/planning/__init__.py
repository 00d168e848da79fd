"""Decisions: pure functions from facts to frozen plans. Nothing here acts."""

from lemonade.planning.argv import Argument, Argv, grammar_of, merge, parse_argv
from lemonade.planning.eviction import Demand, EvictionPlan, ResidentFacts, plan_eviction
from lemonade.planning.facts import LaunchFacts
from lemonade.planning.launch import plan_launch
from lemonade.planning.options import (
    COMMON_OPTIONS,
    EffectiveOptions,
    check_options,
    known_options,
    resolve_options,
)

__all__ = [
    "COMMON_OPTIONS",
    "Argument",
    "Argv",
    "Demand",
    "EffectiveOptions",
    "EvictionPlan",
    "LaunchFacts",
    "ResidentFacts",
    "check_options",
    "grammar_of",
    "known_options",
    "merge",
    "parse_argv",
    "plan_eviction",
    "plan_launch",
    "resolve_options",
]
