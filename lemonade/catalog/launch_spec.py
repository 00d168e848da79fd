"""What a recipe says of contexts, of flags an engine knows, and of a second try at a start."""

from __future__ import annotations

import re

from pydantic import field_validator, model_validator

from lemonade.catalog.backend import Declared
from lemonade.core.errors import BadSetting
from lemonade.core.units import parse_duration


class ContextSpec(Declared):
    """How a context is planned that the engine's cache for it can hold.

    The engine reserves its cache when it starts and refuses a context that is larger, so both are
    decided together, from the checkpoint's `config.json`. Flags left empty are not looked at.

    Attributes:
        space_env: variable with the size of the cache on the processor, in GiB.
        cache_bytes: flag with the size of the cache on a device, in bytes.
        memory_share: flag with the share of a device's memory that the engine may take.
        default_share: what it takes when nobody says.
        cache_dtype: flag with the type of the cache's numbers.
        dtype: flag with the type of the model's numbers.
        batched_tokens: flag with how many tokens are computed at once: a layer that looks back a
            certain way only keeps as many beside those.
        default_batched_tokens: how many they are when nobody says.
        parallel: flags with how many devices share a model; the numbers are multiplied. The first
            deals out heads, the second layers.
        stretching: flags that make a model go on beyond what it was trained for.
    """

    space_env: str = ""
    cache_bytes: str = ""
    memory_share: str = ""
    default_share: float = 0.9
    cache_dtype: str = ""
    dtype: str = ""
    batched_tokens: str = ""
    default_batched_tokens: int = 8192
    parallel: tuple[str, ...] = ()
    stretching: tuple[str, ...] = ()


class RetrySpec(Declared):
    """What an engine prints when a start fails that can be tried again, once.

    Attributes:
        pattern: a regular expression searched in the lines it printed; its group `ctx_size` is the
            context that would have fitted.
    """

    pattern: str

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, value: str) -> str:
        try:
            groups = re.compile(value).groupindex
        except re.error as error:
            raise ValueError(f"it is not a regular expression ({error})") from error
        if "ctx_size" not in groups:
            raise ValueError("it must have the group ctx_size, as in (?P<ctx_size>[0-9]+)")
        return value


class HelpSpec(Declared):
    """How an engine is asked which flags it knows.

    Attributes:
        argv: further arguments, one list for each way to ask; the first that names flags counts.
        within: limit for one answer, seconds.
    """

    argv: tuple[tuple[str, ...], ...]
    within: float = 60.0

    @field_validator("within", mode="before")
    @classmethod
    def _duration(cls, value: str | float) -> float:
        try:
            return parse_duration(value)
        except BadSetting as error:
            raise ValueError(str(error)) from error

    @model_validator(mode="after")
    def _asks(self) -> HelpSpec:
        if not self.argv:
            raise ValueError("argv must hold at least one list of arguments")
        return self
