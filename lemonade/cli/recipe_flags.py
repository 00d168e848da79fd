"""Load options as flags, made from what the recipes declare.

A recipe's file names flag, help and heading of each of its options, so that a new recipe has its
flags without a line here. The registries are read when `load` or `run` is invoked, and not before.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from lemonade.cli.command import Command, HeadedOption

if TYPE_CHECKING:
    from lemonade.catalog import OptionSpec

GENERAL: Final = "General Options"

_STORED: Final = "lemonade.load_options"
_METAVARS: Final = {"backend": "BACKEND", "argv": "ARGS", "string": "TEXT"}


class LoadingCommand(Command):
    """A command with the flags of every recipe's options.

    Attributes:
        roots: registries to read; None for those of this machine.
    """

    roots: tuple[Path, ...] | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - click's own signature
        super().__init__(*args, **kwargs)
        self._flags: list[click.Parameter] | None = None

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The command's own options, then those of the recipes."""
        if self._flags is None:
            self._flags = recipe_flags(self.roots)
        params = super().get_params(ctx)
        taken = {word for param in params for word in (*param.opts, *param.secondary_opts)}
        return params + [flag for flag in self._flags if not taken & set(flag.opts)]


def placing_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The flags about a load itself: keep its options, protect it."""
    for words, text in reversed(
        (
            ("--save-options", "Keep these options for later loads of this model."),
            ("--pinned", "Protect it from making room for others."),
        )
    ):
        flag = click.option(words, cls=HeadedOption, heading=GENERAL, is_flag=True, help=text)
        command = flag(command)
    return command


def typed_options(context: click.Context) -> dict[str, object]:
    """The load options that were typed, by the names the server knows; nothing else is sent."""
    options: dict[str, object] = context.meta.get(_STORED, {})
    return options


def recipe_flags(roots: tuple[Path, ...] | None) -> list[click.Parameter]:
    """One flag for each option that any recipe declares, in the recipes' order, and common ones.

    Raises:
        BadDescriptor: a registry file is wrong.
    """
    from lemonade.catalog import Catalog, sources, trusted
    from lemonade.planning import COMMON_OPTIONS
    from lemonade.storage import directories

    config = directories(os.environ).config
    catalog = Catalog.load(
        roots if roots is not None else sources(os.environ, config), trusted(os.environ, config)
    )
    recipes = sorted(catalog.recipes.values(), key=lambda recipe: (recipe.order, recipe.id))
    declared = [(option, recipe.runs) for recipe in recipes for option in recipe.option]
    return _flags([*declared, *((option, True) for option in COMMON_OPTIONS)])


def _flags(options: Iterable[tuple[OptionSpec, bool]]) -> list[click.Parameter]:
    """Recipes share flags such as the context size: the first to declare one describes it."""
    flags: dict[str, click.Parameter] = {}
    for option, runs in options:
        if option.flag and option.flag not in (*flags, "--merge-args"):
            # What cannot be run yet is understood, and not advertised.
            flags[option.flag] = _flag(option, hidden=not runs)
    flags.setdefault(
        "--merge-args",
        HeadedOption(
            ["--merge-args/--no-merge-args"],
            default=None,
            expose_value=False,
            callback=_store("merge_args"),
            heading=GENERAL,
            help="Add engine arguments to those configured elsewhere, or use them alone.",
        ),
    )
    return list(flags.values())


def _flag(option: OptionSpec, *, hidden: bool) -> click.Parameter:
    words, kind, metavar = option.flag, _type(option), _METAVARS.get(option.type)
    if option.type == "bool":
        words = f"{option.flag}/--no-{option.flag.removeprefix('--')}"
    elif metavar is None:
        metavar = option.flag.rpartition("-")[2].upper()
    return HeadedOption(
        [words],
        type=kind,
        default=None,
        metavar=metavar,
        expose_value=False,
        callback=_store(option.name),
        heading=option.group,
        help=option.help,
        hidden=hidden,
    )


def _type(option: OptionSpec) -> type[int | float | str] | None:
    match option.type:
        case "int":
            return int
        case "float":
            return float
        case "bool":
            return None
        case "string" | "argv" | "backend":
            return str


def _store(name: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    def callback(context: click.Context, _parameter: click.Parameter, value: Any) -> None:  # noqa: ANN401 - click's own signature
        if value is not None:
            context.meta.setdefault(_STORED, {})[name] = value

    return callback
