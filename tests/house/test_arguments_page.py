"""The examples of docs/arguments.md, run."""

from __future__ import annotations

import json
import re
import tomllib
from typing import Any

import pytest

from lemonade.catalog import RecipeSpec
from lemonade.core.errors import BadArgument, ReservedArgument
from lemonade.planning import EffectiveOptions, check_options, grammar_of, resolve_options
from tests.house.tree import CHECKOUT

PAGE = (CHECKOUT / "docs" / "arguments.md").read_text(encoding="utf-8")
RECIPE = RecipeSpec.model_validate(
    tomllib.loads((CHECKOUT / "recipes" / "llamacpp.toml").read_text())
)
ARGS = "llamacpp_args"


def rows(last_heading: str) -> list[list[str]]:
    """The table whose last column has that heading; code marks are taken off."""
    lines = PAGE.splitlines()
    at = next(i for i, line in enumerate(lines) if line.endswith(f"| {last_heading} |"))
    found = []
    for line in lines[at + 2 :]:
        if not line.startswith("|"):
            break
        found.append([cell.strip().strip("`") for cell in line.strip().strip("|").split("|")])
    assert found
    return found


def resolve(**layers: Any) -> EffectiveOptions:
    given: dict[str, Any] = {
        "request": {},
        "saved": {},
        "declared": {},
        "section": {},
        "variant": None,
        "ctx_size": -1,
    }
    return resolve_options(RECIPE, **(given | layers))


@pytest.mark.parametrize("row", rows("`ctx_size` is"), ids=" | ".join)
def test_a_context_size_is_settled_as_the_page_says(row: list[str]) -> None:
    config, model, saved, request, expected = row

    def layer(cell: str) -> dict[str, object]:
        return {"ctx_size": json.loads(cell)} if cell else {}

    options = resolve(
        ctx_size=int(config), declared=layer(model), saved=layer(saved), request=layer(request)
    )
    assert options.values["ctx_size"] == int(expected)


@pytest.mark.parametrize("row", rows("the engine gets"), ids=" | ".join)
def test_arguments_merge_as_the_page_says(row: list[str]) -> None:
    config, model, saved, request, expected = row

    def layer(cell: str) -> dict[str, object]:
        if not cell:
            return {}
        return {ARGS: {"null": None, '""': ""}.get(cell, cell)}

    options = resolve(
        section={"args": config},
        declared=layer(model),
        saved=layer(saved),
        request=check_options(RECIPE, layer(request)),
    )
    assert options.values[ARGS] == expected


@pytest.mark.parametrize("row", rows("why"), ids=" | ".join)
def test_arguments_are_refused_as_the_page_says(row: list[str]) -> None:
    arguments, why = row
    with pytest.raises((BadArgument, ReservedArgument)) as caught:
        check_options(RECIPE, {ARGS: arguments})
    assert why in str(caught.value)


def test_the_page_lists_what_is_reserved() -> None:
    grammar = grammar_of(RECIPE)
    paragraph = PAGE.split("in any spelling and negated:", 1)[1].split("###", 1)[0]
    listed = set(re.findall(r"`(--[a-z-]+)`", paragraph))
    negated = {name for name in grammar.reserved if grammar.negation_of(name) in listed}
    assert listed == grammar.reserved - (negated - listed)


def test_the_page_names_the_rules_effects() -> None:
    speculating = [rule for rule in RECIPE.rules.launch if rule.endswith("-speculates")]
    assert len(speculating) == 2
    for rule in speculating:
        assert f"--spec-type draft-{rule.partition('-')[0]}" in PAGE


def test_the_json_of_the_page_is_accepted() -> None:
    (example,) = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    body = json.loads(example)
    checked = check_options(RECIPE, body, ignorable={"model_name"})
    assert list(checked) == [ARGS]
