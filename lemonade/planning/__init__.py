"""Decisions: pure functions from facts to frozen plans. Nothing here acts."""

from lemonade.planning.adapters import rank_for, takes_more
from lemonade.planning.argv import Argument, Argv, grammar_of, layer_phrase, merge, parse_argv
from lemonade.planning.checkpoint import CheckpointPlan, plan_checkpoint, split_checkpoint
from lemonade.planning.command import CommandPlan, plan_asking, plan_command
from lemonade.planning.elsewhere import with_gpu
from lemonade.planning.environment import VisibleDevices, visible_devices
from lemonade.planning.eviction import (
    Demand,
    EvictionPlan,
    ResidentFacts,
    plan_eviction,
    slot_policy,
)
from lemonade.planning.facts import LaunchFacts
from lemonade.planning.given import Given, version_for
from lemonade.planning.help_text import check_known, flags_in
from lemonade.planning.install import InstallPlan, download_name, plan_install
from lemonade.planning.launch import plan_launch
from lemonade.planning.matrix import lacking
from lemonade.planning.options import (
    COMMON_OPTIONS,
    EffectiveOptions,
    check_options,
    known_options,
    resolve_options,
)
from lemonade.planning.quarantine import (
    Quarantined,
    Remainder,
    in_the_way,
    quarantined_devices,
    without,
)
from lemonade.planning.runtimes import RuntimePlan, plan_runtime
from lemonade.planning.second_try import fitting_context
from lemonade.planning.selection import LATEST, PinKind, Selection, on_channel, select
from lemonade.planning.support import Verdict, choose_backend, judge, judge_for, why_not

__all__ = [
    "COMMON_OPTIONS", "LATEST", "Argument", "Argv", "CheckpointPlan", "CommandPlan", "Demand",
    "EffectiveOptions", "EvictionPlan", "Given", "InstallPlan", "LaunchFacts", "PinKind",
    "Quarantined", "Remainder", "ResidentFacts", "RuntimePlan", "Selection", "Verdict",
    "VisibleDevices", "check_known", "check_options", "choose_backend", "download_name",
    "fitting_context", "flags_in", "grammar_of", "in_the_way", "judge", "judge_for",
    "known_options", "lacking", "layer_phrase", "merge", "on_channel", "parse_argv", "plan_asking",
    "plan_checkpoint", "plan_command", "plan_eviction", "plan_install", "plan_launch",
    "plan_runtime", "quarantined_devices", "rank_for", "resolve_options", "select", "slot_policy",
    "split_checkpoint", "takes_more", "version_for", "visible_devices", "why_not", "with_gpu",
    "without",
]  # fmt: skip
