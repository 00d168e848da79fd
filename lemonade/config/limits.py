"""What every engine may take of the machine, as settings. A model's own options come before them.

The group `limits` of the configuration. The same is checked again where the options of a load are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Final

from pydantic import AfterValidator

from lemonade.config.keys import Group, setting
from lemonade.core.errors import BadSetting
from lemonade.core.units import parse_size

_CPUS: Final = re.compile(
    r"\s*(all|[0-9]{1,4}(-[0-9]{1,4})?(\s*,\s*[0-9]{1,4}(-[0-9]{1,4})?)*)?\s*"
)
_LEAST_MEMORY: Final = 16 << 20
_NEXT_LOAD: Final = "at the next load"


def _cpus(words: str) -> str:
    if _CPUS.fullmatch(words) is None:
        raise ValueError("it must be numbers and ranges, as in 0-3,8, or empty")
    for first, last in re.findall(r"([0-9]+)-([0-9]+)", words):
        if int(first) > int(last):
            raise ValueError(f"{first}-{last} is no range")
    return words


def _memory(size: str) -> str:
    if size.strip() in ("", "none"):
        return size
    try:
        amount = parse_size(size.strip())
    except BadSetting as error:
        raise ValueError("it must be a size, as in 24GiB, or empty") from error
    if amount < _LEAST_MEMORY:
        raise ValueError("no engine runs in less than 16 MiB")
    return size


def _files(number: int) -> int:
    if 0 < number < 16:
        raise ValueError("it must be at least 16, or 0")
    return number


class LimitSettings(Group):
    """What every engine may take of the machine, unless its model says otherwise."""

    max_open_files: Annotated[int, AfterValidator(_files)] = setting(
        0,
        "Files and connections an engine may have open; 0 leaves it to the system.",
        effect=_NEXT_LOAD,
        ge=0,
        le=1 << 20,
    )
    nice: int = setting(
        0,
        "How far engines give way to other programs: 0 not at all, 19 always.",
        effect=_NEXT_LOAD,
        ge=0,
        le=19,
    )
    cpus: Annotated[str, AfterValidator(_cpus)] = setting(
        "", "CPUs engines may run on, as in `0-3,8`; empty is all.", effect=_NEXT_LOAD
    )
    max_memory: Annotated[str, AfterValidator(_memory)] = setting(
        "",
        "Main memory an engine may take, as in `24GiB`; empty is no limit.",
        effect=_NEXT_LOAD,
    )

    def as_options(self) -> Mapping[str, object]:
        """As a layer of the options of a load."""
        return self.model_dump()
