"""Which options a load runs with, and who decided each: request, model, configuration, default.

An option may be absent from a request (what was saved for the model holds), null (what was saved
is passed over, this once) or a value. Arguments of the engine are merged over the layers, all
else is taken from the highest layer that says something.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import field
from types import MappingProxyType
from typing import Final, TypeGuard

from lemonade.catalog.families import FamilyMatch
from lemonade.catalog.recipe import OptionSpec, RecipeSpec
from lemonade.core.errors import BadOption
from lemonade.core.inference import JsonObject
from lemonade.core.records import dataclass
from lemonade.planning.argv import (
    Argument,
    Argv,
    Grammar,
    check_reserved,
    grammar_of,
    layer_phrase,
    merge,
    notices_of,
    parse_argv,
)
from lemonade.planning.limits import LIMIT_OPTIONS, check_limit
from lemonade.planning.words import join_words

COMMON_OPTIONS: Final = (
    OptionSpec(
        name="merge_args",
        type="bool",
        default=True,
        flag="--merge-args",
        help="Merge engine arguments with those of the model and the configuration.",
    ),
    OptionSpec(
        name="auto_evict",
        type="bool",
        default=None,
        help="Unload the model when memory runs short; null follows the server's setting.",
    ),
    OptionSpec(
        name="evict_idle_timeout",
        type="float",
        default=300,
        help="Seconds without a request after which the model may be unloaded.",
    ),
    OptionSpec(
        name="downsize_idle_timeout",
        type="float",
        default=60,
        help="Seconds without a request after which the model may be made smaller.",
    ),
    OptionSpec(
        name="evict_weight_factor",
        type="float",
        default=1.0,
        help="How much longer than others the model may stay when memory runs short.",
    ),
    OptionSpec(
        name="ready_timeout",
        type="float",
        default=0,
        flag="--ready-timeout",
        help="Seconds that a start may take at most; 0 leaves it to the recipe.",
    ),
    OptionSpec(
        name="stall_timeout",
        type="float",
        default=0,
        flag="--stall-timeout",
        help="Seconds that a start may go without any sign of work; 0 leaves it to the recipe.",
    ),
    OptionSpec(
        name="hang_timeout",
        type="float",
        default=0,
        flag="--hang-timeout",
        help="Seconds that the engine may make nothing while somebody waits for it; 0 leaves it "
        "to the server's setting.",
    ),
    OptionSpec(
        name="watch_hangs",
        type="bool",
        default=None,
        flag="--watch-hangs",
        help="Whether the engine is ended if it hangs; null follows the server's setting.",
    ),
    OptionSpec(
        name="pinned",
        type="bool",
        default=False,
        flag="--pinned",
        help="Never unload the model to make room.",
    ),
    *LIMIT_OPTIONS,
)
"""What every recipe understands."""

_UNSET: Final = (None, -1, "", "auto")
"""Values that say nothing: the next layer is asked."""

_CTX_SIZE: Final = "ctx_size"
_LONGEST_CONTEXT: Final = 2**31 - 1
_NOTHING: Final[JsonObject] = MappingProxyType({})
_NO_FAMILY: Final = FamilyMatch()

_EXPECTED: Final = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "string": "a string",
    "argv": "a string, or a list of strings",
    "backend": "a string",
}


@dataclass(frozen=True, slots=True)
class EffectiveOptions:
    """What a load runs with. Equal if the values are.

    Attributes:
        values: by option; engine arguments as one string.
        origins: by option, the highest layer that had a say: `request`, `saved`, `model`,
            `architecture`, `config`, `registry`, `family` or `default`.
        arguments: the merged engine arguments, each with its own origin.
        notices: what whoever asked for them should know, as sentences.
    """

    values: Mapping[str, object]
    origins: Mapping[str, str] = field(compare=False)
    arguments: Argv = field(default=Argv(), compare=False)
    notices: tuple[str, ...] = field(default=(), compare=False)


def option_names(recipe: RecipeSpec) -> tuple[str, ...]:
    """The options a recipe accepts, the common ones last."""
    return tuple(option.name for option in (*recipe.option, *COMMON_OPTIONS))


def known_options(recipes: Iterable[RecipeSpec]) -> frozenset[str]:
    """Every option of any of the recipes: accepted, and ignored, by all the others."""
    return frozenset(name for recipe in recipes for name in option_names(recipe))


def check_options(
    recipe: RecipeSpec, options: JsonObject, *, ignorable: Collection[str] = ()
) -> dict[str, object]:
    """The recipe's own options out of a request, checked. Null stays null.

    Args:
        recipe: of the model.
        options: as the client sent them.
        ignorable: further keys that may be there: other fields of the request, options of other
            recipes. They are left out of the result.

    Raises:
        BadOption: a key is unknown, or its value has the wrong type or is out of range.
        BadArgument: engine arguments cannot be read.
        ReservedArgument: engine arguments hold a flag that Lemonade gives.
    """
    known = {option.name: option for option in (*recipe.option, *COMMON_OPTIONS)}
    checked: dict[str, object] = {}
    for name, value in options.items():
        option = known.get(name)
        if option is None:
            if name not in ignorable:
                raise _unknown(recipe, name, known)
        elif value is None:
            checked[name] = None
        elif option.type == "argv":
            checked[name] = text = _argument_text(option, value, "request")
            check_reserved(parse_argv(text, "request"), grammar_of(recipe))
        else:
            checked[name] = _typed(option, value, "request")
    return checked


def resolve_options(  # noqa: PLR0913 - one for each layer
    recipe: RecipeSpec,
    *,
    request: JsonObject,
    saved: JsonObject,
    declared: JsonObject,
    section: JsonObject,
    variant: str | None,
    ctx_size: int,
    limits: JsonObject = _NOTHING,
    architecture: JsonObject = _NOTHING,
    family: FamilyMatch = _NO_FAMILY,
) -> EffectiveOptions:
    """Settle every option of a load.

    Args:
        recipe: of the model.
        request: what the caller sent; keys the recipe does not know are ignored.
        saved: what was saved for the model.
        declared: what the model's own declaration says.
        section: the recipe's section of the configuration.
        variant: the backend's variant once it is chosen: its own `<variant>_args` are then used
            before `args`, and it is the answer where nobody named one.
        ctx_size: the configuration's context size, for all recipes.
        limits: the configuration's limits of engines, for all recipes.
        architecture: defaults for models of this architecture.
        family: what the registry of families has for the model: engine arguments below all others.

    Raises:
        BadOption: a value has the wrong type; the message says in which layer.
        BadArgument: engine arguments cannot be read.
        ReservedArgument: engine arguments hold a flag that Lemonade gives.
    """
    config = {**limits, **_section_options(recipe, section, variant)}
    if recipe.uses_ctx_size:
        config[_CTX_SIZE] = ctx_size
    layers = {
        "request": request,
        "saved": saved,
        "model": declared,
        "architecture": architecture,
        "config": config,
    }
    values: dict[str, object] = {}
    origins: dict[str, str] = {}
    for option in (*COMMON_OPTIONS, *(o for o in recipe.option if o.type != "argv")):
        origin, value = _settle(option, layers)
        if option.type == "backend" and origin == "default" and variant is not None:
            value = variant
        values[option.name], origins[option.name] = value, origin
    arguments = Argv()
    for option in recipe.option:
        if option.type == "argv":
            arguments, origin = _settle_arguments(
                option,
                layers,
                grammar_of(recipe),
                below=_of_family(family, recipe) if values["merge_args"] else (),
                inherit=bool(values["merge_args"]),
            )
            values[option.name] = join_words(arguments.words())
            origins[option.name] = origin
    return EffectiveOptions(values, origins, arguments, notices_of(arguments, grammar_of(recipe)))


def _of_family(family: FamilyMatch, recipe: RecipeSpec) -> tuple[Argv, ...]:
    """The two layers out of a registry: of the family, and of the model by name."""
    layers = []
    for origin, args, speculative in (
        ("family", family.family_args, family.family_speculative),
        ("registry", family.model_args, family.model_speculative),
    ):
        argv = parse_argv(args, origin)
        if speculative and (flag := recipe.argv.speculative):
            text = json.dumps(speculative, separators=(",", ":"))
            argv = Argv((Argument(flag, (text,), origin), *argv.arguments))
        layers.append(argv)
    return tuple(layers)


def _section_options(
    recipe: RecipeSpec, section: JsonObject, variant: str | None
) -> dict[str, object]:
    config: dict[str, object] = {}
    for option in recipe.option:
        if not option.setting:
            continue
        value = section.get(option.setting)
        if option.type == "argv" and variant is not None:
            value = section.get(f"{variant}_{option.setting}") or value
        config[option.name] = value
    return config


def _settle(option: OptionSpec, layers: Mapping[str, JsonObject]) -> tuple[str, object]:
    for origin in _asked(option, layers):
        value = layers[origin].get(option.name)
        # For a context size -1 is an answer: whatever fits.
        if value in _UNSET and not (option.name == _CTX_SIZE and value == -1):
            continue
        value = _typed(option, value, origin)
        by_default = origin == "config" and value == option.default
        return "default" if by_default else origin, value
    return "default", option.default


def _settle_arguments(
    option: OptionSpec,
    layers: Mapping[str, JsonObject],
    grammar: Grammar,
    *,
    below: Sequence[Argv],
    inherit: bool,
) -> tuple[Argv, str]:
    """Merge the engine arguments of the layers that take part, lowest first.

    A request's own arguments stand in for all the model brings; what was saved for a model stands
    in for what its declaration says. The configuration is always below, unless nothing is merged,
    and `below` that is what the registry of families says.
    """
    wished = layers["request"].get(option.name)
    if not inherit:
        takes_part = ["request"]
    elif wished is not None:
        takes_part = ["config", "request"]
    else:
        asked = _asked(option, layers)
        own = [o for o in ("saved", "model") if o in asked and layers[o].get(option.name)]
        takes_part = ["config", "architecture", *own[:1]]
    parsed = [*below]
    for origin in takes_part:
        value = layers[origin].get(option.name)
        if value not in _UNSET:
            parsed.append(parse_argv(_argument_text(option, value, origin), origin))
    for argv in parsed:
        check_reserved(argv, grammar)
    merged = merge(parsed, grammar)
    if wished is not None:
        return merged, "request"
    present = {argument.origin for argument in merged.arguments}
    order = ("family", "registry", *takes_part)
    return merged, next((o for o in reversed(order) if o in present), "default")


def _asked(option: OptionSpec, layers: Mapping[str, JsonObject]) -> list[str]:
    """The layers in the order they are asked; null in the request passes over what was saved."""
    request = layers["request"]
    passed_over = option.name in request and request[option.name] is None
    return [origin for origin in layers if not (passed_over and origin == "saved")]


def _typed(option: OptionSpec, value: object, origin: str) -> object:
    """The value, if it has the option's type."""
    check_limit(option.name, value)
    match option.type:
        case "bool" if isinstance(value, bool):
            return value
        case "int" if _is_number(value) and float(value).is_integer():
            if option.name == _CTX_SIZE and not -1 <= value <= _LONGEST_CONTEXT:
                raise BadOption(
                    f"Option '{option.name}' cannot be {value}.",
                    remedy="Give a number of tokens, or -1 to leave it to the model.",
                    facts={"option": option.name, "origin": origin},
                )
            return int(value)
        case "float" if _is_number(value):
            return value
        case "string" | "backend" if isinstance(value, str):
            return value
        case _:
            raise _wrong_type(option, value, origin)


def _argument_text(option: OptionSpec, value: object, origin: str) -> str | list[str]:
    if isinstance(value, str):
        return value
    if isinstance(value, (list, tuple)):
        words = [word for word in value if isinstance(word, str)]
        if len(words) == len(value):
            return words
    raise _wrong_type(option, value, origin)


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _wrong_type(option: OptionSpec, value: object, origin: str) -> BadOption:
    return BadOption(
        f"Option '{option.name}' of {layer_phrase(origin)} must be {_EXPECTED[option.type]}, "
        f"not {_kind(value)}.",
        remedy=option.help,
        facts={"option": option.name, "origin": origin},
    )


def _unknown(recipe: RecipeSpec, name: str, known: Collection[str]) -> BadOption:
    from difflib import get_close_matches  # as in `core.near`: for typing errors alone

    near = get_close_matches(name, known, n=3, cutoff=0.6)
    offer = near or sorted(known)
    return BadOption(
        f"The recipe '{recipe.id}' has no option '{name}'.",
        remedy=f"{'Did you mean' if near else 'It has'} {', '.join(offer)}{'?' if near else '.'}",
        facts={"option": name, "near": near},
    )


def _kind(value: object) -> str:
    """What JSON calls it."""
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return f"the number {value}"
        case str():
            return f"the string {value!r}"
        case list() | tuple():
            return "a list that holds something else" if value else "a list"
        case _:
            return "null" if value is None else "an object"
