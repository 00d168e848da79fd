"""From model, recipe, bundle and options to the `ProcessSpec` of a child."""

from __future__ import annotations

import signal

from lemonade.core.logs import LevelRule
from lemonade.core.process import KnownProblem, Milestone, ProbeSpec, ProcessSpec, StopPolicy
from lemonade.planning.command import plan_command
from lemonade.planning.facts import LaunchFacts
from lemonade.planning.limits import plan_limits


def plan_launch(facts: LaunchFacts) -> ProcessSpec:
    """Decide how a child is started, probed and ended.

    Raises:
        Incomplete: a file that the command line names is not there.
        ReservedArgument: the user's arguments hold a flag that Lemonade gives.
        BadOption: the context that was chosen cannot be had, or a limit cannot be meant.
        BadDescriptor: the recipe uses an unknown placeholder or rule.
    """
    upstream = facts.recipe.upstream
    command = plan_command(facts)
    secrets = (facts.api_key,) if facts.api_key and upstream.api_key_env else ()
    return ProcessSpec(
        name=facts.served_name,
        argv=command.words,
        env={variable.name: variable.value for variable in command.environment},
        executable_root=facts.bundle.root,
        endpoint=facts.endpoint,
        probe=_probe(facts),
        stop=StopPolicy(
            grace=upstream.stop_grace,
            on_parent_death=signal.Signals[f"SIG{upstream.on_parent_death}"],
        ),
        log_file=facts.log_file,
        labels={
            "backend": facts.backend.id,
            "version": facts.bundle.version,
            "recipe": facts.recipe.id,
            "model": facts.model.canonical_name,
        },
        secrets=secrets,
        known_problems=tuple(
            KnownProblem(
                one.pattern, one.cause, one.fix, one.signal, one.severe, one.kernel, one.name
            )
            for one in facts.recipe.problem
        ),
        limits=plan_limits(facts.options.values),
        levels=tuple(LevelRule(one.level, one.pattern) for one in upstream.levels),
    )


def _probe(facts: LaunchFacts) -> ProbeSpec:
    upstream, values = facts.recipe.upstream, facts.options.values

    def seconds(option: str, default: float) -> float:
        chosen = values.get(option)
        return float(chosen) if isinstance(chosen, int | float) and chosen > 0 else default

    return ProbeSpec(
        path=upstream.ready,
        ready_within=seconds("ready_timeout", upstream.ready_within),
        stall_timeout=seconds("stall_timeout", upstream.stall_timeout),
        dead_status=upstream.dead_status,
        milestones=tuple(Milestone(phase.name, phase.pattern) for phase in upstream.phases),
    )
