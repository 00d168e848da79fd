"""From facts to a command line and an environment, each part with where it comes from.

The command line is: the bundle's program, what the recipe always gives, what it gives for this
context, device, mode and set of files, then the user's arguments, then what the recipe's rules
add. The environment is built from nothing: a short list of variables passes, all else stays here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import field, replace
from pathlib import Path
from typing import Final

from lemonade.core.errors import BadDescriptor, Incomplete
from lemonade.core.records import dataclass
from lemonade.planning.adapters import environment_for
from lemonade.planning.argv import (
    Argument,
    Argv,
    Grammar,
    check_reserved,
    grammar_of,
    layer_phrase,
    merge,
    split_leading,
)
from lemonade.planning.context import ContextPlan, chosen_context, plan_context
from lemonade.planning.environment import CLEAN_PYTHON, passed_on
from lemonade.planning.facts import LaunchFacts
from lemonade.planning.memory import context_wish
from lemonade.planning.rules import find_rule

_PLACEHOLDER: Final = re.compile(r"\{([a-z_]+(?:\.[a-z0-9_-]+)?)\}")

_USERS: Final = frozenset(
    {"family", "registry", "config", "architecture", "model", "saved", "request"}
)
"""The layers of whoever is not us; all other origins are the recipe and its rules."""


@dataclass(frozen=True, slots=True)
class Variable:
    """One variable of a child's environment.

    Attributes:
        origin: `server` (passed on from ours), `lemonade`, `recipe`, `backend`, or `default` (the
            backend's, because ours has none of that name).
        secret: whether its value is for the child only.
    """

    name: str
    value: str = field(repr=False)
    origin: str
    secret: bool = False


@dataclass(frozen=True, slots=True)
class CommandPlan:
    """How a child is started.

    Attributes:
        program: the program and its fixed first words.
        leading: words before the first flag.
        arguments: in the order they are given.
        environment: in no particular order.
        context: what was decided about the context.
        notices: what whoever asked for the load should know.
    """

    program: tuple[str, ...]
    leading: tuple[str, ...]
    arguments: Argv
    environment: tuple[Variable, ...]
    context: ContextPlan
    notices: tuple[str, ...]

    @property
    def words(self) -> tuple[str, ...]:
        """The command line."""
        return (*self.program, *self.leading, *self.arguments.words())


def plan_command(facts: LaunchFacts) -> CommandPlan:
    """Decide the command line and the environment.

    Raises:
        Incomplete: a file that the command line names is not there.
        ReservedArgument: the user's arguments hold a flag that Lemonade gives.
        BadOption: the context that was chosen cannot be had.
        BadDescriptor: the recipe uses an unknown placeholder or rule.
    """
    recipe = facts.recipe
    grammar = grammar_of(recipe)
    users = facts.options.arguments
    check_reserved(users, grammar)
    environment = _without_default_space(_environment(facts), facts, grammar)
    env = {variable.name: variable.value for variable in environment}
    defaults = split_leading(recipe.argv.defaults, "recipe")[1]
    context = plan_context(context_wish(facts, merge((defaults, users), grammar), env))
    facts = replace(facts, context=context)
    leading, template = split_leading(_template(facts), "recipe")
    words = _placeholders(facts)
    given = Argv(
        tuple(
            replace(
                argument,
                values=_filled(argument.values, words, facts),
                because=_why(argument, facts, grammar),
            )
            for argument in (*template.arguments, *defaults.arguments)
        )
    )
    argv = merge((given, users), grammar)
    for name in recipe.rules.launch:
        argv = find_rule(name)(facts, argv)
    return CommandPlan(
        program=_program(facts),
        leading=_filled(leading, words, facts),
        arguments=_spelt(_in_order(argv, facts, grammar), grammar),
        environment=environment,
        context=context,
        notices=(*facts.options.notices, *context.notices),
    )


def _why(argument: Argument, facts: LaunchFacts, grammar: Grammar) -> str:
    """Where the option comes from that this argument passes on; empty if it passes on none."""
    option = grammar.options.get(grammar.name_of(argument.flag), "")
    origin = facts.options.origins.get(option, "default")
    if option == "ctx_size" and chosen_context(facts.options.values) is None:
        return facts.context.because if facts.context is not None else ""
    return f"Option '{option}' of {layer_phrase(origin)}." if origin != "default" else ""


def plan_asking(facts: LaunchFacts) -> tuple[tuple[str, ...], Mapping[str, str]]:
    """The program and the environment for asking the engine about itself, without any secret."""
    variables = _environment(facts)
    return _program(facts), {v.name: v.value for v in variables if not v.secret}


def _without_default_space(
    environment: tuple[Variable, ...], facts: LaunchFacts, grammar: Grammar
) -> tuple[Variable, ...]:
    """Users who give the cache's size as an argument are not overruled by a variable's default."""
    spec = facts.recipe.context
    if spec is None or grammar.find(facts.options.arguments, spec.cache_bytes) is None:
        return environment
    return tuple(v for v in environment if (v.name, v.origin) != (spec.space_env, "default"))


def _in_order(argv: Argv, facts: LaunchFacts, grammar: Grammar) -> Argv:
    """What Lemonade gives first, in the recipe's order; what users say keeps its own."""
    order = [grammar.name_of(flag) for flag in facts.recipe.argv.order]
    users = {id(argument) for argument in argv.arguments if argument.origin in _USERS}
    speculative = grammar.name_of(facts.recipe.argv.speculative)

    def position(argument: Argument) -> int:
        name = grammar.name_of(argument.flag)
        ours = id(argument) not in users or (
            name == speculative and argument.origin in ("family", "registry")
        )
        if not ours:
            return len(order) + 1
        return order.index(name) if name in order else len(order)

    return Argv(tuple(sorted(argv.arguments, key=position))) if order else argv


def _spelt(argv: Argv, grammar: Grammar) -> Argv:
    """As the engine reads it."""
    if grammar.joined_values:
        return argv
    return Argv(tuple(replace(argument, joined=False) for argument in argv.arguments))


def _program(facts: LaunchFacts) -> tuple[str, ...]:
    overlay = str(facts.overlay)
    return tuple(word.replace("{overlay}", overlay) for word in facts.bundle.argv)


def _template(facts: LaunchFacts) -> tuple[str, ...]:
    spec = facts.recipe.argv
    words = [*spec.always]
    if facts.context is not None and facts.context.tokens is not None:
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
        "ctx_size": str((facts.context.tokens if facts.context else None) or ""),
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


def _environment(facts: LaunchFacts) -> tuple[Variable, ...]:
    own = not facts.bundle.removable
    ours = passed_on(facts.environ, facts.backend, facts.machine, own_program=own)
    env = {name: Variable(name, value, "server") for name, value in ours.items()}
    env |= {name: Variable(name, value, "lemonade") for name, value in CLEAN_PYTHON.items()}
    program = facts.bundle.argv[0]
    words = {
        "python": program,
        "executable": program,
        "folder": str(Path(program).parent),
        "overlay": str(facts.overlay),
        "compile_cache": str(facts.compile_cache),
        "runtime": "".join(f"{folder}:" for folder in facts.bundle.libraries),
    }
    for origin, declared in (
        ("recipe", facts.recipe.environment),
        ("recipe", environment_for(facts.recipe, facts.adapters)),
        ("backend", facts.backend.environment),
    ):
        for name, value in declared.items():
            env[name] = Variable(name, _filled((value,), words, facts)[0], origin)
    for name, value in facts.backend.defaults.items():
        set_by_us = facts.environ.get(name)
        filled = set_by_us or _filled((value,), words, facts)[0]
        env[name] = Variable(name, filled, "server" if set_by_us else "default")
    if facts.api_key and (name := facts.recipe.upstream.api_key_env):
        env[name] = Variable(name, facts.api_key, "lemonade", secret=True)
    return tuple(env.values())
