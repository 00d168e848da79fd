"""What a model's engine may take of the machine: the options for it, and what they mean.

All are optional. What is wrong is refused before anything is started, or room is made for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from lemonade.catalog.recipe import OptionSpec
from lemonade.core.errors import BadOption, BadSetting
from lemonade.core.process import Limits
from lemonade.core.units import parse_size

_MOST_FILES: Final = 2**20
_NICEST: Final = 19
_MOST_CPUS: Final = 8192
_LEAST_MEMORY: Final = 16 * 1024 * 1024

_ALL: Final = "all"
_NONE: Final = "none"
"""Words that say that there is no limit, whatever the configuration says."""

_GROUP: Final = "Limits of the engine"

LIMIT_OPTIONS: Final = (
    OptionSpec(
        name="max_open_files",
        type="int",
        default=0,
        flag="--max-open-files",
        help="Files and connections the engine may have open; 0 leaves it to the system.",
        group=_GROUP,
    ),
    OptionSpec(
        name="nice",
        type="int",
        default=0,
        flag="--nice",
        help="How far the engine gives way to other programs: 0 not at all, 19 always.",
        group=_GROUP,
    ),
    OptionSpec(
        name="cpus",
        type="string",
        default="",
        flag="--cpus",
        help="CPUs the engine may run on, as in 0-3,8, or all; empty follows the setting.",
        group=_GROUP,
    ),
    OptionSpec(
        name="max_memory",
        type="string",
        default="",
        flag="--max-memory",
        help="Main memory the engine may take, as in 24GiB, or none; empty follows the setting.",
        group=_GROUP,
    ),
)
"""What every recipe understands."""


def check_limit(name: str, value: object) -> None:
    """Refuse a value that cannot be meant; other options pass.

    Raises:
        BadOption: with what would be right.
    """
    match name, value:
        case "max_open_files", int(files) if files != 0 and not 16 <= files <= _MOST_FILES:
            raise _bad(name, value, f"Give a number from 16 to {_MOST_FILES}, or 0.")
        case "nice", int(nice) if not 0 <= nice <= _NICEST:
            raise _bad(name, value, f"Give a number from 0 to {_NICEST}.")
        case "cpus", str(words):
            _cpus(words)
        case "max_memory", str(size):
            _memory(size)
        case _:
            pass


def plan_limits(values: Mapping[str, object]) -> Limits:
    """The limits that the options of a load mean.

    Raises:
        BadOption: one of them cannot be meant.
    """
    files, nice = values.get("max_open_files"), values.get("nice")
    return Limits(
        open_files=files if isinstance(files, int) and files else None,
        nice=nice if isinstance(nice, int) else 0,
        cpus=_cpus(str(values.get("cpus") or "")),
        memory_bytes=_memory(str(values.get("max_memory") or "")),
    )


def _cpus(words: str) -> tuple[int, ...]:
    """The CPUs of a list as the kernel writes it."""
    found: set[int] = set()
    for word in words.split(",") if words.strip() not in ("", _ALL) else ():
        first, dash, last = (part.strip() for part in word.partition("-"))
        bounds = (first, last if dash else first)
        if not all(one.isascii() and one.isdigit() and len(one) <= 4 for one in bounds):
            raise _bad("cpus", words, "Give numbers and ranges, as in 0-3,8.")
        low, high = map(int, bounds)
        if low > high or high >= _MOST_CPUS:
            raise _bad("cpus", words, "Give numbers and ranges, as in 0-3,8.")
        found.update(range(low, high + 1))
    return tuple(sorted(found))


def _memory(size: str) -> int | None:
    if size.strip() in ("", _NONE):
        return None
    try:
        amount = parse_size(size.strip())
    except BadSetting as error:
        raise _bad("max_memory", size, "Write a size, as in 24GiB.") from error
    if amount < _LEAST_MEMORY:
        raise _bad("max_memory", size, "No engine runs in less than 16 MiB; write 24GiB.")
    return amount


def _bad(name: str, value: object, remedy: str) -> BadOption:
    return BadOption(
        f"Option '{name}' cannot be {value!r}.", remedy=remedy, facts={"option": name}
    )
