"""Arguments of an engine: read, compared and merged, each with where it came from.

A flag is a word that begins with `-` and is not a number; what follows, up to the next flag, are
its values. What only the engine can know (does a flag take a value, may it be repeated, which
flags exclude each other) is data of the recipe, the `Grammar`; without data a flag is replaced as
a whole by the same flag of a higher layer.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import field, replace
from typing import Final

from lemonade.catalog.recipe import RecipeSpec
from lemonade.core.errors import BadArgument, ReservedArgument
from lemonade.core.records import dataclass
from lemonade.planning.words import split_words

_NUMBER: Final = re.compile(r"-(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?\Z")

_LAYERS: Final = {
    "request": "the request",
    "saved": "the model's saved options",
    "model": "the model's declaration",
    "architecture": "the defaults of the model's architecture",
    "config": "the configuration",
    "family": "the model's family",
    "registry": "the registry of families",
    "recipe": "the recipe",
}
"""How an origin reads in a sentence; a rule's origin is its own name."""


@dataclass(frozen=True, slots=True)
class Argument:
    """One flag with its values.

    Attributes:
        flag: as written, but with `-` for `_`.
        values: words after it; `--flag=value` has one.
        origin: layer it comes from.
        overrode: arguments of lower layers it took the place of.
        because: why a rule gives it, as a sentence; empty elsewhere.
        joined: whether its engine understands `--flag=value`; otherwise it is two words, always.
    """

    flag: str
    values: tuple[str, ...]
    origin: str
    overrode: tuple[Argument, ...] = field(default=(), compare=False)
    because: str = field(default="", compare=False)
    joined: bool = field(default=True, compare=False)

    def words(self) -> tuple[str, ...]:
        """Its words; a value that would look like a flag stays joined to it, if that may be."""
        if self.joined and self.values and _is_flag(self.values[0]):
            return (f"{self.flag}={self.values[0]}", *self.values[1:])
        return (self.flag, *self.values)


@dataclass(frozen=True, slots=True)
class Argv:
    """Arguments in order."""

    arguments: tuple[Argument, ...] = ()

    def words(self) -> tuple[str, ...]:
        """What a program is started with."""
        return tuple(word for argument in self.arguments for word in argument.words())


@dataclass(frozen=True, slots=True)
class Grammar:
    """What a recipe says of its engine's flags.

    Attributes:
        synonyms: spellings of one flag, the first being its name.
        valueless: flags that take no value.
        apart: flags that look like the negation of another and are something else.
        repeatable: flags that add up over layers instead of replacing each other.
        reserved: flags that only Lemonade gives.
        conflicts: flags of one group replace each other, as if they were one.
        options: flags that an option gives, with the option's name.
        defaults: flags that are given unless users say otherwise.
        repeats_add_up: whether what one layer repeats adds up over all of them.
        abbreviates: whether the beginning of a flag is the flag.
        joined_values: whether the engine understands `--flag=value`.
    """

    synonyms: tuple[tuple[str, ...], ...] = ()
    valueless: frozenset[str] = frozenset()
    apart: frozenset[str] = frozenset()
    repeatable: frozenset[str] = frozenset()
    reserved: frozenset[str] = frozenset()
    conflicts: tuple[tuple[str, ...], ...] = ()
    options: Mapping[str, str] = field(default_factory=dict)
    defaults: frozenset[str] = frozenset()
    repeats_add_up: bool = False
    abbreviates: bool = False
    joined_values: bool = True

    def name_of(self, flag: str) -> str:
        """The flag's first spelling."""
        flag = _hyphenated(flag)
        return next((group[0] for group in self.synonyms if flag in group), flag)

    def negation_of(self, flag: str) -> str:
        """The name of `--no-x` for `--x`, and the other way round; empty for short flags."""
        flag = _hyphenated(flag)
        if flag.startswith("--no-"):
            return self.name_of("--" + flag.removeprefix("--no-"))
        return self.name_of("--no-" + flag.removeprefix("--")) if flag.startswith("--") else ""

    def find(self, argv: Argv, flag: str) -> Argument | None:
        """The last argument of that flag, however it is spelt."""
        name = self.name_of(flag)
        return next((a for a in reversed(argv.arguments) if self.name_of(a.flag) == name), None)

    def replaces(self, new: Argument, old: Argument) -> bool:
        """Whether `new`, of a higher layer, takes the place of `old`."""
        new_name, old_name = self.name_of(new.flag), self.name_of(old.flag)
        if new_name == old_name:
            return new_name not in self.repeatable
        if self._exclude(new_name, old_name):
            return True
        return (
            not new.values
            and not old.values
            and (self.negation_of(new.flag) == old_name or self.negation_of(old.flag) == new_name)
        )

    def repeated(self, layer: Iterable[Argument]) -> frozenset[str]:
        """The flags that add up because this layer repeats them."""
        if not self.repeats_add_up:
            return frozenset()
        counts = Counter(self.name_of(argument.flag) for argument in layer)
        return frozenset(
            name for name, count in counts.items() if count > 1 and not self._exclude(name, name)
        )

    def _exclude(self, one: str, other: str) -> bool:
        return any(one in group and other in group for group in self.conflicts)


def grammar_of(recipe: RecipeSpec) -> Grammar:
    """The grammar a recipe declares."""
    spec = recipe.argv
    bare = Grammar(synonyms=spec.synonyms)
    given = {
        bare.name_of(argument.flag): argument.values
        for template in (
            spec.always,
            spec.context,
            spec.device,
            *spec.for_mode.values(),
            *spec.for_checkpoint.values(),
        )
        for argument in split_leading(template, "recipe")[1].arguments
    }
    options = {
        flag: option.name
        for flag, values in given.items()
        for option in recipe.option
        if any(f"{{{key}}}" in values for key in (option.name, option.setting))
    }
    return Grammar(
        synonyms=spec.synonyms,
        valueless=frozenset(map(bare.name_of, spec.valueless)),
        apart=frozenset(map(bare.name_of, spec.apart)),
        repeatable=frozenset(map(bare.name_of, spec.repeatable)),
        reserved=frozenset(map(bare.name_of, spec.reserved)),
        conflicts=tuple(tuple(map(bare.name_of, group)) for group in spec.conflicts),
        options=options,
        defaults=frozenset(
            bare.name_of(a.flag) for a in split_leading(spec.defaults, "recipe")[1].arguments
        ),
        repeats_add_up=spec.repeats_add_up,
        abbreviates=spec.abbreviates,
        joined_values=spec.joined_values,
    )


def parse_argv(text: str | Sequence[str], origin: str) -> Argv:
    """Read arguments, from a string with POSIX quoting or from a list of words.

    Raises:
        BadArgument: a quote is not closed, a word stands before the first flag, or a list has an
            entry that is no string or holds a flag together with its value.
    """
    try:
        words = split_words(text) if isinstance(text, str) else tuple(text)
    except BadArgument as error:
        raise BadArgument(
            f"{error.message.removesuffix('.')}, in the arguments of {layer_phrase(origin)}.",
            remedy=error.remedy,
            facts={**error.facts, "origin": origin},
        ) from None
    leading, argv = split_leading(words, origin)
    if leading:
        raise BadArgument(
            f"{leading[0]!r} in the arguments of {layer_phrase(origin)} belongs to no flag.",
            remedy="Arguments begin with a flag, as in --threads 4.",
            facts={"word": leading[0], "origin": origin},
        )
    return argv


def split_leading(words: Iterable[str], origin: str) -> tuple[tuple[str, ...], Argv]:
    """The words before the first flag, and the arguments after them.

    Raises:
        BadArgument: a word cannot be an argument.
    """
    leading: list[str] = []
    arguments: list[Argument] = []
    for word in words:
        _check_word(word, origin)
        if _is_flag(word):
            flag, equals, value = word.partition("=")
            values = (value,) if equals else ()
            arguments.append(Argument(_hyphenated(flag), values, origin))
        elif arguments:
            last = arguments[-1]
            arguments[-1] = replace(last, values=(*last.values, word))
        else:
            leading.append(word)
    return tuple(leading), Argv(tuple(arguments))


def merge(layers: Sequence[Argv], grammar: Grammar) -> Argv:
    """One command line from several layers, lowest first.

    What a higher layer says again is removed below and stands where the higher layer puts it, so
    the order is: survivors as they were, then what overrode. Within one layer nothing is removed.
    A flag that adds up removes nothing of its own name.

    Raises:
        BadArgument: a flag that takes no value was given one.
    """
    merged: list[Argument] = []
    for layer in layers:
        incoming = list(layer.arguments)
        adding_up = grammar.repeated(merged) | grammar.repeated(incoming)
        for argument in incoming:
            names = {grammar.name_of(argument.flag), grammar.negation_of(argument.flag)}
            if argument.values and names & grammar.valueless:
                raise BadArgument(
                    f"{argument.flag} takes no value, but {layer_phrase(argument.origin)} gives "
                    f"it {argument.values[0]!r}.",
                    remedy="Remove the value.",
                    facts={"flag": argument.flag, "origin": argument.origin},
                )
        survivors = []
        for old in merged:
            name = grammar.name_of(old.flag)
            at = next(
                (
                    i
                    for i, new in enumerate(incoming)
                    if grammar.replaces(new, old)
                    and not (name in adding_up and grammar.name_of(new.flag) == name)
                ),
                None,
            )
            if at is None:
                survivors.append(old)
            else:
                incoming[at] = replace(incoming[at], overrode=(*incoming[at].overrode, old))
        merged = survivors + incoming
    return Argv(tuple(merged))


def layer_phrase(origin: str) -> str:
    """An origin as part of a sentence: `the request`."""
    return _LAYERS.get(origin, origin)


def check_reserved(argv: Argv, grammar: Grammar) -> None:
    """Refuse flags that only Lemonade gives, in any spelling and negated.

    Raises:
        ReservedArgument: naming the flag, where it came from and what to use instead.
    """
    for argument, flag in _flags_of(argv, grammar):
        name = _reserved_name(flag, grammar)
        if name is None:
            continue
        also = "" if name == flag else f" ({name})"
        option = grammar.options.get(name)
        raise ReservedArgument(
            f"Argument '{flag}'{also} from {layer_phrase(argument.origin)} is managed by "
            "Lemonade and cannot be overridden.",
            remedy=f"Use the option '{option}' instead." if option else "Remove it.",
            facts={
                "flag": flag,
                "origin": argument.origin,
                "reserved": sorted(grammar.reserved),
            },
        )


def _flags_of(argv: Argv, grammar: Grammar) -> Iterator[tuple[Argument, str]]:
    """What the engine could take for a flag.

    A joined value becomes a word of its own where the engine does not understand it joined; if the
    flag before it takes no value, that word is the next flag.
    """
    for argument in argv.arguments:
        yield argument, argument.flag
        if not grammar.joined_values and argument.values and _is_flag(argument.values[0]):
            yield argument, argument.values[0].partition("=")[0]


def _reserved_name(flag: str, grammar: Grammar) -> str | None:
    whole = flag.partition(".")[0]  # `--flag.key value` sets a part of a flag's value
    name, negation = grammar.name_of(whole), grammar.negation_of(whole)
    if name in grammar.reserved:
        return name
    if name in grammar.apart:
        return None
    if negation in grammar.reserved:
        return negation
    if grammar.abbreviates and whole.startswith("--"):
        # An engine that takes `--serv` for `--served-model-name` is not got round that way.
        begins = (_hyphenated(whole), "--" + _hyphenated(whole).removeprefix("--no-"))
        spellings = {s: g[0] for g in grammar.synonyms for s in g} | {
            name: name for name in grammar.reserved
        }
        return next(
            (
                meant
                for spelling, meant in sorted(spellings.items())
                if meant in grammar.reserved and spelling.startswith(begins)
            ),
            None,
        )
    return None


def notices_of(argv: Argv, grammar: Grammar) -> tuple[str, ...]:
    """What users are told about arguments that touch what Lemonade gives by default."""
    found = []
    for argument in argv.arguments:
        name, negation = grammar.name_of(argument.flag), grammar.negation_of(argument.flag)
        where = layer_phrase(argument.origin)
        if name in grammar.defaults and not argument.values:
            found.append(f"{argument.flag} of {where} changes nothing: Lemonade gives it anyway.")
        elif name in grammar.defaults:
            found.append(f"{argument.flag} of {where} replaces what Lemonade gives by default.")
        elif negation in grammar.defaults:
            found.append(f"{argument.flag} of {where} takes back {negation}, Lemonade's default.")
    return tuple(found)


def _check_word(word: object, origin: str) -> None:
    if not isinstance(word, str):
        raise BadArgument(
            f"The arguments of {layer_phrase(origin)} hold {word!r}, which is no string.",
            remedy='Write every argument as a string: ["--threads", "4"].',
        )
    if "\0" in word:
        raise BadArgument(f"The arguments of {layer_phrase(origin)} hold a NUL character.")
    flag = word.partition("=")[0]
    nameless = not flag.strip("-") or any(char.isspace() for char in flag)
    if _is_flag(word) and nameless:
        raise BadArgument(
            f"{word!r} in the arguments of {layer_phrase(origin)} is no flag.",
            remedy="In a list, flag and value are two strings. To give a value that begins with "
            "a hyphen, write --flag=-value.",
            facts={"word": word, "origin": origin},
        )


def _is_flag(word: str) -> bool:
    return len(word) > 1 and word[0] == "-" and _NUMBER.match(word) is None


def _hyphenated(flag: str) -> str:
    """Engines that accept `--ctx_size` for `--ctx-size` mean the same by it; so do we."""
    if not flag.startswith("--"):
        return flag
    name, dot, rest = flag.partition(".")
    return name.replace("_", "-") + dot + rest
