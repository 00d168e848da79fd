"""What operators decided about engines that fail or hang, as the policies that follow it.

A model's own options come before the settings, and those before its recipe.
"""

from __future__ import annotations

from collections.abc import Mapping

from lemonade.catalog import RecipeSpec
from lemonade.config import Settings
from lemonade.residency.circuit import CrashPolicy
from lemonade.residency.wellness import HangPolicy, Patience


def crash_policy(settings: Settings) -> CrashPolicy:
    """How patient we are with engines that fail."""
    chosen = settings.crash
    return CrashPolicy(
        failures=chosen.failures,
        window=chosen.window_s,
        first_backoff=chosen.backoff_first_s,
        longest_backoff=chosen.backoff_max_s,
        jitter=chosen.backoff_jitter,
        first_pause=chosen.open_s,
        longest_pause=chosen.open_max_s,
    )


def hang_policy(settings: Settings) -> HangPolicy:
    """How patient we are with engines that hang."""
    chosen = settings.hang
    return HangPolicy(idle_patience=chosen.idle_s, watch=chosen.watch, timeout=chosen.timeout_s)


def patience_with(
    policy: HangPolicy,
    recipe: RecipeSpec,
    options: Mapping[str, object],
    *,
    stall_timeout: float,
) -> Patience:
    """How long this engine may do nothing.

    Args:
        policy: of the server.
        recipe: of the model.
        options: what the model is loaded with.
        stall_timeout: how long its start may show no work; it may stand still as long.
    """
    watch = options.get("watch_hangs")
    if not (policy.watch if watch is None else watch):
        return Patience()
    chosen = options.get("hang_timeout")
    limit = float(chosen) if isinstance(chosen, int | float) and chosen > 0 else policy.timeout
    return Patience(
        idle=policy.idle_patience,
        busy=limit or recipe.upstream.hang_timeout,
        still=limit or stall_timeout,
    )
