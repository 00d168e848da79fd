"""`FamilySpec`: arguments that models of a kind share, and which kind a model is of.

This file loads and matches. How the arguments found are merged with others is decided elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from lemonade.catalog.backend import Declared
from lemonade.catalog.reading import Check, read_object, validated
from lemonade.core.records import dataclass


class FamilyMatchSpec(Declared):
    """One way to be of a family.

    Attributes:
        checkpoint_regex: searched in the main checkpoint; empty matches nothing.
    """

    checkpoint_regex: str = ""

    @field_validator("checkpoint_regex")
    @classmethod
    def _compiles(cls, value: str) -> str:
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"it is not a regular expression ({error})") from error
        return value

    def fits(self, checkpoint: str) -> bool:
        """Whether the expression is found in it."""
        return bool(self.checkpoint_regex) and bool(re.search(self.checkpoint_regex, checkpoint))


class FamilySpec(FamilyMatchSpec):
    """What models of one family are given.

    Attributes:
        match: how a checkpoint shows that it is of the family; any of them is enough. A
            `checkpoint_regex` of the family itself is one more.
        args: arguments for the engine, as a shell would read them.
        speculative_config: a JSON object for engines that decode speculatively.
    """

    match: tuple[FamilyMatchSpec, ...] = ()
    args: str = ""
    speculative_config: dict[str, Any] | None = None


class FamilyMemberSpec(Declared):
    """What one model, by name, is given on top.

    Attributes:
        family: its family; otherwise the checkpoint decides.
        args: further arguments.
        disable_family_match: whether the checkpoint must not decide.
        speculative_config: instead of the family's.
    """

    family: str = ""
    args: str = ""
    disable_family_match: bool = False
    speculative_config: dict[str, Any] | None = None


class FamilyFile(Declared):
    """One registry of families."""

    schema_version: Literal[1]
    enable_checkpoint_regex_match: bool = True
    families: dict[str, FamilySpec] = Field(default_factory=dict)
    models: dict[str, FamilyMemberSpec] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _families_exist(self) -> FamilyFile:
        for name, model in self.models.items():
            if model.family and model.family not in self.families:
                raise ValueError(
                    f"model '{name}' names the family '{model.family}', and there is none"
                )
        return self


@dataclass(frozen=True, slots=True)
class FamilyMatch:
    """What was found for one model.

    Attributes:
        family: the family's name, or empty.
        family_args: its arguments; merged first.
        model_args: the model's own; merged on top.
        family_speculative: the family's speculative decoding.
        model_speculative: the model's own, which is instead of that.
    """

    family: str = ""
    family_args: str = ""
    model_args: str = ""
    family_speculative: Mapping[str, Any] | None = None
    model_speculative: Mapping[str, Any] | None = None

    @property
    def speculative_config(self) -> Mapping[str, Any] | None:
        """The model's, or else the family's."""
        return self.model_speculative or self.family_speculative


class FamilyRegistry:
    """Look-ups in one registry; immutable."""

    def __init__(self, content: FamilyFile) -> None:
        self._content = content

    @classmethod
    def read(cls, path: Path, check: Check | None = None) -> FamilyRegistry:
        """Load a file, once `check` has nothing against it.

        Raises:
            BadDescriptor: it is not as it must be.
        """
        return cls(validated(FamilyFile, read_object(path, check), path))

    @classmethod
    def empty(cls) -> FamilyRegistry:
        """A registry in which nothing is found."""
        return cls(FamilyFile(schema_version=1))

    @property
    def families(self) -> Mapping[str, FamilySpec]:
        """All families by name, in the file's order."""
        return self._content.families

    @property
    def models(self) -> Mapping[str, FamilyMemberSpec]:
        """All models that are named."""
        return self._content.models

    def match(self, model: str, checkpoint: str) -> FamilyMatch:
        """What the model with this bare name and main checkpoint is given.

        The family a model names counts; otherwise the first whose expression is found in the
        checkpoint, families in the order of their names.
        """
        member = self._content.models.get(model, FamilyMemberSpec())
        name = member.family
        if not name and self._content.enable_checkpoint_regex_match:
            name = "" if member.disable_family_match else self._by_checkpoint(checkpoint)
        family = self._content.families.get(name, FamilySpec())
        return FamilyMatch(
            family=name,
            family_args=family.args,
            model_args=member.args,
            family_speculative=family.speculative_config,
            model_speculative=member.speculative_config,
        )

    def _by_checkpoint(self, checkpoint: str) -> str:
        for name, family in sorted(self._content.families.items()):
            if any(one.fits(checkpoint) for one in (family, *family.match)):
                return name
        return ""
