"""`AdaptersSpec`: what a recipe says of adapters (LoRA), the small weights put upon a model's."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from lemonade.catalog.backend import Declared
from lemonade.core.inference import Operation


class AdaptersSpec(Declared):
    """How an engine is given adapters, and how a request chooses one.

    An engine either learns of an adapter only by its command line (`each`), or can be told while
    it runs (`load` and `unload`); then it is told of all of them that way, and one that it does
    not like costs no start.

    Attributes:
        format: `gguf` is a file, `peft` a folder with `adapter_config.json`.
        enable: arguments of a start with adapters, given once. `{rank}` is the smallest of `ranks`
            that all of them fit into.
        each: arguments for each adapter, which has the `{path}`; empty if it is told by `load`.
        excludes: flags of users that `enable` and `each` cannot stand beside.
        unwritable: characters that a path must not have, because the engine would cut it there.
        environment: variables of a start with adapters.
        ranks: the values that `{rank}` may have; empty if the rank does not matter.
        rank_flag: flag of `enable` that has the rank; a user may give it too.
        load: path that is told of an adapter.
        load_body: the JSON it gets; `{name}` is the adapter's name for the engine, `{path}` where
            it is.
        unload: path that is told to forget one.
        unload_body: likewise.
        chosen_by: `name`: a request has the adapter's name as its model. `scales`: it has a list
            of numbers and scales, in `field`; an adapter's number is its place on the command
            line.
        field: see `chosen_by`.
        operations: what can be asked of a model with an adapter.
    """

    format: Literal["gguf", "peft"]
    enable: tuple[str, ...] = ()
    each: tuple[str, ...] = ()
    excludes: tuple[str, ...] = ()
    unwritable: str = ""
    environment: dict[str, str] = Field(default_factory=dict)
    ranks: tuple[int, ...] = ()
    rank_flag: str = ""
    load: str = ""
    load_body: dict[str, str] = Field(default_factory=dict)
    unload: str = ""
    unload_body: dict[str, str] = Field(default_factory=dict)
    chosen_by: Literal["name", "scales"]
    field: str = ""
    operations: tuple[Operation, ...]

    @model_validator(mode="after")
    def _says_how(self) -> Self:
        if bool(self.each) == bool(self.load):
            raise ValueError(
                "it needs either 'each', for a start, or 'load', for a running engine"
            )
        if bool(self.load) != bool(self.unload):
            raise ValueError("'load' and 'unload' belong together")
        if (self.chosen_by == "scales") != bool(self.field):
            raise ValueError("'field' says where 'scales' stand, and is for nothing else")
        if self.chosen_by == "scales" and not self.each:
            raise ValueError("numbers are places on the command line: 'scales' needs 'each'")
        return self

    @property
    def at_run_time(self) -> bool:
        """Whether a running engine can be told of adapters."""
        return bool(self.load)

    @property
    def scales(self) -> bool:
        """Whether an adapter can be applied by more or less than it was trained for."""
        return self.chosen_by == "scales"
