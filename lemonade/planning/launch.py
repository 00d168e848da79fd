"""From model, recipe, bundle and options to the `ProcessSpec` of a child.

The command line is: the bundle's program, what the recipe always gives, what it gives for this
context, device, mode and set of files, then the user's arguments, then what the recipe's rules
add. The environment is built from nothing: a short list of variables passes, all else stays here.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from lemonade.core.errors import BadDescriptor, Incomplete
from lemonade.core.process import KnownProblem, Milestone, ProbeSpec, ProcessSpec, StopPolicy
from lemonade.planning.argv import Argv, check_reserved, grammar_of, merge, split_leading
from lemonade.planning.context import chosen_context
from lemonade.planning.facts import LaunchFacts
from lemonade.planning.rules import find_rule

_PLACEHOLDER: Final = re.compile(r"\{([a-z_]+(?:\.[a-z0-9_-]+)?)\}")

_PASSED_ON: Final = frozenset(
    {
        # who and where we are
        "HOME", "LANG", "LOGNAME", "PATH", "TMPDIR", "TZ", "USER", "XDG_CACHE_HOME",
        # which devices an operator lets engines see
        "CUDA_DEVICE_ORDER", "CUDA_VISIBLE_DEVICES", "GGML_VK_VISIBLE_DEVICES",
        "GPU_DEVICE_ORDINAL", "HIP_VISIBLE_DEVICES", "HSA_OVERRIDE_GFX_VERSION",
        "NVIDIA_VISIBLE_DEVICES", "ONEAPI_DEVICE_SELECTOR", "ROCR_VISIBLE_DEVICES",
        "VK_ICD_FILENAMES", "ZE_AFFINITY_MASK",
        # where their libraries are
        "CUDA_HOME", "HIP_PATH", "ROCM_PATH",
        # how many threads
        "GOMP_CPU_AFFINITY", "OMP_NUM_THREADS", "OMP_PLACES", "OMP_PROC_BIND",
        # without these no Windows program starts
        "SYSTEMROOT", "TEMP", "TMP", "USERPROFILE",
    }
)  # fmt: skip
"""Everything else of our environment is withheld: tokens and keys of ours, and settings of Python
and of the dynamic linker that were meant for us and would reach into a bundle."""


def plan_launch(facts: LaunchFacts) -> ProcessSpec:
    """Decide how a child is started, probed and ended.

    Raises:
        Incomplete: a file that the command line names is not there.
        ReservedArgument: the user's arguments hold a flag that Lemonade gives.
        BadDescriptor: the recipe uses an unknown placeholder or rule.
    """
    upstream = facts.recipe.upstream
    secrets = (facts.api_key,) if facts.api_key and upstream.api_key_env else ()
    return ProcessSpec(
        name=facts.served_name,
        argv=(*_program(facts), *_arguments(facts)),
        env=_environment(facts),
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
            KnownProblem(one.pattern, one.cause, one.fix, one.signal)
            for one in facts.recipe.problem
        ),
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
        milestones=tuple(Milestone(phase.name, phase.pattern) for phase in upstream.phases),
    )


def _program(facts: LaunchFacts) -> tuple[str, ...]:
    overlay = str(facts.overlay)
    return tuple(word.replace("{overlay}", overlay) for word in facts.bundle.argv)


def _arguments(facts: LaunchFacts) -> tuple[str, ...]:
    recipe = facts.recipe
    grammar = grammar_of(recipe)
    leading, template = split_leading(_template(facts), "recipe")
    words = _placeholders(facts)
    given = Argv(
        tuple(
            replace(argument, values=_filled(argument.values, words, facts))
            for argument in template.arguments
        )
    )
    check_reserved(facts.options.arguments, grammar)
    argv = merge((given, facts.options.arguments), grammar)
    for name in recipe.rules.launch:
        argv = find_rule(name)(facts, argv)
    return (*_filled(leading, words, facts), *argv.words())


def _template(facts: LaunchFacts) -> tuple[str, ...]:
    spec = facts.recipe.argv
    words = [*spec.always]
    if chosen_context(facts.options.values) is not None:
        words += spec.context
    if _chosen_device(facts):
        words += spec.device
    for mode, extra in spec.for_mode.items():
        if mode == facts.model.mode:
            words += extra
    for role, extra in spec.for_checkpoint.items():
        if facts.files.get(role):
            words += extra
    return tuple(words)


def _placeholders(facts: LaunchFacts) -> Mapping[str, str]:
    words = {
        "host": facts.endpoint.host,
        "port": str(facts.endpoint.port),
        "model": facts.served_name,
        "ctx_size": str(chosen_context(facts.options.values) or ""),
        "device": _chosen_device(facts),
    }
    for role, files in facts.files.items():
        if files:
            words[f"checkpoint.{role}"] = str(files[0])
    return words


def _filled(
    template: tuple[str, ...], words: Mapping[str, str], facts: LaunchFacts
) -> tuple[str, ...]:
    def fill(match: re.Match[str]) -> str:
        name = match[1]
        if name in words:
            return words[name]
        if name.startswith("checkpoint."):
            role = name.removeprefix("checkpoint.")
            raise Incomplete(
                f"{facts.served_name} has no file for '{role}'.",
                remedy=f"`lemonade pull {facts.served_name}` fetches what is missing.",
                facts={"model": facts.served_name, "role": role},
            )
        raise BadDescriptor(
            f"The recipe '{facts.recipe.id}' uses the unknown placeholder {match[0]}.",
            remedy=f"Its command line knows {', '.join(f'{{{known}}}' for known in words)}.",
        )

    return tuple(_PLACEHOLDER.sub(fill, word) for word in template)


def _chosen_device(facts: LaunchFacts) -> str:
    name = next((o.name for o in facts.recipe.option if o.setting == "device"), None)
    return str(facts.options.values.get(name) or "") if name else ""


def _environment(facts: LaunchFacts) -> dict[str, str]:
    passed_on = _PASSED_ON
    if not facts.bundle.removable:
        # A program that is the operator's own runs with the operator's own libraries.
        passed_on = passed_on | {"LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"}
    env = {
        name: value
        for name, value in facts.environ.items()
        if name in passed_on or name.startswith("LC_")
    }
    env["PYTHONNOUSERSITE"] = "1"
    program = facts.bundle.argv[0]
    words = {
        "python": program,
        "executable": program,
        "folder": str(Path(program).parent),
        "overlay": str(facts.overlay),
        "runtime": "".join(f"{folder}:" for folder in facts.bundle.libraries),
    }
    for declared in (facts.recipe.environment, facts.backend.environment):
        for name, value in declared.items():
            env[name] = _filled((value,), words, facts)[0]
    for name, value in facts.backend.defaults.items():
        env[name] = facts.environ.get(name) or _filled((value,), words, facts)[0]
    if facts.api_key and facts.recipe.upstream.api_key_env:
        env[facts.recipe.upstream.api_key_env] = facts.api_key
    return env
